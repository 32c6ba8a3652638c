"""OpenVINO from ONNX: a graph becomes an IR (``.xml`` with its ``.bin``), as it is or compressed by NNCF.

The request: ``model`` (``.onnx``), ``target`` (``.xml``), and ``compress``, one of

- ``none`` (default): fp32, or with ``half`` true weights in fp16;
- ``int8_weights``: NNCF's weight compression to 8 bits, per channel; activations are quantized as they come;
- ``int4_weights``: to 4 bits in groups of ``group`` (32), the share ``ratio`` (1) of the layers, the rest in 8 bits;
  ``embeddings`` true takes the first and last layers to 4 bits as well;
- ``int8``: post-training quantization of weights and activations for transformers, calibrated on ``calibrate``, a list
  of texts' token ids, of which ``subset`` (300) are used; ``ignore`` is a list of regular expressions on the names of
  nodes that stay as they are, ``accurate`` true corrects biases by layer instead of quickly.

The answer: ``bytes`` (of both files), ``inputs``, ``outputs``, ``seconds``.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Read, compress, and put both files in their places once they are whole."""
    start = time.monotonic()
    openvino = importlib.import_module("openvino")
    source, target = Path(request["model"]), Path(request["target"])
    if target.suffix != ".xml":
        raise talk.refusal("option", f"the target {target.name} must end in .xml")
    talk.say("read the ONNX graph")
    model = _read(openvino, source, talk)
    model = _compressed(request, model, talk)
    talk.say("write the IR")
    _save(openvino, model, target, half=bool(request.get("half", False)))
    size = target.stat().st_size + target.with_suffix(".bin").stat().st_size
    return {
        "bytes": size, "inputs": _names(model.inputs), "outputs": _names(model.outputs),
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def _read(openvino: Any, source: Path, talk: Any) -> Any:
    if not source.is_file():
        raise talk.refusal("missing", f"there is no ONNX model {source}")
    try:
        return openvino.Core().read_model(str(source))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[-1] if lines else "no reason given"
        kind = "kind" if "not supported" in str(error).lower() or "not implemented" in str(error).lower() else "corrupt"
        raise talk.refusal(kind, f"OpenVINO cannot read {source.name}: {text}") from error


def _compressed(request: dict[str, Any], model: Any, talk: Any) -> Any:
    how = request.get("compress", "none")
    known = {"none": None, "int8_weights": _int8_weights, "int4_weights": _int4_weights, "int8": _int8}
    if how not in known:
        raise talk.refusal("option", f"there is no compression {how!r}", f"known: {', '.join(known)}")
    compress = known[how]
    if compress is None:
        return model
    nncf = importlib.import_module("nncf")
    importlib.import_module("logging").getLogger("nncf").setLevel("ERROR")
    talk.say(f"compress: {how}")
    try:
        return compress(nncf, model, request, talk)
    except (
        nncf.InternalError,
        nncf.UnsupportedModelError,
        nncf.ValidationError,
        nncf.ParameterNotSupportedError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise talk.refusal("kind", f"NNCF refuses: {reason}") from error


def _int8_weights(nncf: Any, model: Any, request: dict[str, Any], talk: Any) -> Any:
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


def _int4_weights(nncf: Any, model: Any, request: dict[str, Any], talk: Any) -> Any:
    # Layers whose width no group divides get smaller groups, or stay in 8 bits, instead of an error.
    adjust = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
    return nncf.compress_weights(
        model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=int(request.get("group", 32)),
        ratio=float(request.get("ratio", 1.0)), all_layers=bool(request.get("embeddings", False)),
        advanced_parameters=adjust,
    )  # fmt: skip


def _int8(nncf: Any, model: Any, request: dict[str, Any], talk: Any) -> Any:
    texts = request.get("calibrate") or []
    if not texts:
        raise talk.refusal(
            "data", "quantizing activations needs texts to calibrate on", "give token ids as `calibrate`"
        )
    names = _names(model.inputs)
    unknown = set(names) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown:
        raise talk.refusal("kind", f"only text encoders can be calibrated; this one takes {', '.join(sorted(unknown))}")
    subset = min(len(texts), int(request.get("subset", 300)))
    patterns = list(request.get("ignore") or [])
    return nncf.quantize(
        model, nncf.Dataset(texts[:subset], lambda ids: _inputs(names, ids)), model_type=nncf.ModelType.TRANSFORMER,
        subset_size=subset, fast_bias_correction=not request.get("accurate", False),
        ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False) if patterns else None,
    )  # fmt: skip


def _inputs(names: list[str], ids: list[int]) -> dict[str, Any]:
    """Return one text's inputs, without padding."""
    np = importlib.import_module("numpy")
    row = np.array([ids], dtype=np.int64)
    made = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    return {name: made[name] for name in names}


def _names(ports: Any) -> list[str]:
    return [port.get_any_name() for port in ports]


def _save(openvino: Any, model: Any, target: Path, *, half: bool) -> None:
    """Write both files under other names first, weights before the description that needs them."""
    part = target.with_name(f"{target.stem}.part.xml")
    try:
        openvino.save_model(model, str(part), compress_to_fp16=half)
        part.with_suffix(".bin").replace(target.with_suffix(".bin"))
        part.replace(target)
    finally:
        for left in (part, part.with_suffix(".bin")):
            left.unlink(missing_ok=True)
