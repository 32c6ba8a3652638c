"""``onnx-static``: dense layers in int8, with scales of their inputs found beforehand on the user's texts.

Each input is rounded by ``QuantizeLinear`` and ``DequantizeLinear`` with constant scales (QDQ), which ONNX Runtime
fuses with the layer between them. Compared with ``onnx-dynamic`` a run saves finding the scales, and a text that is
unlike the calibration texts is clipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.embedding import round_tables
from skerry.build.techniques.graph import FILE, Dense, Graph, refuses_onnx, require_layers, require_names
from skerry.build.techniques.integers import by_column
from skerry.build.techniques.onnx_dynamic import STRENGTH
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.sensitivity import most_sensitive
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.smoothing import smooth
from skerry.spec.ports import Array

SPARED = (0, 2, 6)
"""How many of the most sensitive layers are left in fp32, to be tried."""

_SHRUNK = tuple(1.0 - 0.05 * step for step in range(13))
"""Parts of the whole range that are tried for the least squared error."""

_MOST_KEPT = 65_536
"""Numbers of each input kept for choosing its range."""


class StaticSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    range:
        ``minmax`` takes the least and the largest number seen; ``mse`` the part of that range with the least squared
        error. Both look at single numbers, so texts of different lengths can be mixed, where calibrators that
        stack whole outputs cannot.
    exclude, embedding, smooth, reduce_range:
        As for ``onnx-dynamic``.
    """

    range: Literal["minmax", "mse"] = "mse"
    exclude: tuple[str, ...] = ()
    embedding: Literal["fp32", "int8"] = "int8"
    smooth: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = STRENGTH
    reduce_range: bool = False


class OnnxStatic:
    """Dense layers in int8; the scales of their inputs are constants."""

    name: ClassVar[str] = "onnx-static"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "int8 weights per channel, int8 inputs with scales calibrated on the user's texts"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return smoothed settings with growing exclusions, then others; measures sensitivities for some 12 s."""
        require_accepted(self.refuses(artifact), self.name)
        names = most_sensitive(artifact, workbench, strength=STRENGTH)
        spared = [StaticSettings(exclude=tuple(names[:count])) for count in SPARED if count < len(names)]
        return [plain(one) for one in (*spared, StaticSettings(range="minmax"), StaticSettings(smooth=0.0))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the int8 form."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(StaticSettings, settings, self.name)
        graph = Graph(artifact.path)
        spared = require_names(told.exclude, require_layers(graph), artifact.path)
        samples = Samples(artifact, workbench)
        if told.smooth:
            smooth(graph, samples, told.smooth)
        layers = [layer for layer in graph.layers() if layer.name not in spared]
        ranges = _ranges(graph, samples, list(dict.fromkeys(layer.input for layer in layers)), told.range)
        graph.insert_after({name: _round_input(graph, name, *found) for name, found in ranges.items()})
        graph.replace({layer.name: _rounded_layer(graph, layer, told.reduce_range) for layer in layers})
        round_tables(graph, told.embedding)
        graph.save(target / FILE)
        return forged(artifact, self, settings, target, (FILE,))


def _ranges(graph: Graph, samples: Samples, names: list[str], kind: str) -> dict[str, tuple[float, float]]:
    """Return the least and the largest number of each input that int8 is to cover; 0 is always covered."""
    import numpy as np

    seen: dict[str, list[Array]] = {name: [] for name in names}
    ends: dict[str, tuple[float, float]] = dict.fromkeys(names, (0.0, 0.0))
    for found in samples.activations(graph, names):
        for name, array in found.items():
            low, high = ends[name]
            ends[name] = (min(low, float(array.min())), max(high, float(array.max())))
            step = max(array.size * samples.count // _MOST_KEPT, 1)
            seen[name].append(array.reshape(-1)[::step])
    if kind == "minmax":
        return ends
    return {name: _least_error(np.concatenate(seen[name]), *ends[name]) for name in names}


def _least_error(numbers: Array, low: float, high: float) -> tuple[float, float]:
    """Return the part of a range whose rounding has the least squared error, what is clipped included."""
    import numpy as np

    def error(part: float) -> float:
        scale, zero = _scale_and_zero(low * part, high * part)
        rounded = (np.clip(np.rint(numbers / scale) + zero, 0, 255) - zero) * scale
        return float(np.square(rounded - numbers).sum())

    best = min(_SHRUNK, key=error)
    return low * best, high * best


def _scale_and_zero(low: float, high: float) -> tuple[float, int]:
    scale = (high - low) / 255 or 1.0
    return scale, round(-low / scale)


def _round_input(graph: Graph, name: str, low: float, high: float) -> list[Any]:
    import numpy as np

    scale, zero = _scale_and_zero(low, high)
    told = [
        graph.put(f"{name}_scale", np.array(scale, dtype=np.float32)),
        graph.put(f"{name}_zero", np.array(zero, dtype=np.uint8)),
    ]
    return [
        graph.node("QuantizeLinear", [name, *told], [f"{name}_integers"]),
        graph.node("DequantizeLinear", [f"{name}_integers", *told], [f"{name}_restored"]),
    ]


def _rounded_layer(graph: Graph, layer: Dense, reduced: bool) -> list[Any]:
    import numpy as np

    rounded = by_column(graph.array(layer.weight), reduced=reduced)
    weight = [
        graph.put(f"{layer.weight}_int8", rounded.integers),
        graph.put(f"{layer.weight}_scales", rounded.scales),
        graph.put(f"{layer.weight}_zeros", np.zeros(len(rounded.scales), dtype=np.int8)),
    ]
    restored = f"{layer.output}_weight"
    return [
        graph.node("DequantizeLinear", weight, [restored], axis=1),
        graph.node("MatMul", [f"{layer.input}_restored", restored], [layer.output], name=layer.name),
    ]
