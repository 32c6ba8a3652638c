"""A trial of real models: a small BERT as fp32 and as int8, by ONNX Runtime."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest

from skerry.build.artifact import Artifact
from skerry.build.export import export_transformer
from skerry.build.halving import Rung
from skerry.build.importing import find_origin
from skerry.build.limits import Limits
from skerry.build.progress import Progress
from skerry.build.technique import Workbench
from skerry.build.techniques.onnx_dynamic import OnnxDynamic
from skerry.build.trial import Measured, Pace, Trials
from skerry.run.digest import file_digest
from skerry.spec.pipeline import Model

TEXTS = [f"{'a b c ' * (number % 9)}{chr(97 + number % 26)}{chr(97 + number % 7)} text" for number in range(40)]


@pytest.fixture(scope="module")
def forms(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder = tmp_path_factory.mktemp("forms")
    export_transformer(find_origin(Model(from_=str(bert), task="embedding"), folder), "embedding", folder / "fp32.onnx")
    fp32 = Artifact(
        form="onnx", folder=folder, file="fp32.onnx", files=("fp32.onnx",), source=file_digest(folder / "fp32.onnx"),
        tokenizer=bert / "tokenizer.json", dimension=32, max_tokens=64,
    )  # fmt: skip
    (folder / "int8").mkdir()
    bench = Workbench(texts=tuple(TEXTS), progress=Progress(io.StringIO()))
    return fp32, OnnxDynamic().apply(fp32, {}, bench, folder / "int8")


def write_table(path: Path, rows: int, dimension: int) -> None:
    """Write an encoder that is a table of vectors, of ``rows * dimension * 4`` bytes."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    table = np.arange(rows * dimension, dtype=np.float32).reshape(rows, dimension) / (rows * dimension)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", dimension])
    node = helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])
    graph = helper.make_graph([node], "table", [ids], [out], [numpy_helper.from_array(table, "table")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_a_quantized_model_beside_its_original(forms: tuple[Artifact, Artifact]) -> None:
    fp32, int8 = forms
    with Trials(fp32, TEXTS, limits=Limits(cores=1, memory_bytes=600 << 20), pace=Pace(warm_up=2)) as trials:
        found = trials.run(int8, Rung(texts=30, runs=40, seconds=5))
    assert isinstance(found, Measured)
    assert 0.9 < found.quality["cosine"].value < 1
    assert 0 < found.quality["agreement@10"].value <= 1
    assert found.quality["cosine"].low < found.quality["cosine"].high
    assert found.size_bytes == (int8.folder / int8.file).stat().st_size + int8.tokenizer.stat().st_size
    assert 20e6 < found.peak_bytes < 600e6
    assert 0.1 < found.speedup.value < 10


def test_a_model_that_does_not_fit_is_out_of_memory(forms: tuple[Artifact, Artifact]) -> None:
    fp32, _ = forms
    heavy = msgspec.structs.replace(fp32, file="heavy.onnx", files=("heavy.onnx",), dimension=2000)
    write_table(heavy.path, rows=20_000, dimension=2000)
    pace, short = Pace(warm_up=2), Rung(texts=20, runs=8, seconds=5)
    with Trials(fp32, TEXTS, metrics=("agreement@10",), limits=Limits(memory_bytes=120 << 20), pace=pace) as trials:
        tight = trials.run(heavy, short)
    with Trials(fp32, TEXTS, metrics=("agreement@10",), limits=Limits(memory_bytes=600 << 20), pace=pace) as trials:
        wide = trials.run(heavy, short)
    assert not isinstance(tight, Measured)
    assert tight.kind == "out-of-memory"
    assert isinstance(wide, Measured), wide
    assert wide.peak_bytes > 160e6
