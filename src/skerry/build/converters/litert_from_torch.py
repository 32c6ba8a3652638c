"""LiteRT from PyTorch: a folder as Hugging Face writes it becomes a ``.tflite`` with a signature for each length.

LiteRT's graphs have fixed shapes. A text encoder therefore gets the signatures ``tokens_8``, ``tokens_16`` and so on,
each taking int32 ``attention_mask`` and ``input_ids`` of (1, that many) and giving float32 ``last_hidden_state`` of
(1, tokens, dimension), or ``logits`` of (1, labels), or ``sentence_embedding`` of (1, dimension) where ``pooling`` is
asked for. The weights are stored once. A vision model gets one signature ``image`` that takes float32 ``pixel_values``.

The request: ``model`` (folder), ``target`` (file), ``output`` (``last_hidden_state`` or ``logits``), ``buckets``
(lengths). ``pooling`` (``mean``, ``cls`` or ``max``; ``none`` by default) and ``normalize`` put these into the graph.
``smooth`` (0 to 1, none by default) moves scales of dense layers' inputs into their weights, as seen on
``calibrate``, a list of texts' token ids, so that less is lost when they are quantized later.

The answer: ``signatures``, ``bytes``, ``seconds``, ``least_cosine`` (to PyTorch's answers, over tokens and lengths),
``lean`` (whether the graph is one of :mod:`torch_lean`), ``pooled`` (whether it pools).
"""

from __future__ import annotations

import copy
import importlib
import time
from pathlib import Path
from typing import Any

graphs: Any = importlib.import_module("litert_graph")  # beside this script
lean: Any = importlib.import_module("torch_lean")
models: Any = importlib.import_module("torch_models")
smoothing: Any = importlib.import_module("torch_smoothing")


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Convert, compare with PyTorch, and only then put the file in its place."""
    start = time.monotonic()
    torch = importlib.import_module("torch")
    target, output = Path(request["target"]), str(request.get("output", "last_hidden_state"))
    talk.say("load the weights")
    model = models.load(torch, Path(request["model"]), output, talk)
    examples = models.examples_of(torch, model, list(request.get("buckets") or (8, 16, 32, 64, 128)), talk)
    if request.get("smooth"):
        _smooth(torch, model, request, talk)
    wrapper = _lean(torch, model, examples, output, request) if output == "last_hidden_state" else None
    is_lean = wrapper is not None
    if wrapper is None:
        wrapper = models.answering(torch, model, output)
    part = target.with_name(target.name + ".part")
    try:
        graphs.write(torch, wrapper, examples, part, talk)
        talk.say("compare with PyTorch")
        least = _least_cosine(torch, wrapper, examples, part)
        if not least >= models.SAME:
            raise talk.refusal(
                "kind", f"the LiteRT graph does not answer as the model does: the least cosine is {least:.4f}"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return {
        "signatures": list(examples), "bytes": target.stat().st_size, "least_cosine": least,
        "seconds": round(time.monotonic() - start, 1), "lean": is_lean,
        "pooled": is_lean and request.get("pooling", "none") != "none",
    }  # fmt: skip


def _lean(
    torch: Any, model: Any, examples: dict[str, dict[str, Any]], output: str, request: dict[str, Any]
) -> Any | None:
    """Return the model as a lean graph, or ``None`` where it cannot be made one that answers the same."""
    if model.main_input_name != "input_ids":
        return None
    pooling, normalize = str(request.get("pooling", "none")), bool(request.get("normalize"))
    plain = models.answering(torch, model, output)
    try:
        leaner = lean.lean(torch, copy.deepcopy(model), output, pooling, normalize=normalize)
        with torch.no_grad():
            for inputs in examples.values():
                tokens, mask = plain(**inputs)[output], inputs["attention_mask"]
                wanted = tokens if pooling == "none" else lean.pooled(torch, tokens, mask.float(), pooling, normalize)
                found = next(iter(leaner(**inputs).values()))
                if not models.least_cosine(wanted.numpy(), found.numpy(), mask.numpy()) >= models.SAME:
                    return None
    except Exception:  # noqa: BLE001 - a model that is put together in another way: the plain graph is as right
        return None
    return leaner


def _smooth(torch: Any, model: Any, request: dict[str, Any], talk: Any) -> None:
    texts = request.get("calibrate")
    if not texts or model.main_input_name != "input_ids":
        raise talk.refusal(
            "data", "smoothing needs texts, and a model that reads them", "give token ids as `calibrate`"
        )
    talk.say(f"smooth on {len(texts)} texts")
    smoothing.smooth(torch, model, texts, float(request["smooth"]))


def _least_cosine(torch: Any, wrapper: Any, examples: dict[str, dict[str, Any]], part: Path) -> float:
    """Return the least cosine between PyTorch's and LiteRT's vectors over all signatures."""
    least = 1.0
    for inputs, ours in zip(examples.values(), graphs.answers(part, examples), strict=True):
        with torch.no_grad():
            output, theirs = next(iter(wrapper(**inputs).items()))
        mask = inputs.get("attention_mask")
        found = models.least_cosine(theirs.numpy(), ours[output], None if mask is None else mask.numpy())
        least = min(least, found)
    return least
