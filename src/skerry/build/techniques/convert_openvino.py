"""``openvino``: an ONNX graph as OpenVINO's IR, with weights in fp16, or compressed by NNCF.

Of the kind ``quantize`` since it starts from an ONNX graph, which came of a conversion already.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.onnx_dynamic import refuses_onnx
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter

FILES = ("model.xml", "model.bin")
SCRIPT = "openvino_from_onnx.py"


class OpenVinoSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    compress:
        ``fp32`` and ``fp16`` convert only; ``int8-weights`` and ``int4-weights`` compress the weights; ``int8`` also
        gives inputs constant scales, calibrated on the texts.
    group, ratio, embeddings:
        Of ``int4-weights``: how many numbers share a scale, the share of the layers that get 4 bits (the others have
        8), and whether the embeddings are among them.
    texts:
        Of ``int8``: how many to calibrate on. NNCF's own default is 300.
    exclude:
        Of ``int8``: names of layers of the ONNX graph that stay as they are.
    accurate:
        Of ``int8``: correct the biases layer by layer, which takes minutes.
    """

    compress: Literal["fp32", "fp16", "int8-weights", "int4-weights", "int8"] = "int8-weights"
    group: Literal[32, 64, 128] = 32
    ratio: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    embeddings: bool = False
    texts: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300
    exclude: tuple[str, ...] = ()
    accurate: bool = False


class ConvertOpenVino:
    """An ONNX graph as OpenVINO's IR, as it is or compressed by NNCF."""

    name: ClassVar[str] = "openvino"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "OpenVINO's IR in fp16, or with int8 or int4 weights or calibrated int8 by NNCF"
    toolchain: ClassVar[str | None] = "openvino"
    makes: ClassVar[Form] = "openvino"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return the ways of compressing, those that keep the most first; ``int8`` only where there are texts."""
        require_accepted(self.refuses(artifact), self.name)
        tried = [OpenVinoSettings(compress="int8-weights"), OpenVinoSettings(compress="int8")]
        if not workbench.texts:
            tried.pop()
        tried += [
            OpenVinoSettings(compress="fp16"), OpenVinoSettings(compress="int4-weights"),
            OpenVinoSettings(compress="int4-weights", embeddings=True),
        ]  # fmt: skip
        return [plain(one) for one in tried]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Convert and compress; seconds, and minutes with ``accurate``."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(OpenVinoSettings, settings, self.name)
        paths = {"model": str(artifact.path.absolute()), "target": str(target.absolute() / FILES[0])}
        request = paths | _compression(told, artifact, workbench)
        ask_converter(self.name, "openvino", SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, FILES, form="openvino")


def _compression(told: OpenVinoSettings, artifact: Artifact, workbench: Workbench) -> dict[str, Any]:
    """Return the part of the request that tells how to compress."""
    match told.compress:
        case "fp32" | "fp16":
            return {"compress": "none", "half": told.compress == "fp16"}
        case "int4-weights":
            return {
                "compress": "int4_weights", "group": told.group, "ratio": told.ratio, "embeddings": told.embeddings
            }  # fmt: skip
        case "int8":
            ids = Samples(artifact, workbench, told.texts).ids
            return {
                "compress": "int8", "calibrate": ids, "subset": len(ids), "accurate": told.accurate,
                "ignore": [f"^{re.escape(name)}$" for name in told.exclude],
            }  # fmt: skip
        case _:
            return {"compress": "int8_weights"}
