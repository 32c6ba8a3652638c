"""Model files for the tests of the runtimes: a small real ONNX encoder and a null one."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from skerry.runtimes.null import NullModel, write_null_model
from skerry.runtimes.openvino import import_openvino
from tests.runtimes.litert_files import build_litert_encoder

VOCABULARY, DIMENSION = 4096, 512
"""The embedding table alone is 8 MiB, enough to be seen in the memory of a process."""


def build_onnx_encoder(path: Path, *, batch: str | None = "batch", external: bool = False) -> Path:
    """Write embedding look-up, matrix product and masking, with dynamic batch and token axes."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed: pip install 'skerry[build]'")
    helper, numpy_helper, kinds = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    random = np.random.default_rng(0)
    table = random.standard_normal((VOCABULARY, DIMENSION)).astype(np.float32)
    weights = (random.standard_normal((DIMENSION, DIMENSION)) / DIMENSION**0.5).astype(np.float32)
    axes = [batch, "tokens" if batch else None]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "weights"], ["mixed"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=kinds.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["mixed", "column"], ["last_hidden_state"]),
        ],
        "encoder",
        [helper.make_tensor_value_info(name, kinds.INT64, axes) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", kinds.FLOAT, [*axes, DIMENSION])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data" if external else None)
    return path


@pytest.fixture(scope="session")
def onnx_encoder() -> Callable[..., Path]:
    """The builder of ONNX encoders: ``(path, batch=…, external=…)``."""
    return build_onnx_encoder


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ONNX encoder, which no test may change."""
    return build_onnx_encoder(tmp_path_factory.mktemp("onnx") / "encoder.onnx")


@pytest.fixture
def null_model(tmp_path: Path) -> Path:
    """A null text encoder of 8 numbers per token."""
    return write_null_model(tmp_path / "encoder.null.json", NullModel(dimension=8))


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Three rows of five tokens; the second ends in padding."""
    ids = np.array([[5, 17, 900, 3, 7], [2, 4000, 0, 0, 0], [9, 8, 7, 6, 5]], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}


@pytest.fixture(scope="session")
def openvino_model(onnx_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX encoder as OpenVINO writes it, in full precision, without the line break at the end."""
    if find_spec("openvino") is None:  # importorskip would import it with its telemetry on
        pytest.skip("openvino is not installed: pip install 'skerry[openvino]'")
    openvino = import_openvino()
    path = tmp_path_factory.mktemp("openvino") / "encoder.xml"
    openvino.save_model(openvino.Core().read_model(onnx_model), path, compress_to_fp16=False)
    path.write_text(path.read_text().rstrip())
    return path


@pytest.fixture(scope="session")
def litert_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LiteRT encoder with two lengths, of one row each."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: pip install 'skerry[litert]'")
    return build_litert_encoder(tmp_path_factory.mktemp("litert") / "lengths.tflite")
