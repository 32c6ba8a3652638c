"""``litert-int8``: a LiteRT model with weights of 8 or 4 bits, by ai-edge-quantizer.

With ``compute: int8`` inputs are rounded to 8 bits row by row as they come (XNNPACK's dynamic kernels), with ``fp32``
weights are widened first. Tables of embeddings have a width of their own: they are looked up, not multiplied, so fewer
bits there cost no time and save half of a small encoder's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.convert_litert import FILE
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter
from skerry.spec.errors import SpecError

SCRIPT = "litert_quantize.py"
_BITS = {"int8": 8, "int4": 4, "fp32": 0}
_POSITIONS = ".*Embedding_position.*"
"""The table of positions stays as it is: it is in every vector, and has few rows. In int8, agreement@10 of MiniLM was
0.002 to 0.003 less on four sets of texts."""


class QuantizeSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    bits:
        Of each weight of a dense layer.
    block:
        How many numbers of 4 bits share a scale; 0: each output channel, or row of a table, has one.
    compute:
        ``int8`` rounds inputs as they come, ``fp32`` keeps them.
    embedding:
        How tables of embeddings are held.
    exclude:
        Regular expressions on the names of tensors that operators give; these operators stay in fp32.
    scales:
        How scales are found: ``min_max`` covers the largest number, ``octav`` and ``mse`` clip for the least error.
    """

    bits: Literal[4, 8] = 8
    block: Literal[0, 32, 64, 128] = 0
    compute: Literal["int8", "fp32"] = "int8"
    embedding: Literal["fp32", "int8", "int4"] = "int8"
    exclude: tuple[str, ...] = ()
    scales: Literal["min_max", "octav", "mse"] = "min_max"


class LiteRtQuantize:
    """LiteRT's dense layers with weights of 8 or 4 bits, and the embeddings apart."""

    name: ClassVar[str] = "litert-int8"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 3
    summary: ClassVar[str] = (
        "LiteRT with int8 or int4 weights, per channel or in blocks, and embeddings in int8 or int4"
    )
    toolchain: ClassVar[str | None] = "litert"
    makes: ClassVar[Form] = "litert"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.form != "litert":
            return f"it takes a LiteRT model, and this is {artifact.form}"
        done = any(step.technique == self.name for step in artifact.steps)
        return f"the model was quantized by {self.name} already" if done else ""

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return 8 bits, then fewer for the embeddings, then 4 bits in blocks."""
        require_accepted(self.refuses(artifact), self.name)
        tried = [
            QuantizeSettings(), QuantizeSettings(scales="octav"), QuantizeSettings(embedding="int4", block=32),
            QuantizeSettings(bits=4, block=32), QuantizeSettings(bits=4, block=32, embedding="int4"),
        ]  # fmt: skip
        return [plain(one) for one in tried]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Quantize; takes seconds."""
        require_accepted(self.refuses(artifact), self.name)
        told = _checked(read_settings(QuantizeSettings, settings, self.name))
        request = {
            "source": str(artifact.path.absolute()), "target": str(target.absolute() / FILE), "rules": _rules(told),
        }  # fmt: skip
        ask_converter(self.name, "litert", SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, (FILE,))


def _checked(told: QuantizeSettings) -> QuantizeSettings:
    """Return the settings; raises ``SpecError`` for blocks of 8 bits, which the quantizer would leave in fp32."""
    if told.block and told.bits == 8 and told.embedding != "int4":
        raise SpecError(
            "block: LiteRT has blocks for weights of 4 bits only", where=LiteRtQuantize.name,
            expected="bits: 4, or embedding: int4, or no block",
        )  # fmt: skip
    return told


def _rules(told: QuantizeSettings) -> list[dict[str, Any]]:
    """Return the quantizer's rules, of which the last that fits an operator holds."""
    compute = "integer" if told.compute == "int8" else "float"
    bits, chosen = _BITS[told.embedding], {"algorithm": told.scales}
    dense = {"bits": told.bits, "granularity": _granularity(told.bits, told.block), "compute": compute}
    table = {"bits": bits, "granularity": _granularity(bits, told.block), "operator": "EMBEDDING_LOOKUP"}
    rules: list[dict[str, Any]] = [{**dense, **chosen}, {**table, **chosen}, {"regex": _POSITIONS, "bits": 0}]
    exact: list[dict[str, Any]] = [{"regex": name, "bits": 0} for name in told.exclude]
    return [*rules, *exact]


def _granularity(bits: int, block: int) -> str:
    return f"block{block}" if block and bits == 4 else "channel"
