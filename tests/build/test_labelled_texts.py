"""Texts with labels and relevant texts: how they are read, split and turned into right answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.build import quality
from skerry.build.answers import classes, vectors
from skerry.build.splits import split
from skerry.build.texts import Texts, own_texts, read_texts
from skerry.spec.errors import ModelError, SpecError

LINES = own_texts(most=120).lines


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_labels_stay_with_their_texts_through_the_splits(tmp_path: Path) -> None:
    label = {line: place % 3 for place, line in enumerate(LINES)}
    rows = [{"text": line, "label": label[line]} for line in LINES]
    splits = split(read_texts(written(tmp_path, *rows)))
    for part in (splits.calibrate, splits.select, splits.report):
        assert part.labelled
        assert part.truth("accuracy") == tuple(label[line] for line in part.lines)
        assert part.digest != Texts(origin="", lines=part.lines).digest


def test_relevant_texts_stay_together_and_keep_their_places(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for place in range(0, 120, 3):  # a question with two answers, one by its id and one by its text
        question, one, other = LINES[place : place + 3]
        rows += [
            {"text": question, "relevant": [f"n{place}", other]},
            {"text": one, "id": f"n{place}"},
            {"text": other},
        ]
    wanted = {LINES[place]: set(LINES[place + 1 : place + 3]) for place in range(0, 120, 3)}
    splits = split(read_texts(written(tmp_path, *rows)))
    asked = 0
    for part in (splits.calibrate, splits.select, splits.report):
        truth = part.truth("recall@10")
        assert truth is not None
        for line, places in zip(part.lines, truth, strict=True):
            assert {part.lines[place] for place in places} == wanted.get(line, set())
            asked += bool(places)
    assert asked == 40


def test_recall_does_not_ask_for_texts_beyond_the_first_ones() -> None:
    rows = np.eye(12)
    rows[0, 1] = 1.0
    found = quality.evaluate("recall@1", None, rows, [(1, 40), *[()] * 11])
    assert found.value == 1.0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"txt": "a"}, r"has no text, but txt.*did you mean 'txt'"),
        ({"text": "new", "relevant": "a text"}, "`relevant` is no list"),
        ({"text": "new", "relevant": ["never seen"]}, "'never seen', which is said to be relevant"),
    ],
)
def test_wrong_columns_are_told_with_the_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = written(tmp_path, *({"text": line} for line in LINES), row)
    with pytest.raises(SpecError) as caught:
        read_texts(path)
    assert "texts.jsonl" in caught.value.where
    assert caught.match(f"(?s){said}")


def test_some_labels_are_no_labels(tmp_path: Path) -> None:
    rows = [{"text": line, **({"label": 1} if place % 2 else {})} for place, line in enumerate(LINES)]
    found = read_texts(written(tmp_path, *rows))
    with pytest.raises(SpecError, match="60 of 120 texts have no label"):
        found.truth("accuracy")


# Answers of any shape


def test_answers_of_one_shape_are_flattened_and_others_averaged() -> None:
    rng = np.random.default_rng(0)
    same = [rng.normal(size=(2, 3)) for _ in range(4)]
    assert vectors(same).shape == (4, 6)
    longer = [rng.normal(size=(length, 3)) for length in (2, 5, 3, 4)]
    assert np.allclose(vectors(longer)[1], longer[1].mean(axis=0))
    with pytest.raises(ModelError, match="shapes"):
        vectors([np.zeros((2, 3)), np.zeros((2, 4))])


def test_metrics_take_answers_of_any_shape() -> None:
    rng = np.random.default_rng(1)
    longer = [rng.normal(size=(length, 3)).astype(np.float32) for length in range(2, 22)]
    for name in ("agreement@3", "cosine", "cosine-min", "exact"):
        assert quality.evaluate(name, longer, longer).value == pytest.approx(1.0)
    scores = [np.array([0.1, 0.9]), np.array([0.8, 0.2])]
    assert quality.evaluate("accuracy", None, scores, [1, 1]).value == 0.5
    tokens = [np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 0]]]
    truth = [np.array([0, 1, -100]), np.array([0, 2])]
    assert quality.evaluate("accuracy", None, tokens, truth).value == 0.75
    assert [one.item() for one in classes([np.int64(2), np.array([1])])] == [2, 1]
    with pytest.raises(ModelError, match="no scores of classes"):
        quality.evaluate("accuracy", None, [np.array([0.5])], [1])


def test_losses_stand_for_logits() -> None:
    logits = np.random.default_rng(2).normal(size=(6, 5))
    ids = np.array([0, 3, 1, 4, 4, 2])
    short = quality.condensed(["perplexity"], logits, ids)
    assert short.shape == (5,)
    whole = quality.evaluate("perplexity", None, [logits] * 3, [ids] * 3)
    assert quality.evaluate("perplexity", None, [short] * 3, [ids] * 3) == whole
    assert quality.condensed(["perplexity", "cosine"], logits, ids) is logits
    with pytest.raises(ModelError, match="beyond the 5"):
        quality.evaluate("perplexity", None, [logits], [ids + 3])


def test_a_metric_has_to_suit_the_task() -> None:
    with pytest.raises(SpecError, match="no answers that 'wer' can be taken of"):
        quality.require_metric_for("wer", "tensors", truth=None)
    with pytest.raises(SpecError, match=r"(?s)needs the right answers.*`label` beside `text`"):
        quality.require_metric_for("accuracy", "classification", truth=None)
    assert quality.require_metric_for("perplexity", "tensors", truth=[1]).tasks == ("tensors",)


def test_a_users_function_gets_the_truth_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_errors.py").write_text(
        "def errors(reference, candidate, truth):\n"
        "    return float(sum(abs(c - t).max() for c, t in zip(candidate, truth)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert quality.evaluate("my_errors:errors", [0.0, 0.0], np.array([[1.0], [2.0]]), [1.0, 4.0]).value == 2.0
    with pytest.raises(SpecError, match="needs the right answers"):
        quality.require_metric("my_errors:errors")
