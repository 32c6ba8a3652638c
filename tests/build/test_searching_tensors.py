"""Searches of models that take arrays, and of classifiers of text: real models, real trials, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from skerry.build import model_search
from skerry.build.cache import Cache
from skerry.build.findings import Failed, Findings, Measured
from skerry.build.halving import Rung
from skerry.build.model_search import Wish
from skerry.build.progress import Progress
from skerry.build.searching import search_project
from skerry.run.models import open_models, read_manifest
from skerry.run.stages.embed import EmbedOptions, EmbedStage
from skerry.run.stages.infer import InferOptions, InferStage
from skerry.spec.errors import ModelError, ModelKindError, SpecError, StageError
from skerry.spec.reading import read_project
from skerry.spec.record import Record
from skerry.testing.sinks import a_context
from tests.build.conftest import write_model
from tests.build.tensor_models import answers, pixels, write_cnn, write_custom

SHORT = Rung(texts=40, runs=16, seconds=1.0)
PIPELINE = """\
skerry: 1
name: small
source: "memory:"
models:
  m:
    from: {source}
    task: {task}
    data: {data}
    budget: {budget}
stages:
  - {stage}
sinks: ["memory:"]
"""


@pytest.fixture(autouse=True)
def short_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a second: what is proved here does not need tight intervals."""
    defaults = dict(model_search.Search.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(model_search.Search.__init__, "__kwdefaults__", {**defaults, "rungs": (SHORT,)})
    monkeypatch.setattr(model_search, "RUNGS", (SHORT,))


def write_pipeline(
    folder: Path, *, source: str = "cnn.onnx", task: str = "tensors", data: str = "{calibrate: data.npz}",
    budget: str = "{}", stage: str = "infer: {model: m}",
) -> Path:  # fmt: skip
    text = PIPELINE.format(source=source, task=task, data=data, budget=budget, stage=stage)
    (folder / "pipeline.yaml").write_text(text)
    return folder


def write_data(folder: Path, count: int = 120, **more: Any) -> None:
    """Write images labelled as the model itself answers, a tenth of them wrong."""
    images = pixels(count)
    labels = answers(folder / "cnn.onnx", images).argmax(axis=1)
    labels[::10] = (labels[::10] + 1) % 4
    np.savez(folder / "data.npz", **{"pixels": images, "labels": labels, **more})


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    write_cnn(tmp_path / "cnn.onnx", extra_output=True)
    write_data(tmp_path)
    return write_pipeline(tmp_path, budget="{quality: {metric: accuracy, min: 0.5}}")


def search(folder: Path, seconds: float = 60.0) -> Findings:
    wish = Wish(seconds=seconds, toolchains=False)
    return search_project(read_project(folder), Cache(folder / "cache"), Progress(None), wish).models["m"]


def test_a_network_is_searched_by_accuracy_and_runs_in_a_pipeline(cnn: Path) -> None:
    findings = search(cnn)
    assert (findings.metric, findings.lower_is_better) == ("accuracy", False)
    assert 0.7 < findings.baseline.figures.quality["accuracy"].value < 1.0
    best = next(each.outcome for each in findings.candidates if each.name == findings.chosen)
    assert isinstance(best, Measured)
    assert best.keeps_budget
    assert set(best.figures.quality) == {"accuracy", "cosine"}
    assert all(used.labelled and used.called == "rows" for used in findings.environment.texts)
    made = {each.name.split("(")[0] for each in findings.candidates if isinstance(each.outcome, Measured)}
    assert {"original", "onnx-convolutions", "onnx-dynamic"} <= made

    manifest = read_manifest(cnn / ".skerry" / "small")
    assert (manifest.models["m"].task, manifest.models["m"].tokenizer) == ("tensors", None)
    models = open_models(cnn / ".skerry" / "small", manifest, read_project(cnn).pipeline.models)
    context = msgspec.structs.replace(a_context(cnn), models=models)
    stage = InferStage(InferOptions(model="m", inputs={"pixels": "image"}, outputs={"logits": "scores"}))
    stage.open(context)
    images = pixels(3, seed=9)
    records = [Record({"image": image}) for image in images]
    found = stage.process_batch([*records, Record({"image": images[0][:2]}), Record({"text": "no image"})])
    assert [type(each) for each in found] == [Record] * 3 + [StageError] * 2
    wanted = answers(cnn / "cnn.onnx", images)
    for record, row in zip(records, wanted, strict=True):
        assert np.corrcoef(record.fields["scores"], row)[0, 1] > 0.99
    one = Record({"image": images[0].tolist()})
    stage.process(one)
    assert np.allclose(one.fields["scores"], records[0].fields["scores"], atol=1e-4)
    with pytest.raises(ModelKindError, match="takes arrays, not text"):
        EmbedStage(EmbedOptions(model="m")).open(context)
    with pytest.raises(SpecError, match="no input 'pixel'"):
        InferStage(InferOptions(model="m", inputs={"pixel": "image"})).open(context)
    models.close()


def test_another_output_is_judged_where_it_is_named(cnn: Path) -> None:
    write_pipeline(cnn, budget="{quality: {metric: cosine, min: 0.5, output: features}}")
    assert search(cnn).metric == "cosine"
    write_pipeline(cnn, budget="{quality: {metric: cosine, min: 0.5, output: feature}}")
    with pytest.raises(SpecError, match=r"(?s)no output 'feature'.*did you mean 'features'"):
        search(cnn)


def test_less_is_better_for_perplexity(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = {"table": rng.normal(size=(64, 32)), "head": rng.normal(size=(32, 64))}
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "head"], ["logits"], name="head_"),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 64])
    graph = helper.make_graph(nodes, "words", [ids], [out], held)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "cnn.onnx")
    rows = {f"input_ids.{row}": rng.integers(0, 64, 5 + row % 7) for row in range(80)}
    np.savez(tmp_path / "data.npz", **rows)
    findings = search(write_pipeline(tmp_path, budget="{quality: {metric: perplexity, max: 1000000000}}"))
    assert findings.lower_is_better
    assert findings.chosen in findings.front
    assert 1 < findings.baseline.figures.quality["perplexity"].value < 1e9
    report = tmp_path / ".skerry" / "small" / "reports" / "m" / "report.html"
    assert "perplexity, less is better" in report.read_text()


