"""Quantization of a LiteRT model by ai-edge-quantizer: one of its recipes, or rules of which the last that fits holds.

The request: ``source`` and ``target`` (``.tflite`` files) and either ``recipe`` (the name of a function of
``ai_edge_quantizer.recipe``, such as ``dynamic_wi8_afp32`` or ``dynamic_wi4b32_afp32``) or ``rules``, a list:

- ``regex``: on the name of the tensor that an operator gives, as ``.*BertOutput_output.*Linear.*``; all by default;
- ``operator``: ``FULLY_CONNECTED``, ``EMBEDDING_LOOKUP``, ``CONV_2D``, …; all that can be quantized by default;
- ``bits``: 8, 4 or 2, or 0 for floating point;
- ``granularity``: ``channel`` (default), ``tensor``, ``block32``, ``block64``, ``block128`` or ``block256``;
- ``compute``: ``integer`` (default: activations are quantized as they come) or ``float`` (weights only);
- ``algorithm``: ``min_max`` (default), ``octav`` or ``mse``: how the scales are found.

Recipes that are static also need ``calibrate``: a list of texts' token ids, each a list of numbers.
The answer: ``bytes``, ``recipe`` (the rules as the quantizer reads them), ``seconds``.

Each signature would carry its own copy of the scales, which for MiniLM with five lengths is 3.9 of 27.3 MB. They are
written once, and shared: FlatBuffers allow two tables to refer to one. The names of tensors, with every module's path
355 bytes each, are left out, which saves 1.4 MB with eight signatures: signatures have names of their own.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

_GRANULARITY = {"channel": "CHANNELWISE", "tensor": "TENSORWISE"} | {
    f"block{size}": f"BLOCKWISE_{size}" for size in (32, 64, 128, 256)
}
_ALGORITHMS = {"min_max": "MIN_MAX_UNIFORM_QUANT", "octav": "OCTAV", "mse": "MSE"}


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Quantize, and put the file in its place once it is whole."""
    start = time.monotonic()
    source, target = Path(request["source"]), Path(request["target"])
    if not source.is_file():
        raise talk.refusal("missing", f"there is no LiteRT model {source}")
    library = importlib.import_module("ai_edge_quantizer.quantizer")
    rules = _recipe(request, talk)
    share_scales()
    drop_names()
    talk.say("quantize")
    part = target.with_name(target.name + ".part")
    try:
        try:
            quantizer = library.Quantizer(str(source))
            quantizer.load_quantization_recipe(rules)
            found = _calibrated(quantizer, source, request.get("calibrate"), talk)
            quantizer.quantize(found).export_model(str(part), overwrite=True)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise talk.refusal("kind", f"the quantizer refuses: {talk.reason(error)}") from error
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    seconds = round(time.monotonic() - start, 1)
    return {"bytes": target.stat().st_size, "recipe": json.loads(json.dumps(rules, default=str)), "seconds": seconds}


def _recipe(request: dict[str, Any], talk: Any) -> Any:
    recipes = importlib.import_module("ai_edge_quantizer.recipe")
    name = request.get("recipe")
    if name is not None:
        known = sorted(word for word in dir(recipes) if word.startswith(("dynamic_", "static_", "weight_only_")))
        if name not in known:
            raise talk.refusal("option", f"there is no recipe {name!r}", f"known: {', '.join(known)}")
        return getattr(recipes, name)()
    rules = request.get("rules")
    if not rules:
        raise talk.refusal("option", "a recipe or rules are needed", "recipe: dynamic_wi8_afp32")
    manager = importlib.import_module("ai_edge_quantizer.recipe_manager").RecipeManager()
    for rule in rules:
        _add_rule(manager, rule, talk)
    return manager.get_quantization_recipe()


