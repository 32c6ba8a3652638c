"""Lean graphs: an encoder that computes the same with fewer operators and fewer constants.

Each operator of a small graph costs about a microsecond beside its work, and each signature holds constants of its own.
Four things are changed, all found by what a module is made of:

- normalisations subtract the mean once, and use it for the variance too;
- attention works on one text's heads as a batch of matrices, scales queries instead of scores, and adds one row of a
  mask to all scores, instead of making a square mask out of booleans;
- positions are looked up in their one table at each run. As constants, which converters make of them, they would be
  stored once for each length: 1 MB of MiniLM with eight;
- the row of token types, the same for every token of one text, is added to the positions beforehand.

The vectors of tokens may be pooled in the graph too, which spares their copy out of it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

NAME = "skerry_lean"
POOLED = "sentence_embedding"
"""The output of a graph that pools."""

_FAR = 1e9
"""What is subtracted from the scores of padding."""


def lean(torch: Any, model: Any, output: str, pooling: str = "none", *, normalize: bool = False) -> Any:
    """Return a module that takes ``attention_mask`` and ``input_ids`` of one text and answers as the model does.

    The model is changed in place. With a ``pooling`` (``mean``, ``cls``, ``max``) the answer is named :data:`POOLED`.
    """
    _use_lean_attention(torch, model)
    _use_lean_norms(torch, model)
    takes_positions = _merge_types(torch, model) and "position_ids" in inspect.signature(model.forward).parameters

    class Lean(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, attention_mask: Any, input_ids: Any) -> dict[str, Any]:
            seen = attention_mask.to(torch.float32)
            extra = {}
            if takes_positions:
                # Nought at any rate, which no converter sees: a constant would become a table for each length.
                nought = (attention_mask[:, :1] - 1).clamp(min=0)
                extra["position_ids"] = torch.arange(input_ids.shape[1])[None] + nought
            mask = ((seen - 1.0) * _FAR)[:, None, None, :]
            answer = getattr(self.model(input_ids=input_ids, attention_mask=mask, **extra), output)
            if pooling == "none":
                return {output: answer}
            return {POOLED: pooled(torch, answer, seen, pooling, normalize)}

    return Lean().eval()


def pooled(torch: Any, tokens: Any, seen: Any, pooling: str, normalize: bool) -> Any:
    """Return the vector of one text, of shape (1, dimension)."""
    if pooling == "cls":
        found = tokens[:, 0]
    elif pooling == "max":
        found = (tokens + ((seen - 1.0) * _FAR)[:, :, None]).amax(dim=1)
    else:
        found = torch.bmm(seen[:, None, :], tokens)[:, 0]
        if not normalize:
            found = found / seen.sum(dim=1, keepdim=True)
    if normalize:
        found = found * torch.rsqrt((found * found).sum(dim=1, keepdim=True).clamp(min=1e-24))
    return found


def _use_lean_attention(torch: Any, model: Any) -> None:
    utilities = importlib.import_module("transformers.modeling_utils")
    masks = importlib.import_module("transformers.masking_utils")

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **rest: Any
    ) -> tuple[Any, None]:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = torch.bmm(query[0] * scale, key[0].transpose(1, 2))
        if attention_mask is not None:
            scores = scores + attention_mask[0]
        return torch.bmm(scores.softmax(dim=-1), value[0]).transpose(0, 1)[None], None

    utilities.ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    masks.ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, masks.eager_mask)
    model.config._attn_implementation = NAME
    for module in model.modules():
        if getattr(module, "config", None) is not None:
            module.config._attn_implementation = NAME


def _use_lean_norms(torch: Any, model: Any) -> None:
    class LeanNorm(torch.nn.LayerNorm):  # type: ignore[misc]
        def forward(self, inputs: Any) -> Any:
            apart = inputs - inputs.mean(dim=-1, keepdim=True)
            variance = (apart * apart).mean(dim=-1, keepdim=True)
            found = apart * torch.rsqrt(variance + self.eps) * self.weight
            return found if self.bias is None else found + self.bias

    for module in model.modules():
        if type(module) is torch.nn.LayerNorm and len(module.normalized_shape) == 1 and module.weight is not None:
            module.__class__ = LeanNorm


def _merge_types(torch: Any, model: Any) -> bool:
    """Add the first row of token types to all positions where they are summed; tell whether positions are constants."""
    kinds = {"position_embeddings", "token_type_embeddings"}
    for module in model.modules():
        if not all(isinstance(getattr(module, name, None), torch.nn.Embedding) for name in kinds):
            continue
        if not hasattr(module, "position_ids"):
            return False
        positions, types = module.position_embeddings, module.token_type_embeddings
        positions.weight = torch.nn.Parameter(positions.weight.detach() + types.weight.detach()[0], requires_grad=False)
        module.token_type_embeddings = _nothing(torch)
        return True
    return False


def _nothing(torch: Any) -> Any:
    class Nothing(torch.nn.Module):  # type: ignore[misc]
        def forward(self, ids: Any) -> float:
            return 0.0

    return Nothing()
