"""Blocks: a dense layer whose weights have a scale for every few dozen numbers, as ``MatMulNBits``."""

from __future__ import annotations

from typing import Any, Literal

from skerry.build.techniques.graph import CONTRIBUTED, Dense, Graph
from skerry.build.techniques.integers import by_block
from skerry.spec.ports import Array

Compute = Literal["int8", "fp32"]
"""``int8`` rounds a layer's inputs block by block at each run, ``fp32`` widens the weights instead."""

_ACCURACY: dict[Compute, int] = {"fp32": 1, "int8": 4}
"""The operator's ``accuracy_level`` by what it computes in."""


def blocked_layer(graph: Graph, layer: Dense, bits: int, block: int, compute: Compute = "int8") -> Any:
    """Return the node that replaces a dense layer; its weights are put into the graph."""
    weight = graph.array(layer.weight)
    rounded = by_block(weight.T, bits, block)
    integers = graph.put(f"{layer.weight}_int{bits}", rounded.integers)
    scales = graph.put(f"{layer.weight}_scales{bits}", rounded.scales.reshape(-1))
    graph.use_contributed()
    return graph.node(
        "MatMulNBits", [layer.input, integers, scales], [layer.output], name=layer.name, domain=CONTRIBUTED,
        K=weight.shape[0], N=weight.shape[1], bits=bits, block_size=block, accuracy_level=_ACCURACY[compute],
    )  # fmt: skip


def rounded_in_blocks(weight: Array, bits: int, block: int) -> Array:
    """Return what rounding leaves of a weight of shape (inputs, outputs)."""
    restored: Array = by_block(weight.T, bits, block).restored.T
    return restored
