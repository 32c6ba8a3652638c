"""Splits of texts, and the frozen evaluation set."""

from __future__ import annotations

import platform
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.build import evaluation
from skerry.build.evaluation import evaluation_set
from skerry.build.splits import LEAST, key, split
from skerry.build.texts import Texts, own_texts
from skerry.spec.errors import DependencyError, SpecError

lines = st.lists(st.text("abcde 019", min_size=1, max_size=6), min_size=60, max_size=150, unique=True)


def texts(found: list[str], origin: str = "texts.txt") -> Texts:
    return Texts(origin=origin, lines=tuple(found))


def different(count: int, word: str = "line") -> list[str]:
    """Texts that differ in letters, since numbers alone do not make a difference."""
    return [f"{word} {chr(97 + number // 26 % 26)}{chr(97 + number % 26)} of it" for number in range(count)]


def keys(part: Texts) -> set[str]:
    return {key(text) for text in part.lines}


@settings(max_examples=50)
@given(lines, st.integers(0, 99))
def test_no_text_is_in_two_splits_and_the_order_of_the_file_decides_nothing(found: list[str], seed: int) -> None:
    splits = split(texts(found), least=0)
    parts = (splits.calibrate, splits.select, splits.report)
    for one in parts:
        for other in parts:
            assert one is other or not keys(one) & keys(other)
    assert sorted(line for part in parts for line in part.lines) == sorted(found)
    mixed = random.Random(seed).sample(found, len(found))
    assert split(texts(mixed), least=0) == splits


@settings(max_examples=50)
@given(lines, lines)
def test_what_is_reported_on_was_never_calibrated_by(calibrate: list[str], evaluate: list[str]) -> None:
    splits = split(texts(calibrate), texts(evaluate, "held.txt"), least=0)
    seen = keys(splits.calibrate) | keys(splits.select)
    assert not keys(splits.calibrate) & keys(splits.select)
    assert not seen & keys(splits.report)
    assert sorted(splits.report.lines) == sorted(evaluate)
    left = len(splits.calibrate.lines) + len(splits.select.lines)
    assert splits.removed == len(calibrate) - left


def test_lines_of_a_log_that_differ_in_numbers_stay_together() -> None:
    found = [f"{line}, took {number} ms" for line in different(60) for number in (3, 17, 250)]
    splits = split(texts(found))
    assert (len(splits.calibrate.lines), len(splits.select.lines), len(splits.report.lines)) == (90, 45, 45)
    assert key("Took\t31 ms") == key(" took 7 ms ")
    assert key("took one") != key("took two")


def test_the_shares_hold() -> None:
    splits = split(texts(different(200)))
    assert (len(splits.calibrate.lines), len(splits.select.lines), len(splits.report.lines)) == (100, 50, 50)
    two = split(texts(different(90)), texts(different(20, "other"), "held.txt"))
    assert (len(two.calibrate.lines), len(two.select.lines), len(two.report.lines)) == (60, 30, 20)
    assert "held.txt" in two.report.origin


def test_too_few_texts_are_refused_and_told_how_many_it_takes() -> None:
    with pytest.raises(SpecError, match="too few") as caught:
        split(texts(different(3)))
    assert str(4 * LEAST) in caught.value.expected
    split(texts(different(4 * LEAST)))
    with pytest.raises(SpecError) as caught:
        split(texts([f"line {number}" for number in range(500)]))
    assert "1 to report on" in caught.value.message or "to calibrate by" in caught.value.message
    with pytest.raises(SpecError) as caught:
        split(texts(different(90)), texts(different(5, "other"), "held.txt"))
    assert caught.value.where == "held.txt"
    with pytest.raises(SpecError, match="88 were in both files") as caught:
        split(texts(different(90)), texts(different(88), "held.txt"))
    assert caught.value.where == "texts.txt"


def test_the_evaluation_set_is_frozen() -> None:
    if platform.python_version() not in evaluation.DIGESTS:
        pytest.skip(f"no digest is noted for Python {platform.python_version()}: python -m skerry.build.evaluation")
    assert evaluation_set().state == "frozen"


def test_the_evaluation_set_is_other_text_than_what_is_selected_by() -> None:
    found = evaluation_set().texts
    assert len(found.lines) == evaluation.SIZE
    assert found.digest == evaluation_set().texts.digest
    assert not keys(found) & keys(own_texts(most=10**6))
    assert all(30 <= len(line) <= 400 for line in found.lines)
    splits = split(own_texts(), found)
    assert splits.removed == 0


def test_another_version_of_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert evaluation_set().state == "unrecorded"
    monkeypatch.setitem(evaluation.DIGESTS, "3.99.0", "sha256:1")
    assert evaluation_set().state == "changed"


def test_a_python_without_its_reference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(DependencyError, match="reference"):
        evaluation_set()
