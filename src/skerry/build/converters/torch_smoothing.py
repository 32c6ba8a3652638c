"""Smoothing of a PyTorch model: scales move from the inputs of dense layers, hard to round, into their weights.

SmoothQuant (Xiao et al.: SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models,
2022), as ``skerry.build.techniques.smoothing`` does it with ONNX graphs: channel ``j`` of the inputs is divided by
``max|x_j| ** strength / max|w_j| ** (1 - strength)``, where ``max|x_j|`` is the mean over texts of each text's largest
magnitude. Layers that read the same tensor share their scales, so that the division is made once for all of them.
"""

from __future__ import annotations

from typing import Any

_SMALLEST = 1e-5
"""A channel that is never used is not blown up beyond reason."""


def smooth(torch: Any, model: Any, texts: list[list[int]], strength: float) -> int:
    """Smooth every dense layer that the texts reach, in place; return how many there were.

    The model's answers stay the same up to rounding.
    """
    groups, largest = _watched(torch, model, texts)
    kind = _smoothed_linear(torch)
    for layers in groups:
        inputs = sum(largest[layer] for layer in layers) / len(layers)
        weights = torch.stack([layer.weight.detach().abs().amax(dim=0) for layer in layers]).amax(dim=0)
        scales = inputs.clamp(min=_SMALLEST) ** strength / weights.clamp(min=_SMALLEST) ** (1 - strength)
        scales = scales.clamp(min=_SMALLEST)
        for layer in layers:
            # A new tensor: the old one may be a table of embeddings too.
            layer.weight = torch.nn.Parameter(layer.weight.detach() * scales, requires_grad=False)
            layer.__class__ = kind
            layer.register_buffer("inverse", 1.0 / scales)
    return sum(map(len, groups))


def _smoothed_linear(torch: Any) -> Any:
    class SmoothedLinear(torch.nn.Linear):  # type: ignore[misc]
        def forward(self, inputs: Any) -> Any:
            return torch.nn.functional.linear(inputs * self.inverse, self.weight, self.bias)

    return SmoothedLinear


def _watched(torch: Any, model: Any, texts: list[list[int]]) -> tuple[list[list[Any]], dict[Any, Any]]:
    """Return dense layers grouped by the tensor that they read first, and each one's largest inputs by channel."""
    by_tensor: dict[int, list[Any]] = {}
    kept: list[Any] = []  # what is alive keeps its id
    calls: dict[Any, list[Any]] = {}

    def see(layer: Any, inputs: tuple[Any, ...]) -> None:
        if layer not in calls:
            kept.append(inputs[0])
            by_tensor.setdefault(id(inputs[0]), []).append(layer)
        calls.setdefault(layer, []).append(inputs[0].detach().abs().reshape(-1, inputs[0].shape[-1]).amax(dim=0))

    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        with torch.no_grad():
            for ids in texts:
                row = torch.tensor([ids])
                model(input_ids=row, attention_mask=torch.ones_like(row))
    finally:
        for hook in hooks:
            hook.remove()
    return list(by_tensor.values()), {layer: torch.stack(seen).mean(dim=0) for layer, seen in calls.items()}
