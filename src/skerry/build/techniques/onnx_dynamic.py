"""``onnx-dynamic``: dense layers in int8, with a scale per output channel and one per run for their inputs.

Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018. ONNX
Runtime fuses the nodes written here into one kernel that finds the scale, multiplies and adds the bias.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.blocks import blocked_layer
from skerry.build.techniques.embedding import round_tables
from skerry.build.techniques.graph import FILE, Dense, Graph, refuses_onnx, require_layers, require_names
from skerry.build.techniques.integers import by_column, sums_saturate
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.sensitivity import most_sensitive
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.smoothing import smooth

STRENGTH = 0.6
"""How much of the scales is moved by default: 0.6 to 0.75 were the best for MiniLM, see ``docs/techniques.md``."""

SPARED = (0, 1, 2, 4, 6)
"""How many of the most sensitive layers are spared, to be tried."""


_BLOCK = 32


class DynamicSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    exclude:
        Names of layers that are spared: the sensitive ones.
    spared:
        What becomes of those: ``blocks`` is int8 with a scale for every 32 numbers of weights and inputs, as small
        and slower; ``fp32`` leaves them as they are, four times as large and slower still.
    embedding:
        How tables of embeddings are held.
    smooth:
        The strength of smoothing (:mod:`skerry.build.techniques.smoothing`), 0 for none.
    reduce_range:
        Weights of 7 bits, for x86 processors without VNNI, where two products of 8 bits saturate.
    """

    exclude: tuple[str, ...] = ()
    spared: Literal["blocks", "fp32"] = "blocks"
    embedding: Literal["fp32", "int8"] = "int8"
    smooth: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = STRENGTH
    reduce_range: bool = False


class OnnxDynamic:
    """Dense layers in int8; the scales of their inputs are found at each run."""

    name: ClassVar[str] = "onnx-dynamic"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 2
    summary: ClassVar[str] = "int8 weights per channel, int8 inputs scaled at each run, scales smoothed beforehand"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return smoothed settings with growing exclusions, then others; measures sensitivities for some 12 s."""
        require_accepted(self.refuses(artifact), self.name)
        names = most_sensitive(artifact, workbench, strength=STRENGTH)
        spared = [DynamicSettings(exclude=tuple(names[:count])) for count in SPARED if count < len(names)]
        if sums_saturate():
            spared.insert(1, DynamicSettings(reduce_range=True))
        others = [DynamicSettings(smooth=0.75), DynamicSettings(embedding="fp32"), DynamicSettings(smooth=0.0)]
        return [plain(one) for one in (*spared, *others)]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the int8 form."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(DynamicSettings, settings, self.name)
        graph = Graph(artifact.path)
        spared = require_names(told.exclude, require_layers(graph), artifact.path)
        if told.smooth:
            smooth(graph, Samples(artifact, workbench), told.smooth)
        exact = [layer for layer in graph.layers() if layer.name in spared]
        layers = [layer for layer in graph.layers() if layer.name not in spared]
        inputs: dict[str, list[str]] = {}
        instead: dict[str, list[Any]] = {}
        for layer in layers:
            first = [] if layer.input in inputs else _round_input(graph, layer.input, inputs)
            instead[layer.name] = [*first, *_integer_layer(graph, layer, inputs[layer.input], told.reduce_range)]
        if told.spared == "blocks":
            instead |= {layer.name: [blocked_layer(graph, layer, 8, _BLOCK)] for layer in exact}
        graph.replace(instead)
        round_tables(graph, told.embedding)
        graph.save(target / FILE)
        return forged(artifact, self, settings, target, (FILE,))


def _round_input(graph: Graph, name: str, inputs: dict[str, list[str]]) -> list[Any]:
    """Return the node that rounds a tensor, which all the layers that read it share."""
    inputs[name] = [f"{name}_{part}" for part in ("integers", "scale", "zero")]
    return [graph.node("DynamicQuantizeLinear", [name], inputs[name])]


def _integer_layer(graph: Graph, layer: Dense, inputs: list[str], reduced: bool) -> list[Any]:
    import numpy as np

    integers, scale, zero = inputs
    rounded = by_column(graph.array(layer.weight), reduced=reduced)
    weight = graph.put(f"{layer.weight}_int8", rounded.integers)
    scales = graph.put(f"{layer.weight}_scales", rounded.scales)
    zeros = graph.put(f"{layer.weight}_zeros", np.zeros(len(rounded.scales), dtype=np.int8))
    name = layer.output
    return [
        graph.node("MatMulInteger", [integers, weight, zero, zeros], [f"{name}_whole"]),
        graph.node("Cast", [f"{name}_whole"], [f"{name}_cast"], to=graph.onnx.TensorProto.FLOAT),
        graph.node("Mul", [scale, scales], [f"{name}_scale"]),
        graph.node("Mul", [f"{name}_cast", f"{name}_scale"], [name], name=layer.name),
    ]
