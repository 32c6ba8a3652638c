"""``nncf-weights``: an ONNX graph as OpenVINO's IR with weights of 8 or 4 bits, by NNCF's weight compression.

Weights are rounded by their own numbers alone, or scales of 4 bits are those with which the layers' answers to the
user's texts change least, and the layers that keep 8 bits those whose inputs vary most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.convert_openvino import FILES
from skerry.build.techniques.graph import refuses_onnx
from skerry.build.techniques.samples import SHARE_OUT, Samples
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter
from skerry.spec.errors import SpecError

SCRIPT = "openvino_quantize.py"


class WeightSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    bits:
        Of each weight.
    zeros:
        Whether a scale has a zero point beside it, for weights that do not lie around 0.
    group, ratio, embeddings:
        Of 4 bits: how many numbers share a scale, the share of the layers that get them (the others have 8), and
        whether the embeddings are among them.
    scales:
        Of 4 bits: found on the ``weights`` alone, or on ``texts`` too.
    """

    bits: Literal[8, 4] = 8
    zeros: bool = True
    group: Literal[32, 64, 128] = 32
    ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    embeddings: bool = False
    scales: Literal["weights", "texts"] = "weights"


class NncfWeights:
    """OpenVINO's IR with compressed weights; inputs are rounded as they come."""

    name: ClassVar[str] = "nncf-weights"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 3
    summary: ClassVar[str] = "OpenVINO's IR with int8 or int4 weights by NNCF, int4 scales fitted on the user's texts"
    toolchain: ClassVar[str | None] = "openvino"
    makes: ClassVar[Form] = "openvino"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return 8 bits, then 4 bits, fitted on the texts where there are some; those that keep the most come first."""
        require_accepted(self.refuses(artifact), self.name)
        plain_scales = [WeightSettings(bits=4), WeightSettings(bits=4, embeddings=True)]
        fitted = [
            WeightSettings(bits=4, scales="texts", ratio=0.6), WeightSettings(bits=4, scales="texts"),
            WeightSettings(bits=4, scales="texts", embeddings=True),
        ]  # fmt: skip
        has_texts = bool(workbench.texts) and artifact.task != "tensors"
        return [plain(one) for one in (WeightSettings(), *(fitted if has_texts else plain_scales))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Convert and compress; seconds, and a minute with scales from texts."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(WeightSettings, settings, self.name)
        paths = {"model": str(artifact.path.absolute()), "target": str(target.absolute() / FILES[0])}
        request = paths | _compression(told, artifact, workbench)
        ask_converter(self.name, "openvino", SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, FILES, form="openvino")


def _compression(told: WeightSettings, artifact: Artifact, workbench: Workbench) -> dict[str, Any]:
    """Return the part of the request that tells how to compress; raises ``SpecError`` for what 8 bits do not have."""
    mode = f"int{told.bits}_{'asym' if told.zeros else 'sym'}"
    request: dict[str, Any] = {"how": "weights", "mode": mode}
    if told.bits == 4:
        request |= {"group": told.group, "ratio": told.ratio, "embeddings": told.embeddings}
        if told.scales == "texts":
            request |= {"calibrate": Samples(artifact, workbench, SHARE_OUT).ids}
    elif told.scales == "texts" or told.ratio != 1.0 or told.embeddings:
        raise SpecError(
            "scales, ratio and embeddings: NNCF has them for weights of 4 bits only", where=NncfWeights.name,
            expected="bits: 4",
        )  # fmt: skip
    return request
