"""The classify stage: prototypes, few-shot, heads, calibrated scores, a swapped model, and bad label files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from skerry.run.head import Head, calibrated, fit_head, read_head, softmax, write_head
from skerry.run.labels import Label, labels_of, read_labels
from skerry.run.stages.classify import ClassifyOptions, ClassifyStage
from skerry.spec.errors import (
    LabelsError,
    ModelCorruptError,
    ModelKindError,
    ModelMissingError,
    SpecError,
    StageError,
    TensorError,
)
from skerry.spec.record import Record
from skerry.testing.sinks import a_context
from skerry.testing.words import BagOfWords, models_of

LABELS = {
    "failure": {"description": "disk failed error broken", "examples": ["io error on disk sda", "disk sda failed"]},
    "login": {"description": "user logged in session opened", "examples": ["session opened for user root"]},
    "install": "package installed upgraded removed",
}
TEXTS = {
    "error on disk sdb, it failed": "failure",
    "session opened for user ann": "login",
    "package curl was upgraded": "install",
}


def classify_stage(home: Path, model: BagOfWords | None = None, **options: Any) -> ClassifyStage:
    if "head" not in options:
        options = {"labels": LABELS, **options}
    stage = ClassifyStage(ClassifyOptions(model="words", **options))
    models = models_of(words=model or BagOfWords(256))
    stage.open(msgspec.structs.replace(a_context(home), models=models))
    return stage


def answers(stage: ClassifyStage, texts: list[str]) -> list[dict[str, Any]]:
    records = [Record({"text": text}) for text in texts]
    assert stage.process_batch(records) == records
    return [record.fields for record in records]


@pytest.mark.parametrize("form", ["inline", "yaml", "json", "names"])
def test_the_nearest_label_wins(tmp_path: Path, form: str) -> None:
    labels: Any = LABELS
    if form == "yaml":
        labels = "labels.yaml"
        (tmp_path / labels).write_text(
            "failure:\n  description: disk failed error broken\n  examples: [io error on disk sda]\n"
            "login: [user logged in, session opened]\ninstall: package installed upgraded removed\n"
        )
    if form == "json":
        labels = "labels.json"
        (tmp_path / labels).write_text(json.dumps(LABELS))
    if form == "names":
        labels = ["disk failed error", "session_opened user", "package upgraded"]
    found = answers(classify_stage(tmp_path, labels=labels), list(TEXTS))
    expected = labels if form == "names" else list(TEXTS.values())
    assert [fields["label"] for fields in found] == expected
    assert all(0.34 < fields["score"] <= 1 for fields in found)


def test_a_batch_equals_singles_and_is_one_run(tmp_path: Path) -> None:
    model = BagOfWords(256)
    stage = classify_stage(tmp_path, model)
    model.calls.clear()
    together = answers(stage, list(TEXTS))
    assert model.calls == [3]
    for fields in together:
        alone = Record({"text": fields["text"]})
        stage.process(alone)
        assert alone.fields["label"] == fields["label"]
        assert alone.fields["score"] == pytest.approx(fields["score"], abs=1e-6)


def test_the_best_few(tmp_path: Path) -> None:
    fields = answers(classify_stage(tmp_path, top_k=5), ["disk failed"])[0]
    assert fields["labels"][0]["label"] == fields["label"] == "failure"
    scores = [entry["score"] for entry in fields["labels"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_temperature_and_unknown(tmp_path: Path) -> None:
    sharp = answers(classify_stage(tmp_path, temperature=0.01), ["disk failed"])[0]["score"]
    soft = answers(classify_stage(tmp_path, temperature=10.0, unknown_below=0.5), ["disk failed"])[0]
    assert sharp > 0.99
    assert soft["label"] == "unknown"
    assert soft["score"] == pytest.approx(1 / 3, abs=0.05)


def test_a_temperature_fitted_to_the_examples(tmp_path: Path) -> None:
    labels = {
        "failure": {"examples": ["disk sda failed", "disk sdb failed error", "error on disk"]},
        "login": {"examples": ["session opened for root", "session opened for ann", "user ann session"]},
    }
    fields = answers(classify_stage(tmp_path, labels=labels, temperature="auto"), ["disk sdc failed"])[0]
    assert (fields["label"], fields["score"] > 0.9) == ("failure", True)
    with pytest.raises(LabelsError, match="needs examples"):
        classify_stage(tmp_path, temperature="auto")


def test_examples_pull_a_label_towards_them(tmp_path: Path) -> None:
    labels = {"a": {"description": "apple", "examples": ["banana"]}, "b": "cherry"}
    far = answers(classify_stage(tmp_path, labels=labels, examples_weight=0.0), ["banana"])[0]["score"]
    near = answers(classify_stage(tmp_path, labels=labels, examples_weight=1.0), ["banana"])[0]["score"]
    assert near > 0.99 > far


def test_prototypes_follow_a_swapped_model(tmp_path: Path) -> None:
    model = BagOfWords(256)
    stage = classify_stage(tmp_path, model)
    before = answers(stage, list(TEXTS))
    model.swap(seed=7)
    after = answers(stage, list(TEXTS))
    assert [fields["label"] for fields in after] == [fields["label"] for fields in before] == list(TEXTS.values())
    fresh = answers(classify_stage(tmp_path, BagOfWords(256, seed=7)), list(TEXTS))
    assert [fields["score"] for fields in after] == [fields["score"] for fields in fresh]


def test_a_swap_in_the_midst_of_a_batch_does_not_mix_models(tmp_path: Path) -> None:
    class SwapsOnce(BagOfWords):
        def embed(self, texts: Any) -> Any:
            vectors = super().embed(texts)
            if self.generation == 0 and texts == ["disk failed"]:
                self.swap(seed=3)
            return vectors

    model = SwapsOnce(256)
    found = answers(classify_stage(tmp_path, model), ["disk failed"])
    fresh = answers(classify_stage(tmp_path, BagOfWords(256, seed=3)), ["disk failed"])
    assert found == fresh


def test_a_vector_that_is_there_is_used(tmp_path: Path) -> None:
    model = BagOfWords(256)
    stage = classify_stage(tmp_path, model, vector="embedding")
    vector = model.embed(["disk failed"])[0]
    model.calls.clear()
    bad = [Record({}), Record({"embedding": [1.0]}), Record({"embedding": "x"})]
    found = stage.process_batch([Record({"embedding": vector}), *bad])
    assert isinstance(found[0], Record)
    assert found[0].fields["label"] == "failure"
    assert [type(answer) for answer in found[1:]] == [StageError] * 3
    assert model.calls == []


def test_a_record_without_text_fails_alone(tmp_path: Path) -> None:
    found = classify_stage(tmp_path).process_batch([Record({"text": "disk failed"}), Record({"text": None})])
    assert [type(answer) for answer in found] == [Record, StageError]


def test_numbers_that_are_none_fail_the_record(tmp_path: Path) -> None:
    class Broken(BagOfWords):
        def embed(self, texts: Any) -> Any:
            return super().embed(texts) * (np.nan if list(texts) == ["broken"] else 1)

    stage = classify_stage(tmp_path, Broken(256))
    with pytest.raises(StageError, match="not finite"):
        stage.process(Record({"text": "broken"}))


def toy_set(count: int, seed: int) -> tuple[Any, list[str]]:
    """Two classes that are told apart by one direction, with far more spread in all the others."""
    random = np.random.default_rng(seed)
    labels = ["up" if number % 2 else "down" for number in range(count)]
    points = random.normal(size=(count, 8)) * 3
    points[:, 0] = [1.5 if label == "up" else -1.5 for label in labels] + random.normal(size=count) * 0.3
    return points.astype(np.float32), labels


def test_a_head_beats_prototypes() -> None:
    points, labels = toy_set(60, 1)
    tests, truth = toy_set(400, 2)
    head = fit_head(points, labels)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    means = np.stack([unit[[label == name for label in labels]].mean(axis=0) for name in head.labels])
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def hits(scores: Any) -> float:
        return float(
            np.mean([head.labels[place] == label for place, label in zip(scores.argmax(1), truth, strict=True)])
        )

    by_head, by_prototypes = hits(head.logits(tests)), hits(tests @ means.T)
    assert by_head > 0.95
    assert by_head > by_prototypes + 0.03


def test_fitting_ends_where_the_gradient_is_zero() -> None:
    points, labels = toy_set(60, 1)
    head = fit_head(points, labels, l2=0.01)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    truth = np.eye(2)[[head.labels.index(label) for label in labels]]
    slope = (softmax(unit @ head.weights.T + head.bias) - truth).T @ unit / len(unit) + 0.01 * head.weights
    assert np.abs(slope).max() < 1e-5


def noisy_set(count: int, seed: int) -> tuple[Any, list[str]]:
    """The toy set with one label in ten wrong."""
    points, labels = toy_set(count, seed)
    flipped = {"up": "down", "down": "up"}
    return points, [label if number % 10 else flipped[label] for number, label in enumerate(labels)]


def test_calibration_makes_scores_tell_the_hit_rate() -> None:
    points, labels = toy_set(60, 1)
    checks, truth = noisy_set(2000, 6)

    def gap(head: Head) -> float:
        scores = head.scores(checks)
        hits = [head.labels[place] == label for place, label in zip(scores.argmax(1), truth, strict=True)]
        return abs(float(scores.max(axis=1).mean()) - float(np.mean(hits)))

    sure = fit_head(points, labels, l2=1e-6)
    modest = calibrated(sure, *noisy_set(2000, 5))
    assert gap(modest) < gap(sure) / 2
    assert gap(modest) < 0.05
    with pytest.raises(LabelsError):
        calibrated(sure, points[:1], ["sideways"])


@pytest.mark.parametrize("name", ["head.npz", "head.json"])
def test_a_head_is_written_and_used(tmp_path: Path, name: str) -> None:
    model = BagOfWords(256)
    texts = [*TEXTS, "disk broken", "user logged in", "package removed"]
    labels = [*TEXTS.values(), "failure", "login", "install"]
    head = fit_head(model.embed(texts), labels)
    write_head(head, tmp_path / name)
    again = read_head(tmp_path / name)
    assert again.labels == ("failure", "install", "login")
    np.testing.assert_allclose(again.weights, head.weights, rtol=1e-6)
    found = answers(classify_stage(tmp_path, model, head=name), list(TEXTS))
    assert [fields["label"] for fields in found] == list(TEXTS.values())
    assert found[0]["score"] == pytest.approx(head.scores(model.embed(list(TEXTS)[:1]))[0].max(), abs=1e-5)


def test_bad_heads(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError):
        read_head(tmp_path / "none.npz")
    with pytest.raises(ModelKindError):
        read_head(tmp_path / "head.pkl")
    for name, content in {
        "a.npz": b"garbage",
        "b.json": b"{}",
        "c.json": b'{"labels": ["a", "b"], "weights": [[1], [2, 3]], "bias": [0, 0]}',
        "d.json": b'{"labels": ["a", "a"], "weights": [[1], [2]], "bias": [0, 0]}',
        "e.json": b'{"labels": ["a", "b"], "weights": [[1], [2]], "bias": [0]}',
        "f.json": b'{"labels": ["a", "b"], "weights": [[1], [2]], "bias": [0, 0], "temperature": 0}',
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelCorruptError):
            read_head(tmp_path / name)
    write_head(Head(("a", "b"), np.ones((2, 3)), np.zeros(2)), tmp_path / "small.npz")
    with pytest.raises(TensorError, match="embeddings of 3 numbers"):
        classify_stage(tmp_path, head="small.npz")
    with pytest.raises(ModelKindError):
        write_head(Head(("a", "b"), np.ones((2, 3)), np.zeros(2)), tmp_path / "head.txt")


@pytest.mark.parametrize(
    ("embeddings", "labels", "error"),
    [
        (np.ones((2, 3)), ["a", "a"], LabelsError),
        (np.ones((2, 3)), ["a"], LabelsError),
        (np.full((2, 3), np.nan), ["a", "b"], TensorError),
        (np.ones(2), ["a", "b"], TensorError),
    ],
)
def test_what_cannot_be_fitted(embeddings: Any, labels: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        fit_head(embeddings, labels)


def test_a_label_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(
        "disk_full: no space left\nok:\nno: [a, b]\n404:\n  description: not found\n  examples:\n    - GET /x 404\n"
    )
    assert read_labels(path) == (
        Label("disk_full", ("no space left",)),
        Label("ok"),
        Label("no", ("a", "b")),
        Label("404", ("not found",), ("GET /x 404",)),
    )


@pytest.mark.parametrize(
    ("content", "message", "place"),
    [
        ("", "is empty", "labels.yaml"),
        ("# nothing\n", "is empty", "labels.yaml"),
        ("just text", "holds a str", "labels.yaml"),
        ("{}", "no labels", "labels.yaml"),
        ("a: one\na: two\n", "duplicate key", "labels.yaml:2:1"),
        ("- a\n- b\n- a\n", "there twice", "labels.yaml:3:3"),
        ("a:\n  examples:\n    - x\n    - 5\n", "holds 5", "labels.yaml:4:7"),
        ("a:\n  exampels: [x]\n", "did you mean 'examples'", "labels.yaml:2:3"),
        ("b: x\na: 5\n", "is a int", "labels.yaml:2:1"),
        ("a: [x\n", "expected", "labels.yaml:"),
        ("- {a: 1}\n", "no name", "labels.yaml:1:3"),
        ("true: x\n", "no name", "labels.yaml:1:1"),
        ("a: ['']\n", "holds ''", "labels.yaml:1"),
    ],
)
def test_a_bad_label_file_says_where(tmp_path: Path, content: str, message: str, place: str) -> None:
    (tmp_path / "labels.yaml").write_text(content)
    with pytest.raises(LabelsError) as caught:
        classify_stage(tmp_path, labels="labels.yaml")
    assert message in str(caught.value)
    assert place in caught.value.where
    assert caught.value.exit_code == 25


def test_label_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels(tmp_path / "binary.yaml")
    with pytest.raises(LabelsError, match="no labels"):
        labels_of([])


@pytest.mark.parametrize(
    "options",
    [
        {"labels": None},
        {"labels": ["a"], "head": "x.npz"},
        {"top_k": 0},
        {"temperature": 0.0},
        {"prompts": []},
        {"prompts": ["nothing"]},
        {"labels": None, "head": "x.npz", "temperature": "auto"},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        ClassifyStage(ClassifyOptions(model="m", **{"labels": ["a", "b"], **options}))
