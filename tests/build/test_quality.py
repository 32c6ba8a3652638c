"""Quality metrics against computations by the book, and their intervals."""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.build import measure, quality
from skerry.build.quality import evaluate, require_metric
from skerry.spec.errors import ModelError, SpecError
from skerry.spec.ports import Array

seeds = st.integers(0, 2**32 - 1)
words = st.lists(st.sampled_from("abc"), max_size=6)


def vectors(seed: int, texts: int = 14, dimension: int = 5) -> Array:
    return np.random.default_rng(seed).normal(size=(texts, dimension))


def likeness(one: Array, other: Array) -> float:
    return round(float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))), 6)


def neighbours(rows: Array, text: int, count: int) -> set[int]:
    others = [place for place in range(len(rows)) if place != text]
    return set(sorted(others, key=lambda place: (-likeness(rows[text], rows[place]), place))[:count])


@settings(max_examples=30)
@given(seeds, st.integers(1, 13), st.booleans())
def test_agreement_is_the_share_of_equal_neighbours(seed: int, count: int, doubled: bool) -> None:
    reference = vectors(seed)
    candidate = reference + vectors(seed + 1) * 0.5
    if doubled:
        reference[7:], candidate[7:] = reference[:7], candidate[:7]
    shares = [
        len(neighbours(reference, text, count) & neighbours(candidate, text, count)) / count for text in range(14)
    ]
    found = evaluate(f"agreement@{count}", reference, candidate)
    assert found.value == pytest.approx(np.mean(shares))
    assert min(shares) - 1e-9 <= found.low <= found.value <= found.high <= max(shares) + 1e-9


def test_agreement_is_that_of_the_report_and_takes_any_dimension() -> None:
    reference, candidate = vectors(1, 60), vectors(1, 60) + vectors(2, 60) * 0.3
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (reference, candidate)]
    assert evaluate("agreement@10", reference, candidate).value == pytest.approx(measure.agreement_at(*units))
    wider = np.concatenate([reference, np.zeros((60, 3))], axis=1)
    assert evaluate("agreement@10", reference, wider).value == 1


@given(seeds)
def test_cosines(seed: int) -> None:
    reference, candidate = vectors(seed), vectors(seed + 1)
    each = [
        float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))
        for one, two in zip(reference, candidate, strict=True)
    ]
    assert evaluate("cosine", reference, candidate).value == pytest.approx(np.mean(each))
    least = evaluate("cosine-min", reference, candidate)
    assert least.value == least.low == pytest.approx(min(each))


@given(seeds, st.integers(1, 5))
def test_recall_is_the_share_of_relevant_texts_found(seed: int, count: int) -> None:
    rows, draw = vectors(seed), np.random.default_rng(seed)
    truth = [set(draw.choice(14, draw.integers(0, 4), replace=False).tolist()) - {text} for text in range(14)]
    shares = [
        len(neighbours(rows, text, count) & truth[text]) / len(truth[text]) for text in range(14) if truth[text]
    ]  # fmt: skip
    if shares:
        assert evaluate(f"recall@{count}", None, rows, truth).value == pytest.approx(np.mean(shares))
    else:
        with pytest.raises(SpecError, match="relevant"):
            evaluate(f"recall@{count}", None, rows, truth)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_accuracy_and_macro_f1(pairs: list[tuple[int, int]]) -> None:
    right, said = zip(*pairs, strict=True)
    logits = np.eye(4)[list(said)]
    assert evaluate("accuracy", None, logits, right).value == pytest.approx(
        sum(one == two for one, two in pairs) / len(pairs)
    )
    scores = []
    for name in set(right) | set(said):
        hits = sum(one == two == name for one, two in pairs)
        wrong = sum((one == name) != (two == name) for one, two in pairs)
        scores.append(2 * hits / (2 * hits + wrong))
    found = evaluate("macro-f1", None, logits, right)
    assert found.value == pytest.approx(np.mean(scores))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_exact_compares_classes_or_whole_answers() -> None:
    assert evaluate("exact", np.eye(3), np.eye(3)[[0, 1, 1]]).value == pytest.approx(2 / 3)
    assert evaluate("exact", ["a", "b"], ["a", "c"]).value == 0.5
    assert evaluate("exact", [np.array([1, 2])], [np.array([1, 2])]).value == 1


