"""Reading a workload: ONNX Runtime runs an ONNX graph once at each of three lengths, and tells what it computed.

The runtime's profile names every kernel that ran, after its own fusions, with the shapes of what went in and came out.
So nothing has to be known of a graph's architecture, and no shape has to be inferred. A run takes milliseconds; its
times are not used, since a first run is slower than all others.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from skerry.build.latency.workload import Dense, Work, Workload, elements
from skerry.spec.errors import DependencyError, ModelKindError

PRODUCTS = frozenset(
    {
        "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulInteger", "MatMulNBits", "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat", "QLinearMatMul", "QGemm",
    }
)  # fmt: skip
"""Operators that multiply matrices; a factor that is constant does not count as their input."""

CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"})

HEAVY = frozenset(
    {
        "Softmax", "Erf", "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Tanh", "Sigmoid", "Exp", "Sqrt", "Pow",
        "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "InstanceNormalization",
        "GroupNorm", "ReduceMean",
    }
)  # fmt: skip
"""Operators that take many instructions for each number."""

VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape"})
"""Operators that move no number."""

_Shapes = Sequence[Sequence[int]]


def read_workload(path: Path, lengths: Sequence[int]) -> Workload:
    """Return the workload of an ONNX model, read at some lengths of text (or once, where its shape is fixed).

    Raises
    ------
    DependencyError
        ONNX Runtime is not installed.
    ModelKindError
        It cannot run the model on made-up input.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"predicting latency needs the package onnxruntime: {error}", hint="pip install 'skerry[onnxruntime]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="skerry-workload-") as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            fixed = all(isinstance(size, int) for one in session.get_inputs() for size in one.shape)
            asked = lengths[-1:] if fixed else lengths
            for tokens in asked:
                session.run(None, {one.name: _made_up(one, tokens) for one in session.get_inputs()})
        except Exception as error:  # the runtime raises a dozen classes of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelKindError(f"its work cannot be read: {reason}", where=str(path)) from error
        events = json.loads(Path(session.end_profiling()).read_bytes())
    read = [_work(tokens, kernels) for tokens, kernels in zip(asked, _runs(events), strict=True)]
    if len({len(work.dense) for work in read}) != 1:
        raise ModelKindError("its work cannot be read: another graph for another length", where=str(path))
    return Workload(readings=tuple(read))


def _made_up(told: Any, tokens: int) -> Any:
    """Return ones of an input's kind: one text, and ``tokens`` along each further axis that is not fixed."""
    import numpy as np

    shape = [size if isinstance(size, int) else (tokens if axis else 1) for axis, size in enumerate(told.shape)]
    kinds = {"float": "float32", "double": "float64"}
    name = told.type.removeprefix("tensor(").removesuffix(")")
    return np.ones(shape, dtype=kinds.get(name, name))


def _runs(events: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the kernels of each run; the event of a run comes when it ends."""
    kernels: list[dict[str, Any]] = []
    for event in sorted(events, key=lambda event: event["ts"] + event.get("dur", 0)):
        if event["name"] == "model_run":
            yield kernels
            kernels = []
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels.append(event)


def _work(tokens: int, kernels: Sequence[dict[str, Any]]) -> Work:
    """Sum up the kernels of a run."""
    dense: list[Dense] = []
    pairs = heavy = light = 0.0
    for event in kernels:
        kind, told = event["args"]["op_name"], event["args"]
        inputs, outputs = _shapes(told["input_type_shape"]), _shapes(told["output_type_shape"])
        layer = _layer(event["name"].removesuffix("_kernel_time"), kind, told, inputs, outputs)
        if layer is not None:
            dense.append(layer)
        elif kind in PRODUCTS:
            pairs += elements(outputs[:1]) * inputs[0][-1]
        elif kind in HEAVY:
            heavy += elements(outputs)
        elif kind not in VIEWS:
            light += elements(outputs)
    ordered = tuple(sorted(dense, key=lambda each: each.name))  # the runtime may run equals in another order
    return Work(tokens=tokens, kernels=len(kernels), dense=ordered, pairs=pairs, heavy=heavy, light=light)


def _layer(name: str, kind: str, told: dict[str, Any], inputs: _Shapes, outputs: _Shapes) -> Dense | None:
    """Return a kernel as a product with a constant weight, or ``None`` for any other."""
    matrices = [shape for shape in inputs[1:] if len(shape) > 1]
    constant = not matrices or int(told.get("parameter_size", 0)) >= prod(matrices[0])
    if kind in PRODUCTS and constant and inputs[0]:
        return Dense(name=name, rows=prod(outputs[0][:-1]), inputs=inputs[0][-1], outputs=outputs[0][-1])
    if kind in CONVOLUTIONS and len(outputs[0]) > 2:
        channels = outputs[0][1]
        width = int(told.get("parameter_size", 0)) // (4 * channels)  # inputs that make one output
        return Dense(name=name, rows=prod(outputs[0]) / channels, inputs=max(1, width), outputs=channels)
    return None


def _shapes(told: Sequence[dict[str, list[int]]]) -> list[list[int]]:
    return [shape for one in told for shape in one.values()]