def test_a_classifier_of_text_is_searched_by_exact_and_its_accuracy_is_told(tmp_path: Path) -> None:
    write_model(tmp_path / "model", architecture="Classifier", num_labels=3, id2label={0: "a", 1: "b", 2: "c"},
                label2id={"a": 0, "b": 1, "c": 2})  # fmt: skip
    letters = [chr(97 + number) for number in range(26)]
    lines = [
        f"{letters[n % 26]}{letters[n * 7 % 26]} {letters[n * 3 % 26]} word {letters[n // 26]}" for n in range(100)
    ]
    rows = [json.dumps({"text": line, "label": "abc"[n % 3]}) for n, line in enumerate(lines)]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows))
    there = {"source": "model", "task": "classification", "data": "{calibrate: texts.jsonl}"}
    findings = search(write_pipeline(tmp_path, **there))
    assert findings.metric == "exact"
    best = next(each.outcome for each in findings.candidates if each.name == findings.chosen)
    assert isinstance(best, Measured)
    assert set(best.figures.quality) == {"exact", "accuracy"}
    (tmp_path / "texts.jsonl").write_text("\n".join(rows).replace('"b"', '"bee"'))
    with pytest.raises(SpecError, match=r"(?s)no class 'bee'.*one of a, b, c"):
        search(write_pipeline(tmp_path, **there, budget="{quality: {metric: macro-f1, min: 0.1}}"))


# Bad input


