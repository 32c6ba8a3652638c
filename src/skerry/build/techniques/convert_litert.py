"""``convert-litert``: a transformer's weights as a LiteRT model in fp32, with a signature for each length of text.

LiteRT's graphs have fixed shapes: a text is padded to the least length that holds it, so the lengths decide how much is
computed in vain. The weights are stored once for all of them.

Scales of dense layers' inputs are moved into the weights on the way (SmoothQuant, 2022): nothing changes in fp32, and
``litert-int8`` loses less afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.buckets import doubling, fitted
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter
from skerry.build.techniques.transformer import refuses_transformer
from skerry.spec.errors import SpecError

FILE = "model.tflite"
SCRIPT = "litert_from_torch.py"
PART_SCRIPT = "litert_from_part.py"
"""Of models of tensors."""

COUNTS = (8, 5)
"""How many lengths are tried: more of them pad less; each takes 5 s to convert and 0.1 MB of MiniLM's file."""

STRENGTH = 0.5
"""How much of the scales is moved: of 0 to 0.75 the best for MiniLM in int8; see ``docs/techniques.md``."""

_WATCHED = 500
"""Texts whose lengths are looked at."""


class LiteRtSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    buckets:
        The lengths in tokens. A text is cut to the last of them. None: doubling from 8 up to what the model takes.
    smooth:
        How much of the scales of inputs is moved into the weights, 0 for none. Needs texts.
    pooled:
        Whether the graph gives the vector of the text instead of those of its tokens, which spares a copy of these.
    """

    buckets: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    smooth: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = STRENGTH
    pooled: bool = True


class ConvertLiteRt:
    """A transformer as a LiteRT model in fp32; compared with PyTorch before it is used."""

    name: ClassVar[str] = "convert-litert"
    kind: ClassVar[Kind] = "convert"
    version: ClassVar[int] = 2
    summary: ClassVar[str] = "a LiteRT model in fp32, with graphs for the lengths that the user's texts have"
    toolchain: ClassVar[str | None] = "litert"
    makes: ClassVar[Form] = "litert"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.form == "transformer" and artifact.task == "tensors":
            return ""
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return lengths that fit the texts, many and few; without texts, the doubling ones."""
        require_accepted(self.refuses(artifact), self.name)
        if artifact.task == "tensors" or not workbench.texts:
            return [plain(LiteRtSettings(buckets=doubling(artifact.max_tokens), smooth=0.0))]
        lengths = [len(ids) for ids in Samples(artifact, workbench, _WATCHED).ids]
        found = dict.fromkeys(fitted(lengths, artifact.max_tokens, count) for count in COUNTS)
        return [plain(LiteRtSettings(buckets=buckets)) for buckets in found]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Convert; takes some 10 s, and 5 s more for each length of a small encoder."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(LiteRtSettings, settings, self.name)
        buckets = _checked(told.buckets or doubling(artifact.max_tokens), artifact.max_tokens)
        if artifact.task == "tensors":
            return self._tensors(artifact, settings, buckets, workbench, target)
        request: dict[str, Any] = {
            "model": str(artifact.folder.absolute()), "target": str(target.absolute() / FILE), "buckets": list(buckets),
            "output": "logits" if artifact.task == "classification" else "last_hidden_state",
        }  # fmt: skip
        if told.smooth:
            request |= {"smooth": told.smooth, "calibrate": Samples(artifact, workbench).ids}
        if told.pooled and artifact.task == "embedding":
            request |= {"pooling": artifact.pooling, "normalize": artifact.normalize}
        answer = ask_converter(self.name, "litert", SCRIPT, request, workbench)
        pooled: dict[str, Any] = {"pooling": "none", "normalize": False} if answer["pooled"] else {}
        return forged(
            artifact, self, settings, target, (FILE,), form="litert", max_tokens=buckets[-1], **pooled
        )  # fmt: skip

    def _tensors(
        self,
        artifact: Artifact,
        settings: dict[str, Any],
        buckets: tuple[int, ...],
        workbench: Workbench,
        target: Path,
    ) -> Artifact:
        """Convert a model of tensors; the lengths count where it takes tokens, and scales stay where they are."""
        request = {
            "model": str(artifact.folder.absolute()), "target": str(target.absolute() / FILE), "part": artifact.part,
            "buckets": list(buckets),
        }  # fmt: skip
        ask_converter(self.name, "litert", PART_SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, (FILE,), form="litert")


def _checked(buckets: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return the lengths in order; raises ``SpecError`` for one that is longer than the model takes."""
    if max(buckets) > most:
        raise SpecError(
            f"buckets: no text has {max(buckets)} tokens, since the model takes {most}", where=ConvertLiteRt.name,
            expected=f"lengths of 1 to {most}",
        )  # fmt: skip
    return tuple(sorted(set(buckets)))
