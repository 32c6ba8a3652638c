"""LiteRT from PyTorch: a folder as Hugging Face writes it becomes a ``.tflite`` with a signature for each length.

LiteRT's graphs have fixed shapes. A text encoder therefore gets the signatures ``tokens_8``, ``tokens_16`` and so on,
each taking int32 ``attention_mask`` and ``input_ids`` of (1, that many) and giving float32 ``last_hidden_state`` of
(1, tokens, dimension), or ``logits`` of (1, labels). The weights are stored once: MiniLM with five lengths takes
91.3 MB, with one 89.8 MB. A vision model gets one signature ``image`` that takes float32 ``pixel_values``.

The request: ``model`` (folder), ``target`` (file), ``output`` (``last_hidden_state`` or ``logits``), ``buckets``
(lengths). The answer: ``signatures``, ``bytes``, ``seconds``,
``least_cosine`` (to PyTorch's answers, over tokens and lengths).
"""

from __future__ import annotations

import importlib
import math
import os
import time
from pathlib import Path
from typing import Any

SAME = 0.9999
"""The least cosine to PyTorch's vectors; rounding gives 1 - 1e-6."""


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Convert, compare with PyTorch, and only then put the file in its place."""
    start = time.monotonic()
    torch = importlib.import_module("torch")
    target, output = Path(request["target"]), str(request.get("output", "last_hidden_state"))
    talk.say("load the weights")
    model = load(torch, Path(request["model"]), output, talk)
    examples = examples_of(torch, model, list(request.get("buckets") or (8, 16, 32, 64, 128)), talk)
    wrapper = answering(torch, model, output)
    part = target.with_name(target.name + ".part")
    try:
        _write(torch, wrapper, examples, part, talk)
        talk.say("compare with PyTorch")
        least = _least_cosine(torch, wrapper, examples, output, part)
        if not least >= SAME:
            raise talk.refusal(
                "kind", f"the LiteRT graph does not answer as the model does: the least cosine is {least:.4f}"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return {
        "signatures": list(examples), "bytes": target.stat().st_size, "least_cosine": least,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def load(torch: Any, folder: Path, output: str, talk: Any) -> Any:
    """Return the model in fp32; weights that are missing or damaged are refused."""
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind = transformers.AutoModel
    if output == "logits":
        vision = hasattr(transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True), "image_size")
        kind = getattr(transformers, f"AutoModelFor{'Image' if vision else 'Sequence'}Classification")
    try:
        model, told = kind.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, attn_implementation="eager",
            dtype=torch.float32, use_safetensors=True, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # the libraries raise a dozen kinds, and all of them mean the same here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise talk.refusal("corrupt", f"the weights in {folder} cannot be read: {reason}") from error
    missing = sorted(name for name in told["missing_keys"] if "pooler." not in name or output == "logits")
    if missing:
        raise talk.refusal("corrupt", f"the weights in {folder} lack {missing[0]}")
    return model.eval()


def examples_of(torch: Any, model: Any, buckets: list[int], talk: Any) -> dict[str, dict[str, Any]]:
    """Return made-up inputs by the name of their signature."""
    config, takes = model.config, model.main_input_name
    if takes == "pixel_values":
        size = getattr(config, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        generator = torch.Generator().manual_seed(0)
        shape = (1, getattr(config, "num_channels", 3), height, width)
        return {"image": {"pixel_values": torch.randn(shape, generator=generator)}}
    if takes != "input_ids":
        raise talk.refusal("kind", f"a model that takes {takes} cannot be converted", "text and image encoders can")
    most = getattr(config, "max_position_embeddings", None) or max(buckets)
    wrong = [length for length in buckets if not 1 <= length <= most]
    if wrong:
        raise talk.refusal("option", f"no bucket can hold {wrong[0]} tokens: the model takes 1 to {most}")
    return {f"tokens_{length}": _tokens(torch, config.vocab_size, length) for length in sorted(set(buckets))}


def _tokens(torch: Any, words: int, length: int) -> dict[str, Any]:
    """Return one text of made-up tokens, the last third of it padding."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(min(5, words - 1), words, (1, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[:, length - length // 3 :] = 0
    return {"attention_mask": mask, "input_ids": ids}


def answering(torch: Any, model: Any, output: str) -> Any:
    """Return a module that answers with one named tensor, so that the graph's output bears that name."""

    class Answer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: Any) -> dict[str, Any]:
            return {output: getattr(self.model(**inputs), output)}

    return Answer().eval()


def _write(torch: Any, wrapper: Any, examples: dict[str, dict[str, Any]], part: Path, talk: Any) -> None:
    litert_torch = importlib.import_module("litert_torch")
    converter: Any = litert_torch
    for name, inputs in examples.items():
        converter = converter.signature(name, wrapper, sample_kwargs=inputs)
    talk.say(f"trace and lower {', '.join(examples)}")
    with torch.no_grad():
        converter.convert().export(str(part))


def _least_cosine(torch: Any, wrapper: Any, examples: dict[str, dict[str, Any]], output: str, part: Path) -> float:
    """Return the least cosine between PyTorch's and LiteRT's vectors, padding left out; 0 for a NaN."""
    np = importlib.import_module("numpy")
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(
        model_path=str(part), num_threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    )
    least = 1.0
    for name, inputs in examples.items():
        with torch.no_grad():
            theirs = wrapper(**inputs)[output].numpy().astype(np.float64)
        given = {key: tensor.numpy() for key, tensor in inputs.items()}
        given = {key: array.astype(np.int32) if array.dtype == np.int64 else array for key, array in given.items()}
        ours = interpreter.get_signature_runner(name)(**given)[output].astype(np.float64)
        if theirs.ndim == 3 and "attention_mask" in given:
            kept = given["attention_mask"] != 0
            theirs, ours = theirs[kept], ours[kept]
        lengths = np.linalg.norm(theirs, axis=-1) * np.linalg.norm(ours, axis=-1)
        cosine = float(((theirs * ours).sum(axis=-1) / lengths).min())
        least = 0.0 if math.isnan(cosine) else min(least, cosine)
    return least
