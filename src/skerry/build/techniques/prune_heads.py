"""``prune-heads``: the attention heads that add least to the output are left out of an ONNX graph.

Michel et al.: Are Sixteen Heads Really Better than One?, 2019. A head's importance is the mean length of what it adds
to a token on the user's texts. It works on the graph and not on a transformer's folder, since configurations
tie the number of heads to the size of the vectors: a folder with fewer heads could not be read again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import FILE, Dense, Graph, refuses_onnx
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.spec.errors import ModelError, ModelKindError
from skerry.spec.ports import Array

_PASSED = {"Transpose", "Reshape", "Mul", "Div", "Add", "Cast", "Identity", "Dropout", "Where"}
"""Operators between a dense layer and the products of attention; their other inputs are constants, masks or shapes."""


class Attention(msgspec.Struct, frozen=True):
    """One attention: its four dense layers, and the numbers of one head."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    head: int

    def heads(self, graph: Graph) -> int:
        """Return how many heads it has."""
        return int(graph.array(self.out.weight).shape[0] // self.head)


class HeadsSettings(Settings, frozen=True, kw_only=True):
    """What can be set: ``keep``, the share of the heads that stay, the same in each layer."""

    keep: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.75


class PruneHeads:
    """Fewer attention heads."""

    name: ClassVar[str] = "prune-heads"
    kind: ClassVar[Kind] = "prune"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "fewer attention heads: those that add least on the user's texts are left out"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.form == "transformer":
            return "a configuration ties its heads to the size of its vectors; export to ONNX first"
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return three shares."""
        return [plain(HeadsSettings(keep=keep)) for keep in (0.85, 0.7, 0.5)]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the graph with fewer heads."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(HeadsSettings, settings, self.name)
        graph = Graph(artifact.path)
        found = attentions(graph)
        if not found:
            raise ModelKindError("the graph has no attention whose heads can be told apart", where=str(artifact.path))
        ranked = _by_importance(graph, Samples(artifact, workbench), found)
        for attention, order in zip(found, ranked, strict=True):
            count = max(round(len(order) * told.keep), 1)
            _cut(graph, attention, sorted(order[:count]))
        graph.save(target / FILE)
        _require_running(artifact, workbench, target / FILE)
        return forged(artifact, self, settings, target, (FILE,))


def attentions(graph: Graph) -> list[Attention]:
    """Return the attentions, found by their ``Softmax``, that have the shape of multi-head attention."""
    users, makers = graph.users(), graph.makers()
    layers = {layer.output: layer for layer in graph.layers()}
    found = []
    for node in graph.nodes:
        if node.op_type == "Softmax":
            products = [one for one in _reached(users, node.output[0]) if one.op_type == "MatMul"]
            scores = _back(graph, makers, node.input[0], {})
            if len(products) == 1 and isinstance(scores, str):
                attention = _attention(graph, makers, users, layers, scores, products[0])
                found += [attention] if attention else []
    return found


def _require_running(artifact: Artifact, workbench: Workbench, path: Path) -> None:
    """Raise ``ModelKindError``, and remove the file, when a graph does not run with fewer heads."""
    try:
        Samples(artifact, workbench, count=1).vectors(path)
    except ModelError as error:
        path.unlink()
        raise ModelKindError(
            f"the graph holds something for each head elsewhere too: {error.message}", where=str(artifact.path)
        ) from error


def _attention(
    graph: Graph, makers: dict[str, Any], users: dict[str, list[Any]], layers: dict[str, Dense], scores: str, mixed: Any
) -> Attention | None:
    """Return the attention around a product of scores and one of values, or ``None`` where it is another shape."""
    sides = [*makers[scores].input, mixed.input[1]]
    ends = [_back(graph, makers, side, layers) for side in sides]
    outs = [one for one in _reached(users, mixed.output[0]) if one.output[0] in layers]
    head = _head_size(graph, makers, mixed.input[1])
    if len(outs) != 1 or not head or not all(isinstance(end, Dense) for end in ends):
        return None
    query, key, value = (end for end in ends if isinstance(end, Dense))
    widths = {graph.array(layer.weight).shape[1] for layer in (query, key, value)}
    out = layers[outs[0].output[0]]
    # Grouped queries share keys among heads, and have other widths.
    if widths != {graph.array(out.weight).shape[0]} or widths.pop() % head:
        return None
    return Attention(query, key, value, out, head)


def _reached(users: dict[str, list[Any]], name: str) -> list[Any]:
    """Return the nodes that a tensor reaches through operators that only move or scale it."""
    found = []
    for node in users.get(name, []):
        found += _reached(users, node.output[0]) if node.op_type in _PASSED else [node]
    return [node for node in found if node.op_type != "Shape"]


def _back(graph: Graph, makers: dict[str, Any], name: str, layers: dict[str, Dense]) -> Dense | str | None:
    """Return the dense layer, or the product of two tensors (its output's name), from which a tensor comes."""
    while name in makers:
        node = makers[name]
        if name in layers:
            return layers[name]
        if node.op_type == "MatMul":
            return str(name)
        if node.op_type not in _PASSED:
            return None
        name = _main_input(graph, makers, node)
    return None


def _main_input(graph: Graph, makers: dict[str, Any], node: Any) -> str:
    """Return the input that carries the numbers: of two, the one that leads to a product."""
    choices = [name for name in node.input if not graph.is_constant(name)]
    if node.op_type in {"Add", "Where"} and len(choices) > 1:
        choices = [name for name in choices if _is_from_product(graph, makers, name)]
    return str(choices[0]) if choices else ""


def _is_from_product(graph: Graph, makers: dict[str, Any], name: str) -> bool:
    """Tell whether a tensor is a product, perhaps scaled and moved: a mask is not."""
    while name in makers and makers[name].op_type in _PASSED:
        inputs = [one for one in makers[name].input if not graph.is_constant(one)]
        name = inputs[0] if inputs else ""
    return name in makers and makers[name].op_type == "MatMul"


def _head_size(graph: Graph, makers: dict[str, Any], name: str) -> int:
    """Return the numbers of one head: the last of the shape into which the values are brought, or 0."""
    while name in makers and makers[name].op_type in _PASSED:
        node = makers[name]
        if node.op_type == "Reshape":
            parts = _shape_parts(graph, makers, node.input[1])
            # The count of heads has to be free, or else the graph holds it in a place of its own.
            return parts[3] if len(parts) == 4 and parts[2] == -1 and parts[3] > 0 else 0
        name = _main_input(graph, makers, node)
    return 0


def _shape_parts(graph: Graph, makers: dict[str, Any], name: str) -> list[int]:
    """Return the numbers of a shape, 0 for each that is computed."""
    if graph.is_constant(name):
        return [int(number) for number in graph.array(name).reshape(-1)]
    node = makers.get(name)
    if node is None or node.op_type != "Concat":
        return [0]
    return [number for part in node.input for number in _shape_parts(graph, makers, part)]


def _by_importance(graph: Graph, samples: Samples, found: list[Attention]) -> list[list[int]]:
    """Return for each attention its heads, the one first that adds the longest vectors to tokens."""
    import numpy as np

    lengths = [np.zeros(attention.heads(graph)) for attention in found]
    for seen in samples.activations(graph, [attention.out.input for attention in found]):
        for place, attention in enumerate(found):
            heads = len(lengths[place])
            mixed = seen[attention.out.input].reshape(-1, heads, attention.head)
            weights = graph.array(attention.out.weight).reshape(heads, attention.head, -1)
            added = np.einsum("thd,hdo->tho", mixed, weights)
            lengths[place] += np.linalg.norm(added, axis=2).sum(axis=0)
    return [np.argsort(-sums, kind="stable").tolist() for sums in lengths]


def _cut(graph: Graph, attention: Attention, heads: list[int]) -> None:
    """Leave only some heads of an attention, under names of their own since exporters share equal weights."""
    import numpy as np

    places = np.concatenate([np.arange(head * attention.head, (head + 1) * attention.head) for head in heads])
    width = graph.array(attention.out.weight).shape[0]
    nodes = {node.name: node for node in graph.nodes}
    for layer in (attention.query, attention.key, attention.value):
        nodes[layer.name].input[1] = graph.put(f"{layer.name}_heads", graph.array(layer.weight)[:, places].copy())
        _cut_bias(graph, layer, places, width)
    nodes[attention.out.name].input[1] = graph.put(
        f"{attention.out.name}_heads", graph.array(attention.out.weight)[places].copy()
    )
    _free_shape(graph, attention.out.input)


def _cut_bias(graph: Graph, layer: Dense, places: Array, width: int) -> None:
    for node in graph.users().get(layer.output, []):
        for number, name in enumerate(node.input):
            if node.op_type == "Add" and graph.is_constant(name) and graph.array(name).shape == (width,):
                node.input[number] = graph.put(f"{node.name}_heads", graph.array(name)[places].copy())


def _free_shape(graph: Graph, name: str) -> None:
    """Let the shape into which the heads are joined find its last number by itself."""
    import numpy as np

    makers = graph.makers()
    node = makers[name]
    if node.op_type == "Reshape" and not graph.is_constant(node.input[1]):
        parts = makers[node.input[1]]
        parts.input[len(parts.input) - 1] = graph.put(f"{node.name}_rest", np.array([-1], dtype=np.int64))
