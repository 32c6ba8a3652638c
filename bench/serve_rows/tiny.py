"""Tiny: a model of one addition, so that all that is measured is the server; with the peers' way to load it.

Needs nothing but onnxruntime and numpy, so that it runs in every peer's environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "BENCH_MODEL"
SIZE = 4


class Tiny:
    """The session, asked with a list of numbers."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def add(self, numbers: list[float]) -> list[float]:
        """Return the numbers plus 1."""
        answer: list[float] = self._session.run(None, {"x": np.array([numbers], dtype=np.float32)})[0][0].tolist()
        return answer


def from_environment() -> Tiny:
    """Return the model of the file that the benchmark named."""
    return Tiny(open_session(Path(os.environ[MODEL])))


def open_session(path: Path) -> Any:
    """Return a session with one thread that does not spin, as the server's is."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def write_model(path: Path) -> Path:
    """Write the model: float32 (batch, 4) plus 1."""
    import onnx
    from onnx import TensorProto, helper

    shape: list[str | int | None] = ["batch", SIZE]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
