"""``onnx-weight-only``: weights of 8 or 4 bits in blocks; inputs stay float, or are rounded block by block on the fly.

Written as ONNX Runtime's operator ``MatMulNBits``. A scale for every 32 to 128 numbers keeps much more of the quality
than one per channel; the kernels for it are slower than plain int8 ones, see ``docs/techniques.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.blocks import Compute, blocked_layer, rounded_in_blocks
from skerry.build.techniques.embedding import Width, round_tables
from skerry.build.techniques.graph import FILE, Graph, refuses_onnx, require_layers, require_names
from skerry.build.techniques.sensitivity import sensitivities
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted

_WIDE_SHARE = 3
"""One layer of so many, the most sensitive ones, keeps 8 bits in the mixed candidate."""


class WeightOnlySettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    bits, block:
        Of each weight, and how many numbers share a scale.
    wide:
        Names of layers that keep 8 bits where the others have 4.
    compute:
        ``int8`` rounds inputs block by block, ``fp32`` keeps them, which is slower.
    embedding:
        How tables of embeddings are held.
    """

    bits: Literal[4, 8] = 8
    block: Literal[32, 64, 128] = 128
    wide: tuple[str, ...] = ()
    compute: Compute = "int8"
    embedding: Width = "int8"


class OnnxWeightOnly:
    """Dense layers with weights of 8 or 4 bits in blocks."""

    name: ClassVar[str] = "onnx-weight-only"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "int8 or int4 weights in blocks, embedding tables in int8 or int4"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return 8 bits, a mixture by measured sensitivity, and 4 bits; takes some 10 s."""
        require_accepted(self.refuses(artifact), self.name)
        ranked = sensitivities(
            Graph(artifact.path), artifact, workbench, lambda weight: rounded_in_blocks(weight, 4, 32), inputs=False
        )
        wide = tuple(name for name, _ in ranked[: max(len(ranked) // _WIDE_SHARE, 1)])
        tried = [
            WeightOnlySettings(), WeightOnlySettings(block=32), WeightOnlySettings(embedding="int4"),
            WeightOnlySettings(bits=4, block=32, wide=wide), WeightOnlySettings(bits=4, block=32),
            WeightOnlySettings(bits=4, block=32, embedding="int4"),
        ]  # fmt: skip
        return [plain(one) for one in tried]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the form with small weights."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(WeightOnlySettings, settings, self.name)
        graph = Graph(artifact.path)
        layers = require_layers(graph)
        wide = require_names(told.wide, layers, artifact.path)
        graph.replace(
            {
                layer.name: [
                    blocked_layer(graph, layer, 8 if layer.name in wide else told.bits, told.block, told.compute)
                ]
                for layer in layers
            }
        )
        round_tables(graph, told.embedding)
        graph.save(target / FILE)
        return forged(artifact, self, settings, target, (FILE,))
