"""Here: how fast one core of this machine is, for what is planned for another.

Processor time counts and not the time that passed, so that other work on the machine does not make it look slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from skerry.build.cache import Cache
from skerry.build.latency.planning import Plan, Speed, lanes, speed_of
from skerry.build.measure import machine_digest
from skerry.build.report import tool_versions
from skerry.build.techniques.graph import import_onnx
from skerry.device.catalogue import load_device
from skerry.device.cpu import isa, processors
from skerry.device.gemm import matmul_integer_model
from skerry.device.tree import Tree
from skerry.spec.errors import DependencyError, DeviceError
from skerry.spec.ports import Array

VERSION = 1
"""Counts changes of what is measured, so that older figures are not used."""

SIDE = 768
"""Rows and columns of the matrices, as in :mod:`skerry.device.gemm`."""

ARRAY_BYTES = 64 << 20
"""Bytes of the array that is copied: more than most caches hold."""

ROUNDS = 12


def speed_here(cache: Cache) -> Speed:
    """Measure one core of this machine in about a second, or find what was measured before.

    Raises ``DependencyError`` when ONNX Runtime or the package onnx is not installed.
    """
    key = {
        "step": "speed", "version": VERSION, "machine": machine_digest(), "tools": tool_versions("numpy", "onnxruntime")
    }  # fmt: skip

    def make(folder: Any) -> dict[str, Any]:
        return {"speed": msgspec.to_builtins(_measured())}

    return msgspec.convert(cache.entry(key, make).note.facts["speed"], Speed)


def _measured() -> Speed:
    import numpy as np

    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (SIDE, SIDE), dtype=np.int8)
    integers = _product(
        matmul_integer_model(SIDE, weights.tobytes()), random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    )
    floats = _product(_float_model(weights.astype(np.float32)), random.standard_normal((SIDE, SIDE), dtype=np.float32))
    source, target = np.ones(ARRAY_BYTES // 8), np.empty(ARRAY_BYTES // 8)
    operations = 2.0 * SIDE**3
    rate = operations / _least_s(floats)
    return Speed(
        integers=operations / _least_s(integers), floats=rate,
        bandwidth=2 * ARRAY_BYTES / _least_s(lambda: np.copyto(target, source)),
        single=rate / lanes(isa(processors(Tree()))),
    )  # fmt: skip


def _product(model: bytes, factor: Array) -> Callable[[], object]:
    """Return a product of matrices by ONNX Runtime on one thread, to be called: numpy's would take all cores."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"planning for a device needs the package onnxruntime: {error}", hint="pip install 'skerry[onnxruntime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": factor})


def _float_model(weights: Array) -> bytes:
    """Return an ONNX model ``y = a @ weights`` in fp32."""
    onnx = import_onnx()
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    places = [helper.make_tensor_value_info(name, kind, weights.shape) for name in ("a", "y")]
    constant = onnx.numpy_helper.from_array(weights, "b")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])], "gemm", places[:1], places[1:], [constant]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def _least_s(work: Callable[[], object]) -> float:
    """Return the least processor time of a round, all threads together, in seconds."""
    work()
    least = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        work()
        least = min(least, time.process_time() - before)
    return least


def plan_for(name: str, cache: Cache) -> Plan:
    """Return the plan for a device of the catalogue.

    Raises ``DeviceError`` for one that is not there (the hint has the nearest name), or whose speed is not known, and
    ``DependencyError`` as :func:`speed_here`.
    """
    profile = load_device(name)
    there = speed_of(profile)
    if there is None:
        raise DeviceError(
            f"nobody knows how fast {profile.name} multiplies", where=f"--device {name}", hint="build on the device"
        )
    return Plan(name=name, profile=profile, here=speed_here(cache), there=there)
