"""The models of Hugging Face folders, as the converters from PyTorch share them."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

SAME = 0.9999
"""The least cosine to PyTorch's vectors; rounding gives 1 - 1e-6."""


def quiet_transformers() -> Any:
    """Return the library with its warnings and bars turned off."""
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load(torch: Any, folder: Path, output: str, talk: Any) -> Any:
    """Return the model in fp32; weights that are missing or damaged are refused."""
    transformers = quiet_transformers()
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
        raise talk.refusal("corrupt", f"the weights in {folder} cannot be read: {talk.reason(error)}") from error
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


def least_cosine(theirs: Any, ours: Any, mask: Any | None) -> float:
    """Return the least cosine between two arrays' last axes, padding left out; -1 for a NaN."""
    np = importlib.import_module("numpy")
    kept = mask != 0 if theirs.ndim == 3 and mask is not None else slice(None)
    one, other = theirs[kept].astype(np.float64), ours[kept].astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = float(((one * other).sum(axis=-1) / lengths).min())
    return -1.0 if math.isnan(cosine) else cosine
