"""``openvino``: an ONNX graph as OpenVINO's IR that computes as before; ``nncf-weights`` and ``nncf-ptq`` round it.

Of the kind ``quantize`` since it starts from an ONNX graph, which came of a conversion already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import refuses_onnx
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter

FILES = ("model.xml", "model.bin")
SCRIPT = "openvino_from_onnx.py"


class OpenVinoSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    half:
        Whether weights are held in fp16, half the file; they are widened at load and computed with in fp32.
    """

    half: bool = True


class ConvertOpenVino:
    """An ONNX graph as OpenVINO's IR."""

    name: ClassVar[str] = "openvino"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 2
    summary: ClassVar[str] = "OpenVINO's IR, its weights in fp16: half the file, computed with in fp32"
    toolchain: ClassVar[str | None] = "openvino"
    makes: ClassVar[Form] = "openvino"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return fp16 alone: fp32 takes twice the disk, and computes the same as fast."""
        require_accepted(self.refuses(artifact), self.name)
        return [plain(OpenVinoSettings())]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Convert; takes seconds."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(OpenVinoSettings, settings, self.name)
        request = {
            "model": str(artifact.path.absolute()), "target": str(target.absolute() / FILES[0]), "half": told.half
        }  # fmt: skip
        ask_converter(self.name, "openvino", SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, FILES, form="openvino")