def _add_rule(manager: Any, rule: dict[str, Any], talk: Any) -> None:
    types = importlib.import_module("ai_edge_quantizer.qtyping")
    algorithms = importlib.import_module("ai_edge_quantizer.algorithm_manager").AlgorithmName
    known = {"regex", "operator", "bits", "granularity", "compute", "algorithm"}
    if not rule.keys() <= known:
        raise talk.refusal(
            "option", f"a rule has no key {sorted(rule.keys() - known)[0]!r}", f"known: {', '.join(sorted(known))}"
        )
    regex, operator = rule.get("regex", ".*"), rule.get("operator", "*")
    try:
        named = types.TFLOperationName(operator)
        if rule["bits"] == 0:
            manager.add_quantization_config(regex, named, algorithm_key=algorithms.NO_QUANTIZE)
            return
        add = {"integer": manager.add_dynamic_config, "float": manager.add_weight_only_config}[
            rule.get("compute", "integer")
        ]
        add(
            regex=regex, operation_name=named, num_bits=int(rule["bits"]),
            granularity=types.QuantGranularity[_GRANULARITY[rule.get("granularity", "channel")]],
            algorithm_key=algorithms[_ALGORITHMS[rule.get("algorithm", "min_max")]],
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise talk.refusal("option", f"the rule {rule} cannot be used: {error}") from error


def _calibrated(quantizer: Any, source: Path, texts: list[list[int]] | None, talk: Any) -> Any:
    """Return the ranges of activations where a recipe needs them, each text in the shortest signature that holds it."""
    if not quantizer.need_calibration:
        return None
    if not texts:
        raise talk.refusal("data", "a static recipe needs texts to calibrate on", "give token ids as `calibrate`")
    lengths = _signature_lengths(source)
    if not lengths:
        raise talk.refusal("kind", "only text encoders with signatures tokens_N can be calibrated")
    talk.say(f"calibrate on {len(texts)} texts")
    samples: dict[str, list[dict[str, Any]]] = {}
    for ids in texts:
        length = next((length for length in lengths if length >= len(ids)), lengths[-1])
        samples.setdefault(f"tokens_{length}", []).append(_padded(ids[:length], length))
    # Every signature needs ranges of its own, those that no text is short or long enough for included.
    for length in lengths:
        samples.setdefault(f"tokens_{length}", [_padded(ids[:length], length) for ids in texts[:8]])
    return quantizer.calibrate(samples)


def _signature_lengths(source: Path) -> list[int]:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(model_path=str(source))
    names = [name.split("_") for name in interpreter.get_signature_list()]
    return sorted(int(name[1]) for name in names if name[0] == "tokens" and len(name) == 2 and name[1].isdigit())


def _padded(ids: list[int], length: int) -> dict[str, Any]:
    np = importlib.import_module("numpy")
    fill = [0] * (length - len(ids))
    return {
        "attention_mask": np.array([[1] * len(ids) + fill], dtype=np.int32),
        "input_ids": np.array([ids + fill], dtype=np.int32),
    }


def share_scales() -> None:
    """Have equal quantization parameters written once per file, for as long as this process lives."""
    parameters: Any = importlib.import_module("ai_edge_litert.schema_py_generated").QuantizationParametersT
    np = importlib.import_module("numpy")
    pack, written = parameters.Pack, {}

    def pack_once(self: Any, builder: Any) -> Any:
        if self.details is not None:  # blocks keep their scales in a tensor of their own
            return pack(self, builder)
        lists = (self.min, self.max, self.scale, self.zeroPoint)
        key = (
            id(builder), self.quantizedDimension,
            *(None if values is None else np.asarray(values).tobytes() for values in lists),
        )  # fmt: skip
        if key not in written:
            # The builder is kept, so that no other can take its id.
            written[key] = (builder, pack(self, builder))
        return written[key][1]

    parameters.Pack = pack_once


def drop_names() -> None:
    """Have tensors written without their names, for as long as this process lives; their schema makes them optional."""
    tensor: Any = importlib.import_module("ai_edge_litert.schema_py_generated").TensorT
    pack = tensor.Pack

    def pack_nameless(self: Any, builder: Any) -> Any:
        name, self.name = self.name, None
        try:
            return pack(self, builder)
        finally:
            self.name = name

    tensor.Pack = pack_nameless
