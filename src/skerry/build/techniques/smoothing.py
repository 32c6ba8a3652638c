"""Smoothing: scales move from a layer's inputs, which are hard to round, into its weights, which are not.

SmoothQuant (Xiao et al.: SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models,
2022). Each channel ``j`` of the inputs is divided by ``max|x_j| ** strength / max|w_j| ** (1 - strength)``, and the
row ``j`` of the weights multiplied by it, so that the product stays the same. Two things differ from the paper:
``max|x_j|`` is the mean over texts of each text's largest magnitude, since dynamic scales are found for each text
anew, and every dense layer is smoothed, not only those behind a normalisation: the inputs of a feed-forward's second
layer, behind its activation function, are the worst of all.

Where a ``LayerNormalization`` feeds dense layers alone, the division is folded into its scale and bias and costs
nothing. In encoders that normalise after the residual sum (BERT) the sum needs the unscaled numbers, so the
division is a multiplication of its own: 384 numbers a token where the layer behind it multiplies 600,000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skerry.build.techniques.graph import Dense, Graph
from skerry.build.techniques.samples import Samples
from skerry.spec.ports import Array

_SMALLEST = 1e-5
"""A channel that is never used is not blown up beyond reason."""


def smooth(graph: Graph, samples: Samples, strength: float) -> None:
    """Move scales from inputs to weights in place; ``strength`` is from 0 (weights decide) to 1 (inputs decide)."""
    groups = _groups(graph)
    if not groups:
        return
    largest = largest_magnitudes(graph, samples, list(groups))
    users, outputs = graph.users(), graph.outputs()
    makers = graph.makers()
    between: dict[str, list[Any]] = {}
    for name, layers in groups.items():
        scales = _scales(graph, layers, largest[name], strength)
        for weight in dict.fromkeys(layer.weight for layer in layers):
            graph.put(weight, graph.array(weight) * scales[:, None])
        alone = name not in outputs and len(users[name]) == len(layers)
        if not (alone and _fold(graph, makers.get(name), scales)):
            between[name] = [_division(graph, name, layers, scales)]
    graph.insert_after(between)


def largest_magnitudes(graph: Graph, samples: Samples, names: Sequence[str]) -> dict[str, Array]:
    """Return for each tensor the mean over texts of each channel's largest magnitude."""
    import numpy as np

    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    count = 0
    for found in samples.activations(graph, names):
        count += 1
        for name, array in found.items():
            sums[name] = sums[name] + np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
    return {name: np.asarray(total / count) for name, total in sums.items()}


def _groups(graph: Graph) -> dict[str, list[Dense]]:
    """Return the layers by what they read, without those whose weights another group or node uses too."""
    found: dict[str, list[Dense]] = {}
    for layer in graph.layers():
        found.setdefault(layer.input, []).append(layer)
    users = graph.users()

    def own(layers: list[Dense]) -> bool:
        names = {layer.name for layer in layers}
        return all(node.name in names for layer in layers for node in users[layer.weight])

    return {name: layers for name, layers in found.items() if own(layers)}


def _scales(graph: Graph, layers: Sequence[Dense], largest: Array, strength: float) -> Array:
    import numpy as np

    weights = np.max([np.abs(graph.array(layer.weight)).max(axis=1) for layer in layers], axis=0)
    scales = np.maximum(largest, _SMALLEST) ** strength / np.maximum(weights, _SMALLEST) ** (1.0 - strength)
    middle = np.sqrt(scales.max() * scales.min())
    return np.asarray(scales / middle, dtype=np.float32)


def _fold(graph: Graph, maker: Any, scales: Array) -> bool:
    """Divide a normalisation's scale and bias; tell whether that was possible."""
    if maker is None or maker.op_type != "LayerNormalization":
        return False
    if not all(graph.is_constant(name) for name in maker.input[1:]):
        return False
    for place, name in enumerate(maker.input[1:], 1):
        # Under a name of its own: exporters share equal initializers between normalisations.
        maker.input[place] = graph.put(f"{maker.name}_smooth_{place}", graph.array(name) / scales)
    return True


def _division(graph: Graph, name: str, layers: Sequence[Dense], scales: Array) -> Any:
    smoothed = f"{name}_smooth"
    factors = graph.put(f"{name}_factors", 1.0 / scales)
    wanted: Mapping[str, Dense] = {layer.name: layer for layer in layers}
    for node in graph.nodes:
        if node.name in wanted:
            node.input[0] = smoothed
    return graph.node("Mul", [name, factors], [smoothed])
