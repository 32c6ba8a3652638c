"""``onnx-fp16``: numbers of 16 bits.

Few processors compute in them: on x86 ONNX Runtime's CPU kernels do not, and convert around each operator. So by
default only the weights are held in 16 bits and widened once at load: half the file, the speed and the memory of fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import FILE, Graph, refuses_onnx
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.runtimes.onnxruntime import import_onnxruntime
from skerry.spec.errors import DependencyError, ModelKindError

_LEAST = 1024
"""Numbers in an initializer worth halving."""


class HalfSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    type:
        ``float16``, or ``bfloat16`` with the range of float32 and 8 bits of precision.
    compute:
        ``fp32`` widens the weights at load. ``fp16`` computes in 16 bits, for devices that can; only with ``float16``.
    """

    type: Literal["float16", "bfloat16"] = "float16"
    compute: Literal["fp32", "fp16"] = "fp32"


class OnnxHalf:
    """Weights, or all numbers, in 16 bits."""

    name: ClassVar[str] = "onnx-fp16"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "16-bit weights widened at load: half the file, no faster; fp16 computing for GPUs"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return float16 for the weights; to compute in 16 bits gains nothing on the CPUs that were measured."""
        return [plain(HalfSettings())]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the 16-bit form."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(HalfSettings, settings, self.name)
        graph = Graph(artifact.path)
        if told.compute == "fp16":
            if told.type == "bfloat16":
                raise ModelKindError(
                    "ONNX Runtime computes in float16 only", expected="type: float16, or compute: fp32"
                )
            graph.model = _converted(graph)
            (target / FILE).write_bytes(graph.model.SerializeToString(deterministic=True))
        else:
            _halve_weights(graph, told.type)
            graph.save(target / FILE)
        return forged(artifact, self, settings, target, (FILE,))


def _halve_weights(graph: Graph, kind: str) -> None:
    """Hold large initializers in 16 bits, each with a conversion that is computed once, when the model is loaded."""
    tensors = graph.onnx.TensorProto
    wanted = tensors.FLOAT16 if kind == "float16" else tensors.BFLOAT16
    widened = []
    for name in graph.large_floats(_LEAST):
        array = graph.array(name)
        half = graph.put_half(f"{name}_half", array, wanted)
        graph.drop(name)
        widened.append(graph.node("Cast", [half], [name], to=tensors.FLOAT))
    if not widened:
        raise ModelKindError("the model has no large float32 weights", where=str(graph.path))
    graph.prepend(widened)


def _converted(graph: Graph) -> Any:
    import_onnxruntime()
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise DependencyError(
            f"converting to float16 needs a part of ONNX Runtime that this wheel lacks: {error}",
            hint="pip install 'skerry[build]'",
        ) from error
    try:
        return convert_float_to_float16(graph.fresh_model(), keep_io_types=True)
    except Exception as error:  # the converter raises plain exceptions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelKindError(f"the model cannot be converted to float16: {reason}", where=str(graph.path)) from error
