"""LiteRT from a part of a PyTorch model of tensors: pictures, sound, or tokens whose length is fixed.

LiteRT's graphs have fixed shapes: a part whose only free axis is the batch gets one signature, ``row``, of one row; one
that takes tokens gets a signature for each length, as text encoders do (``litert_from_torch.py``), which share their
weights. Whole numbers become int32. Names of inputs and outputs are the model's own.

The request: ``model`` (folder as Hugging Face writes it), ``part`` (empty for the whole), ``target`` (file),
``buckets`` (lengths, where it takes tokens). The answer: ``signatures``, ``bytes``, ``seconds``, ``least_cosine`` (to
PyTorch's answers, over all signatures and outputs).
"""

from __future__ import annotations

import importlib
import time
import warnings
from pathlib import Path
from typing import Any

graphs: Any = importlib.import_module("litert_graph")  # beside this script
models: Any = importlib.import_module("torch_models")
parts: Any = importlib.import_module("torch_parts")


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Convert, compare with PyTorch, and only then put the file in its place."""
    start = time.monotonic()
    torch = importlib.import_module("torch")
    models.quiet_transformers()
    target = Path(request["target"])
    talk.say("load the weights")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            part = parts.load_part(torch, Path(request["model"]), "tensors", request.get("part") or "")
        except parts.UnfitError as error:
            raise talk.refusal(error.kind, str(error)) from error
        examples = _examples(torch, part, list(request.get("buckets") or ()), talk)
        named = _named(torch, part)
        scratch = target.with_name(target.name + ".part")
        try:
            graphs.write(torch, named, examples, scratch, talk)
            talk.say("compare with PyTorch")
            least = _least_cosine(named, examples, scratch)
            if not least >= models.SAME:
                raise talk.refusal("kind", f"the LiteRT graph does not answer as the model does: least cosine {least}")
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    return {
        "signatures": list(examples), "bytes": target.stat().st_size, "least_cosine": least,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def _examples(torch: Any, part: Any, buckets: list[int], talk: Any) -> dict[str, dict[str, Any]]:
    free = part.axes() - {"batch"}
    if not free:
        return {"row": part.example(torch, {"batch": 1})}
    if free != {"tokens"}:
        raise talk.refusal("kind", f"LiteRT's shapes are fixed, and this part is free in {', '.join(sorted(free))}")
    fitting = sorted({length for length in buckets if 1 <= length <= part.most})
    if not fitting:
        raise talk.refusal("option", f"no length is given that the model takes (at most {part.most})")
    return {f"tokens_{length}": part.example(torch, {"batch": 1, "tokens": length}) for length in fitting}


def _named(torch: Any, part: Any) -> Any:
    """Return a module that takes and gives tensors by name, so that the graph's tensors bear those names."""
    names = [one.name for one in part.inputs]

    class Named(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = part.module

        def forward(self, **inputs: Any) -> dict[str, Any]:
            return dict(zip(part.outputs, self.inner(*(inputs[name] for name in names)), strict=True))

    return Named().eval()


def _least_cosine(named: Any, examples: dict[str, dict[str, Any]], scratch: Path) -> float:
    least = 1.0
    for inputs, ours in zip(examples.values(), graphs.answers(scratch, examples), strict=True):
        for key, theirs in named(**inputs).items():
            least = min(least, models.least_cosine(theirs.numpy().reshape(1, -1), ours[key].reshape(1, -1), None))
    return least
