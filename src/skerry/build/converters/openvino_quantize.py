"""NNCF on a graph for OpenVINO: an ONNX file or an IR becomes a quantized IR (``.xml`` with its ``.bin``).

The request: ``model`` (``.onnx`` or ``.xml``), ``target`` (``.xml``), ``ignore``, a list of regular expressions on the
names of nodes that stay as they are, ``calibrate``, a list of texts' token ids, and ``how``, one of

- ``weights``: weights alone. ``mode`` is one of ``int8_sym``, ``int8_asym``, ``int4_sym``, ``int4_asym``; for 4 bits
  ``group`` numbers share a scale (-1: a channel does), the share ``ratio`` of the layers gets them and the others 8
  bits, and ``embeddings`` true takes the tables too. With ``calibrate`` the scales are those with which the layers'
  answers to the texts change least, and the layers of 8 bits those whose inputs vary most.
- ``ptq``: inputs too, with constant scales found on ``calibrate``. ``smooth`` (0.95) is how much of the scales of
  inputs is moved into the weights, 0 for none; ``symmetric`` true keeps zero points away from the inputs; ``accurate``
  true corrects biases layer by layer instead of quickly.

The answer: ``bytes`` (of both files), ``inputs``, ``outputs``, ``seconds``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

ir: Any = importlib.import_module("openvino_ir")  # beside this script


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Read the graph, quantize it and write the IR."""
    ways, how = {"weights": _weights, "ptq": _ptq}, request.get("how")
    if how not in ways:
        raise talk.refusal("option", f"there is no way {how!r}", f"known: {', '.join(ways)}")
    answer: dict[str, Any] = ir.rewrite(request, talk, lambda model: _quantized(ways[how], model, request, talk))
    return answer


def _quantized(way: Callable[..., Any], model: Any, request: dict[str, Any], talk: Any) -> Any:
    nncf = importlib.import_module("nncf")
    importlib.import_module("logging").getLogger("nncf").setLevel("ERROR")
    data = _dataset(nncf, ir.names(model.inputs), request.get("calibrate") or [], talk)
    talk.say(f"quantize: {request['how']}")
    refusals = (
        nncf.InternalError, nncf.UnsupportedModelError, nncf.ValidationError, nncf.ParameterNotSupportedError
    )  # fmt: skip
    try:
        return way(nncf, model, data, request, talk)
    except refusals as error:
        raise talk.refusal("kind", f"NNCF refuses: {talk.reason(error)}") from error


def _dataset(nncf: Any, names: list[str], texts: list[list[int]], talk: Any) -> Any:
    """Return the texts as NNCF takes them, one at a time and without padding; ``None`` where there is none."""
    unknown = sorted(set(names) - {"input_ids", "attention_mask", "token_type_ids"})
    if texts and unknown:
        raise talk.refusal("kind", f"only text encoders can be calibrated; this one takes {', '.join(unknown)}")
    return nncf.Dataset(texts, lambda ids: _inputs(names, ids)) if texts else None


def _inputs(names: list[str], ids: list[int]) -> dict[str, Any]:
    """Return one text's inputs, without padding."""
    np = importlib.import_module("numpy")
    row = np.array([ids], dtype=np.int64)
    made = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    return {name: made[name] for name in names}


def _ignored(nncf: Any, request: dict[str, Any]) -> Any:
    patterns = list(request.get("ignore") or [])
    return nncf.IgnoredScope(patterns=patterns, validate=False) if patterns else None


def _weights(nncf: Any, model: Any, data: Any, request: dict[str, Any], talk: Any) -> Any:
    modes = {mode.value: mode for mode in nncf.CompressWeightsMode}
    known = ("int8_sym", "int8_asym", "int4_sym", "int4_asym")
    name = request.get("mode", "int8_asym")
    if name not in known:
        raise talk.refusal("option", f"there is no mode {name!r}", f"known: {', '.join(known)}")
    if name.startswith("int8"):  # these scales are those of the largest numbers, which no text changes
        return nncf.compress_weights(model, mode=modes[name], ignored_scope=_ignored(nncf, request))
    if data is not None:
        _turn_weights(model)
    # Layers whose width no group divides get smaller groups, or stay in 8 bits, instead of an error.
    adjust = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
    return nncf.compress_weights(
        model, mode=modes[name], group_size=int(request.get("group", 32)), ratio=float(request.get("ratio", 1.0)),
        all_layers=bool(request.get("embeddings", False)), ignored_scope=_ignored(nncf, request), dataset=data,
        subset_size=len(request.get("calibrate") or []) or 128, advanced_parameters=adjust,
        scale_estimation=None if data is None else True,
    )  # fmt: skip


def _turn_weights(model: Any) -> None:
    """Write the weights of dense layers the other way round, in place; the model answers as before.

    NNCF 3.4 takes them for turned ones where it looks at inputs (its issue 3494): the vectors of MiniLM then had a
    cosine of 0.002.
    """
    np, operators = importlib.import_module("numpy"), importlib.import_module("openvino.opset13")
    for node in model.get_ordered_ops():
        weight = node.input_value(1).get_node() if node.get_type_name() == "MatMul" else None
        if weight is None or weight.get_type_name() != "Constant" or len(weight.shape) != 2:
            continue
        told = node.get_attributes()
        if not told["transpose_b"]:
            turned = operators.constant(np.ascontiguousarray(weight.data.T))
            layer = operators.matmul(node.input_value(0), turned, told["transpose_a"], True)
            layer.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(layer.output(0))


def _ptq(nncf: Any, model: Any, data: Any, request: dict[str, Any], talk: Any) -> Any:
    if data is None:
        raise talk.refusal(
            "data", "quantizing activations needs texts to calibrate on", "give token ids as `calibrate`"
        )
    presets = nncf.QuantizationPreset
    strength = float(request.get("smooth", 0.95)) or -1  # NNCF's word for none
    return nncf.quantize(
        model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(request["calibrate"]),
        preset=presets.PERFORMANCE if request.get("symmetric") else presets.MIXED,
        fast_bias_correction=not request.get("accurate", False), ignored_scope=_ignored(nncf, request),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=strength)
        ),
    )  # fmt: skip
