"""Matrix products, measured: in fp32 by numpy's BLAS, in int8 by ONNX Runtime.

One multiply-add counts as two operations, as in LINPACK. The int8 model is written here byte by byte, because the
`onnx` package is not part of a device's installation. Source of the format: ``onnx.proto`` of ONNX, and "Encoding" in
the Protocol Buffers documentation.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from skerry.device.stopwatch import time_rounds
from skerry.spec.errors import DependencyError

# Field numbers of onnx.proto.
_MODEL_IR, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET = 1, 2, 7, 8
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_UINT8, _INT8, _INT32 = 2, 3, 6


class GemmRate(NamedTuple):
    """Operations per second, the side of the square matrices, the rounds, and what computed them."""

    ops_per_s: float
    side: int
    rounds: int
    engine: str


def measure_fp32(*, side: int = 768, limit_s: float = 0.5, sustained: bool = False) -> GemmRate:
    """Multiply two ``side`` x ``side`` float32 matrices with numpy's BLAS, which chooses its threads itself.

    Parameters
    ----------
    side:
        Rows and columns of each matrix.
    limit_s, sustained:
        See ``time_rounds``.
    """
    import numpy as np

    random = np.random.default_rng(0)
    a = random.standard_normal((side, side), dtype=np.float32)
    b = random.standard_normal((side, side), dtype=np.float32)
    out = np.empty((side, side), dtype=np.float32)
    timed = time_rounds(lambda: np.matmul(a, b, out=out), limit_s=limit_s, sustained=sustained)
    return GemmRate(2.0 * side**3 / timed.seconds, side, timed.times, f"numpy {np.__version__}")


def measure_int8(threads: int, *, side: int = 768, limit_s: float = 0.5, sustained: bool = False) -> GemmRate:
    """Multiply uint8 by constant int8 matrices with ONNX Runtime's ``MatMulInteger``.

    Parameters
    ----------
    threads:
        Threads of the session.
    side:
        Rows and columns of each matrix.
    limit_s, sustained:
        See ``time_rounds``.

    Raises
    ------
    DependencyError
        ONNX Runtime is not installed, or cannot be loaded.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"the int8 rate needs the package onnxruntime: {error}", hint="pip install 'skerry[onnxruntime]'"
        ) from error
    import numpy as np

    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (side, side), dtype=np.int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # only errors: what it says about affinities in a container helps nobody
    session = onnxruntime.InferenceSession(
        matmul_integer_model(side, weights.tobytes()), options, providers=["CPUExecutionProvider"]
    )
    feed = {"a": random.integers(0, 256, (side, side), dtype=np.uint8)}
    timed = time_rounds(lambda: session.run(None, feed), limit_s=limit_s, sustained=sustained)
    return GemmRate(2.0 * side**3 / timed.seconds, side, timed.times, f"onnxruntime {onnxruntime.__version__}")


def matmul_integer_model(side: int, weights: bytes) -> bytes:
    """An ONNX model ``y = MatMulInteger(a, b)``.

    Parameters
    ----------
    side:
        Rows and columns of each matrix.
    weights:
        ``b``, int8, row by row, ``side * side`` bytes.

    Returns
    -------
    bytes
        A serialized ``ModelProto``: input ``a`` uint8 ``[side, side]``, output ``y`` int32 of the same shape.
    """
    node = _text(_NODE_INPUT, "a") + _text(_NODE_INPUT, "b") + _text(_NODE_OUTPUT, "y")
    node += _text(_NODE_OPERATOR, "MatMulInteger")
    tensor = _number(_TENSOR_DIMS, side) * 2 + _number(_TENSOR_TYPE, _INT8) + _text(_TENSOR_NAME, "b")
    tensor += _block(_TENSOR_RAW, weights)
    graph = _block(_GRAPH_NODE, node) + _text(_GRAPH_NAME, "gemm") + _block(_GRAPH_INITIALIZER, tensor)
    graph += _block(_GRAPH_INPUT, _square("a", _UINT8, side)) + _block(_GRAPH_OUTPUT, _square("y", _INT32, side))
    opset = _number(2, 13)  # OperatorSetId.version; its domain is the default one
    head = _number(_MODEL_IR, 8) + _text(_MODEL_PRODUCER, "skerry")
    return head + _block(_MODEL_GRAPH, graph) + _block(_MODEL_OPSET, opset)


def _square(name: str, element_type: int, side: int) -> bytes:
    """A ``ValueInfoProto`` (name 1, type 2) of a tensor (1) with element type (1) and shape (2) of dimensions (1)."""
    dimension = _block(1, _number(1, side))
    tensor = _number(1, element_type) + _block(2, dimension * 2)
    return _text(1, name) + _block(2, _block(1, tensor))


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the eighth bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, content: str) -> bytes:
    return _block(field, content.encode())
