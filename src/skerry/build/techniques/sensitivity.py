"""Sensitivity: how far the model's vectors move when one layer alone is rounded.

One session answers for every layer: in a copy of the graph, each layer's rounding is multiplied by a switch, a further
input. For all-MiniLM-L6-v2 the movements of the single layers added up to that of all of them (0.0053 and 0.0052 of
cosine), so the layers to spare are the first of the list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from skerry.build.artifact import Artifact
from skerry.build.technique import Workbench
from skerry.build.techniques.graph import Dense, Graph, require_layers
from skerry.build.techniques.integers import by_column
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.smoothing import smooth
from skerry.spec.ports import Array

MOST_TEXTS, LEAST_TEXTS = 24, 4
_WORK = 24 * 36 * 11e6
"""Texts times layers times weights: some 12 s on one core of a server. Larger models are asked on fewer texts."""

_SWITCHES = "skerry_switches"


def sensitivities(
    graph: Graph, artifact: Artifact, workbench: Workbench, round_weight: Callable[[Array], Array], *, inputs: bool
) -> list[tuple[str, float]]:
    """Return each dense layer's name and the cosine distance that rounding it costs, the largest first.

    Parameters
    ----------
    graph:
        It is used up.
    round_weight:
        What rounding makes of a weight.
    inputs:
        Whether a layer's inputs are rounded too, to 8 bits with a scale for each text.
    """
    import numpy as np

    layers = require_layers(graph)
    samples = Samples(artifact, workbench, texts_for(graph, layers))
    for place, layer in enumerate(layers):
        _add_switch(graph, layer, place, round_weight, inputs=inputs)
    helper = graph.onnx.helper
    graph.model.graph.input.append(
        helper.make_tensor_value_info(_SWITCHES, graph.onnx.TensorProto.FLOAT, [len(layers)])
    )
    rows = np.concatenate([np.zeros((1, len(layers))), np.eye(len(layers))]).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "switched.onnx"
        graph.save(path)
        reference, *found = samples.vectors(path, [{_SWITCHES: row} for row in rows])
    costs = [float(1.0 - (vectors * reference).sum(axis=1).mean()) for vectors in found]
    return sorted(zip((layer.name for layer in layers), costs, strict=True), key=lambda pair: (-pair[1], pair[0]))


def most_sensitive(artifact: Artifact, workbench: Workbench, *, strength: float = 0.0) -> list[str]:
    """Return the names of the dense layers, those first that lose most in int8 with their inputs; some 12 s.

    ``strength`` is that of the smoothing beforehand, 0 for none.
    """
    graph = Graph(artifact.path)
    require_layers(graph)
    if strength:
        smooth(graph, Samples(artifact, workbench), strength)
    ranked = sensitivities(graph, artifact, workbench, lambda weight: by_column(weight).restored, inputs=True)
    return [name for name, _ in ranked]


def texts_for(graph: Graph, layers: list[Dense]) -> int:
    """Return on how many texts a model is asked, by its size alone so that it is the same everywhere."""
    numbers = sum(graph.array(name).size for name in {layer.weight for layer in layers})
    return int(min(max(_WORK / max(len(layers) * numbers, 1), LEAST_TEXTS), MOST_TEXTS))


def _add_switch(
    graph: Graph, layer: Dense, place: int, round_weight: Callable[[Array], Array], *, inputs: bool
) -> None:
    """Compute a layer as ``(x + s (q(x) - x)) @ (w + s (q(w) - w))``, ``s`` being its switch."""
    import numpy as np

    name = f"switched_{place}"
    weight = graph.array(layer.weight)
    change = graph.put(f"{layer.weight}_change", (round_weight(weight) - weight).astype(np.float32))
    number = graph.put(f"{name}_place", np.array([place], dtype=np.int64))
    nodes = [
        graph.node("Gather", [_SWITCHES, number], [f"{name}_switch"]),
        graph.node("Mul", [change, f"{name}_switch"], [f"{name}_part"]),
        graph.node("Add", [layer.weight, f"{name}_part"], [f"{name}_weight"]),
    ]
    read = layer.input
    if inputs:
        rounded = [f"{name}_{part}" for part in ("integers", "scale", "zero")]
        read = f"{name}_input"
        nodes += [
            graph.node("DynamicQuantizeLinear", [layer.input], rounded),
            graph.node("DequantizeLinear", rounded, [f"{name}_restored"]),
            graph.node("Sub", [f"{name}_restored", layer.input], [f"{name}_moved"]),
            graph.node("Mul", [f"{name}_moved", f"{name}_switch"], [f"{name}_share"]),
            graph.node("Add", [layer.input, f"{name}_share"], [read]),
        ]
    nodes.append(graph.node("MatMul", [read, f"{name}_weight"], [layer.output], name=layer.name))
    graph.replace({layer.name: nodes})
