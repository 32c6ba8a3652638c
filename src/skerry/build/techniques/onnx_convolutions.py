"""``onnx-convolutions``: convolutions in int8, with what lies between them, calibrated on the user's rows.

Written by ONNX Runtime's own static quantizer: ``QuantizeLinear`` and ``DequantizeLinear`` around each operator, which
the runtime fuses into integer kernels (Jacob et al.: Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2018). Normalisations are folded into the convolutions before.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import FILE, import_onnx, refuses_onnx
from skerry.build.techniques.integers import sums_saturate
from skerry.build.techniques.samples import SHARE_OUT, chosen_rows
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.run.tensors import alone
from skerry.runtimes.onnxruntime import OnnxRuntime, import_onnxruntime
from skerry.spec.errors import DependencyError, ModelKindError

_CONVOLUTIONS = ("Conv",)
_BETWEEN = (
    "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat", "Reshape", "Flatten", "Transpose",
)  # fmt: skip
"""What integers pass through between two convolutions, so that they need not become floats and integers again."""


class ConvolutionSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    range:
        ``minmax`` covers every number seen, ``percentile`` all but the outermost 0.001 %.
    between:
        Whether what lies between convolutions computes in integers too.
    dense:
        Whether dense layers do.
    spare_first:
        Leaves the first convolution as it is, which sees the raw input.
    reduce_range:
        Weights of 7 bits, for x86 processors without VNNI, where two products of 8 bits saturate.
    """

    range: Literal["minmax", "percentile"] = "minmax"
    between: bool = True
    dense: bool = True
    spare_first: bool = False
    reduce_range: bool = False


class OnnxConvolutions:
    """Convolutions in int8 with constant scales."""

    name: ClassVar[str] = "onnx-convolutions"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "int8 convolutions and what lies between them, calibrated on the user's arrays or images"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.task != "tensors":
            return "it takes a model of tensors, and this one takes text"
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return the settings worth trying; raises ``ModelKindError`` for a graph without convolutions."""
        require_accepted(self.refuses(artifact), self.name)
        graph = import_onnx().load(str(artifact.path), load_external_data=False).graph
        if not any(node.op_type in _CONVOLUTIONS for node in graph.node):
            raise ModelKindError("the model has no convolution", where=str(artifact.path))
        reduced = sums_saturate()
        tried = [
            ConvolutionSettings(reduce_range=reduced), ConvolutionSettings(range="percentile", reduce_range=reduced),
            ConvolutionSettings(spare_first=True, reduce_range=reduced),
            ConvolutionSettings(between=False, dense=False, reduce_range=reduced),
        ]  # fmt: skip
        return [plain(one) for one in tried]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the int8 form; runs the model on 64 rows."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(ConvolutionSettings, settings, self.name)
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            _quantize(artifact, told, workbench, Path(scratch), target / FILE)
        return forged(artifact, self, settings, target, (FILE,))


def _quantize(artifact: Artifact, told: ConvolutionSettings, workbench: Workbench, scratch: Path, target: Path) -> None:
    import_onnxruntime()
    onnx = import_onnx()
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise DependencyError(
            f"quantizing needs a part of ONNX Runtime that this wheel lacks: {error}",
            hint="pip install 'skerry[build]'",
        ) from error
    rows, prepared = _Rows(artifact, workbench), scratch / "prepared.onnx"
    kinds = (*_CONVOLUTIONS, *(_BETWEEN if told.between else ()), *(("Gemm", "MatMul") if told.dense else ()))
    methods = quantization.CalibrationMethod
    try:
        quant_pre_process(str(artifact.path), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(str(prepared)).graph.node
        first = next((node.name for node in nodes if node.op_type in _CONVOLUTIONS), None)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            quantization.quantize_static(
                str(prepared), str(target), rows, quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(kinds), per_channel=True, reduce_range=told.reduce_range,
                nodes_to_exclude=[first] if told.spare_first and first else [],
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                calibrate_method=methods.MinMax if told.range == "minmax" else methods.Percentile,
            )  # fmt: skip
    except OSError:
        raise  # a full disk is no fault of the model
    except Exception as error:  # the quantizer raises plain exceptions and those of three libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelKindError(f"the model cannot be quantized: {reason}", where=str(artifact.path)) from error
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load(str(target)).graph.node):
        raise ModelKindError("the model has no convolution that can be quantized", where=str(artifact.path))


class _Rows:
    """Rows as the quantizer reads them: one call's inputs after the other, then ``None``."""

    def __init__(self, artifact: Artifact, workbench: Workbench) -> None:
        session = OnnxRuntime().load(artifact.path)
        try:
            inputs = session.describe().inputs
        finally:
            session.close()
        self._left = iter([alone(inputs, row) for row in chosen_rows(workbench, SHARE_OUT)])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next inputs."""
        return next(self._left, None)