@pytest.mark.parametrize(
    ("data", "budget", "said"),
    [
        ("{}", "{}", r"needs data to be searched with.*pixels: float32 \(3, 12, 12\)"),
        ("{calibrate: none.npz}", "{}", "no such file of arrays"),
        ("{calibrate: three.npz}", "{}", "too few different rows.*at least 48"),
        ("{calibrate: nan.npz}", "{}", r"pixels, item 5: a number is NaN"),
        (
            "{calibrate: plain.npz}",
            "{quality: {metric: accuracy, min: 0.5}}",
            "needs the right answers.*`labels` in .npz",
        ),
        ("{calibrate: data.npz}", "{quality: {metric: wer, max: 0.5}}", "no answers that 'wer' can be taken of"),
        ("{calibrate: pipeline.yaml}", "{}", "these are no arrays.*an .npz file with pixels"),
        ("{calibrate: images}", "{}", "no preprocessor_config.json beside the model"),
    ],
    ids=["no data", "no file", "three rows", "NaN", "no labels", "metric", "text", "no preparation"],
)
def test_data_that_cannot_be_used(cnn: Path, data: str, budget: str, said: str) -> None:
    np.savez(cnn / "three.npz", pixels=pixels(3))
    np.savez(cnn / "plain.npz", pixels=pixels(60))
    spoilt = pixels(60)
    spoilt[5, 0, 0, 0] = np.nan
    np.savez(cnn / "nan.npz", pixels=spoilt)
    (cnn / "images").mkdir()
    write_pipeline(cnn, data=data, budget=budget)
    with pytest.raises(SpecError) as caught:
        search(cnn)
    assert caught.match(f"(?s){said}")
    assert caught.value.where
    assert not (cnn / ".skerry").exists()


def test_an_operator_that_no_runtime_knows_is_told_before_anything_is_tried(tmp_path: Path) -> None:
    write_custom(tmp_path / "cnn.onnx")
    np.savez(tmp_path / "data.npz", pixels=pixels(60))
    with pytest.raises(ModelError) as caught:
        search(write_pipeline(tmp_path))
    assert "Sharpen" in str(caught.value)
    assert "cnn.onnx" in caught.value.where
    assert not (tmp_path / ".skerry").exists()


class Spoiling:
    """A technique whose model answers NaN."""

    name, kind, version, summary, toolchain = "spoil", "quantize", 1, "divides by nothing", None

    def refuses(self, artifact: Any) -> str:
        return "" if artifact.form == "onnx" and not artifact.steps else "once is enough"

    def candidates(self, artifact: Any, workbench: Any) -> list[dict[str, Any]]:
        return [{}]

    def apply(self, artifact: Any, settings: dict[str, Any], workbench: Any, target: Path) -> Any:
        import onnx

        from skerry.build.techniques.settings import forged

        model = onnx.load(str(artifact.path))
        (held,) = [one for one in model.graph.initializer if one.name == "b3"]
        held.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, dtype=np.float32), "b3"))
        onnx.save(model, str(target / "model.onnx"))
        return forged(artifact, self, settings, target, ("model.onnx",))


def test_a_candidate_that_answers_nan_fails_alone(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_search, "techniques", lambda: {"export-onnx": Spoiling, "spoil": Spoiling})
    findings = search(cnn)
    outcomes = {each.name: each.outcome for each in findings.candidates}
    spoilt = outcomes["spoil"]
    assert isinstance(spoilt, Failed)
    assert "NaN" in spoilt.reason
    assert findings.chosen == "original"


def test_a_model_that_answers_nan_itself_is_told(cnn: Path) -> None:
    from skerry.build.artifact import Artifact
    from skerry.build.technique import Workbench

    artifact = Artifact(form="onnx", folder=cnn, file="cnn.onnx", files=("cnn.onnx",), source="s", task="tensors")
    (cnn / "spoilt").mkdir()
    made = Spoiling().apply(artifact, {}, Workbench(texts=(), progress=Progress(None)), cnn / "spoilt")
    write_pipeline(cnn, source=str(made.path), budget="{quality: {metric: accuracy, min: 0.5}}")
    with pytest.raises(ModelError, match=r"baseline cannot be measured.*NaN"):
        search(cnn)


def test_a_budget_that_nothing_meets_names_the_nearest_misses(cnn: Path) -> None:
    write_pipeline(cnn, budget="{quality: {metric: accuracy, min: 0.5}, latency_p50: 1us}")
    findings = search(cnn)
    best = next(each.outcome for each in findings.candidates if each.name == findings.chosen)
    assert isinstance(best, Measured)
    assert not best.keeps_budget
    assert findings.near_misses[0].relaxations[0].limit == "latency_p50"
    assert findings.near_misses[0].relaxations[0].written.endswith(" us")