@given(words, words)
def test_the_distance_is_levenshteins(one: list[str], other: list[str]) -> None:
    @functools.cache
    def slow(mine: int, theirs: int) -> int:
        if not mine or not theirs:
            return mine + theirs
        same = one[mine - 1] == other[theirs - 1]
        return min(slow(mine - 1, theirs) + 1, slow(mine, theirs - 1) + 1, slow(mine - 1, theirs - 1) + (not same))

    assert quality.distance(one, other) == slow(len(one), len(other)) == quality.distance(other, one)


def test_word_errors_are_summed_before_they_are_divided() -> None:
    right, said = ["the cat sat on the mat", "no"], ["The  cat sat in mat", "no one"]
    found = evaluate("wer", None, said, right)
    assert found.value == pytest.approx(3 / 7)
    assert found.low < found.value < found.high
    assert evaluate("wer", right, said).value == found.value
    with pytest.raises(SpecError, match="word"):
        evaluate("wer", ["", " "], ["a", "b"])


@given(seeds)
def test_perplexity_is_the_inverse_geometric_mean_of_the_probabilities(seed: int) -> None:
    draw = np.random.default_rng(seed)
    texts = [draw.integers(0, 7, draw.integers(2, 9)) for _ in range(5)]
    logits = [draw.normal(size=(len(ids), 7)) * 3 for ids in texts]
    chances = [
        math.exp(rows[place][ids[place + 1]]) / sum(math.exp(logit) for logit in rows[place])
        for rows, ids in zip(logits, texts, strict=True)
        for place in range(len(ids) - 1)
    ]
    found = evaluate("perplexity", None, logits, texts)
    assert found.value == pytest.approx(math.prod(chances) ** (-1 / len(chances)))
    assert 1 <= found.low <= found.value <= found.high


def test_perplexity_of_knowing_nothing_is_the_vocabulary() -> None:
    ids = [np.arange(5)] * 3
    assert evaluate("perplexity", None, [np.zeros((5, 50))] * 3, ids).value == pytest.approx(50)
    with pytest.raises(ModelError, match="logits"):
        evaluate("perplexity", None, [np.zeros((4, 50))] * 3, ids)
    with pytest.raises(SpecError, match="two tokens"):
        evaluate("perplexity", None, [np.zeros((1, 50))], [np.arange(1)])


def test_a_users_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metric.py").write_text(
        "def near(reference, candidate):\n    return 1 - abs(reference - candidate).mean()\n"
        "def broken(reference, candidate):\n    raise KeyError('a column')\n"
        "word = 'no function'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reference, candidate = vectors(1), vectors(1) + 0.25 * (np.arange(14) % 3)[:, None]
    found = evaluate("own_metric:near", reference, candidate)
    assert found.value == pytest.approx(1 - abs(reference - candidate).mean())
    assert found.low < found.value < found.high
    for name, said in [
        ("own_metric:broken", "KeyError"),
        ("own_metric:word", "no function"),
        ("own_metric:missing", "cannot be found"),
        ("no_such_module_here:f", "cannot be found"),
    ]:
        with pytest.raises(SpecError, match=said):
            evaluate(name, reference, candidate)
    del sys.modules["own_metric"]


@pytest.mark.parametrize("name", ["agreemnt@10", "agreement@0", "agreement@x", "agreement@", "cosine@5", "f1", ""])
def test_an_unknown_metric_names_the_nearest(name: str) -> None:
    if name == "agreement@":
        assert require_metric(name).number == 10
        return
    with pytest.raises(SpecError) as caught:
        require_metric(name)
    assert "agreement@10" in caught.value.expected
    if name == "agreemnt@10":
        assert "agreement@10" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "reference", "candidate", "truth", "error"),
    [
        ("agreement@10", vectors(1, 10), vectors(1, 10), None, SpecError),
        ("cosine", vectors(1), vectors(1, dimension=6), None, ModelError),
        ("cosine", vectors(1), vectors(1, 13), None, ModelError),
        ("cosine", vectors(1)[:, 0], vectors(1)[:, 0], None, ModelError),
        ("cosine", vectors(1, 0), vectors(1, 0), None, SpecError),
        ("accuracy", None, np.eye(3), None, SpecError),
        ("accuracy", None, np.eye(3), [1], SpecError),
    ],
)
def test_answers_that_cannot_be_judged(name: str, reference: Any, candidate: Any, truth: Any, error: type) -> None:
    with pytest.raises(error):
        evaluate(name, reference, candidate, truth)


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text(encoding="utf-8")
    for name in quality.names():
        assert f"`{name}`" in text, name
    assert all(metric.summary for metric in quality.METRICS.values())
