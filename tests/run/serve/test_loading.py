"""Loading: projects, folders and files become models with a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.run.serve.loading import load_servables
from skerry.run.serve.servable import Servable
from skerry.run.serve.tensors import TensorServable, has_independent_rows
from skerry.runtimes.null import NullRuntime
from skerry.spec.errors import (
    ModelCorruptError,
    ModelKindError,
    ModelMissingError,
    SpecMissingError,
    TensorError,
    UsageError,
)
from tests.run.serve.parts import ask, serving
from tests.run.test_encoder import write_tokenizer

PIPELINE = """\
skerry: 1
name: triage
source: "memory:"
models:
  words: {from: "null:", task: "null"}
stages:
  - classify: {model: words, labels: {good: all is well, bad: it broke}}
sinks: ["memory:"]
"""


def write_project(folder: Path, pipeline: str = PIPELINE, **models: dict[str, Any]) -> Path:
    """Write a project with built models of the null runtime."""
    (folder / "pipeline.yaml").write_text(pipeline)
    release = folder / ".skerry" / "triage"
    release.mkdir(parents=True)
    built: dict[str, Any] = {}
    for name, model in (models or {"words": {"dimension": 8}}).items():
        (release / f"{name}.null.json").write_text(json.dumps({"skerry_null": 1, **model}))
        variants = [{"name": each, "runtime": "null", "file": f"{name}.null.json"} for each in ("best", "small")]
        task = "null" if "dimension" in model else "tensors"
        built[name] = {"source": "null", "task": task, "dimension": model.get("dimension", 0), "variants": variants}
    manifest = {"skerry": 1, "name": "triage", "release": "sha256:0", "models": built}
    (release / "manifest.json").write_text(json.dumps(manifest))
    return folder


TENSORS = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
}


@pytest.fixture
def close() -> Iterator[list[Servable]]:
    """Collect servables that are closed at the end."""
    found: list[Servable] = []
    yield found
    for each in found:
        each.close()


def test_a_project_gives_embeddings_and_labels(tmp_path: Path) -> None:
    with serving(*load_servables(write_project(tmp_path))) as server:
        metadata = ask(server, "/v2/models/words").json
        assert [each["name"] for each in metadata["outputs"]] == ["embedding", "label", "score"]
        body = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["all is well", "no"]}]}
        outputs = {each["name"]: each for each in ask(server, "/v2/models/words/infer", body).json["outputs"]}
        assert outputs["embedding"]["shape"] == [2, 8]
        assert set(outputs["label"]["data"]) <= {"good", "bad"} and outputs["label"]["datatype"] == "BYTES"
        assert all(0.5 <= score <= 1 for score in outputs["score"]["data"])
        asked = body | {"outputs": [{"name": "label"}]}
        assert [each["name"] for each in ask(server, "/v2/models/words/infer", asked).json["outputs"]] == ["label"]
        found = ask(server, "/v1/embeddings", {"model": "words", "input": "all is well"}).json["data"][0]["embedding"]
        assert found == pytest.approx(outputs["embedding"]["data"][:8])


def test_a_project_with_several_models_serves_them_all(tmp_path: Path, close: list[Servable]) -> None:
    text = PIPELINE.replace("models:", 'models:\n  numbers: {from: "null:", task: tensors}')
    project = write_project(tmp_path, text, words={"dimension": 8}, numbers=TENSORS)
    close += load_servables(project / "pipeline.yaml")
    assert {each.name: each.takes_text for each in close} == {"numbers": False, "words": True}
    with pytest.raises(UsageError, match="one name cannot stand"):
        load_servables(project, name="mine")
    with pytest.raises(ModelMissingError, match="no such variant"):
        load_servables(project, variant="nowhere")


def test_a_file_is_served_by_its_tensors(tmp_path: Path, close: list[Servable]) -> None:
    path = tmp_path / "numbers.null.json"
    path.write_text(json.dumps({"skerry_null": 1, **TENSORS}))
    close += load_servables(path)
    assert (close[0].name, close[0].platform, close[0].outputs[0].name) == ("numbers", "null", "y")
    assert load_servables(path, name="mine")[0].name == "mine"
    with pytest.raises(UsageError, match="no variants"):
        load_servables(path, variant="best")


def test_a_folder_with_a_tokenizer_is_a_model_of_texts(tmp_path: Path, close: list[Servable]) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "model.null.json").write_text(json.dumps({"skerry_null": 1, "dimension": 6}))
    close += load_servables(folder)
    assert not close[0].takes_text
    write_tokenizer(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    close += load_servables(folder)
    assert (close[1].name, close[1].takes_text) == ("reader", True)
    vector = close[1].run([{"text": np.array(["hello world"], dtype=object)}], frozenset({"tokens"}))[0]
    assert vector["embedding"].shape == (1, 6) and vector["tokens"].tolist() == [4]
    (folder / "sentence_bert_config.json").write_text("{")
    with pytest.raises(ModelCorruptError, match="settings beside the model"):
        load_servables(folder)


def test_what_cannot_be_served_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecMissingError):
        load_servables(tmp_path / "nowhere")
    with pytest.raises(ModelMissingError, match="found: none"):
        load_servables(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelKindError, match="no model that is known"):
        load_servables(tmp_path / "notes.txt")
    for name in ("a", "b"):
        (tmp_path / f"{name}.null.json").write_text(json.dumps({"skerry_null": 1, **TENSORS}))
    with pytest.raises(ModelMissingError, match=r"a\.null\.json, b\.null\.json"):
        load_servables(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pipeline.yaml").write_text(PIPELINE)
    with pytest.raises(ModelMissingError, match="not built"):
        load_servables(project)


def null_session(folder: Path, inputs: Any, outputs: Any) -> Any:
    path = folder / "x.null.json"
    path.write_text(json.dumps({"skerry_null": 1, "inputs": inputs, "outputs": outputs}))
    return NullRuntime().load(path)


def spec(name: str, *shape: int | str, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def test_rows_share_a_run_only_where_that_is_proven(tmp_path: Path) -> None:
    together = null_session(tmp_path, [spec("x", "n", 4)], [spec("y", "n", 2)])
    assert has_independent_rows(together)
    summed = null_session(tmp_path, [spec("x", "n", 4)], [spec("y", 1, 2)])
    assert not has_independent_rows(summed)
    fixed = null_session(tmp_path, [spec("x", 1, 4)], [spec("y", 1, 2)])
    assert not has_independent_rows(fixed)


def test_a_sum_over_the_first_axis_is_not_taken_for_a_batch(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)], "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 3])],
        [helper.make_tensor_value_info("y", kind, ["batch", 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "sums.onnx"))
    (servable,) = load_servables(tmp_path / "sums.onnx")
    assert isinstance(servable, TensorServable) and not servable.shares_runs
    assert servable.group({"x": np.zeros((2, 3), np.float32)}) is None
    servable.close()


def test_requests_that_share_a_run_get_what_they_get_alone(tmp_path: Path, close: list[Servable]) -> None:
    servable = TensorServable("x", null_session(tmp_path, [spec("x", "n", 4)], [spec("y", "n", 2)]))
    close.append(servable)
    requests = [{"x": np.random.default_rng(rows).random((rows, 4), dtype=np.float32)} for rows in (1, 3, 2)]
    assert {servable.group(each) for each in requests} == {((4,),)}
    for request, answer in zip(requests, servable.run(requests, frozenset({"y"})), strict=True):
        assert servable.admit(request) == len(answer["y"])
        np.testing.assert_allclose(answer["y"], servable.run([request], frozenset())[0]["y"])
    with pytest.raises(TensorError):
        servable.admit({"x": np.zeros((1, 3), np.float32)})
