"""``nncf-ptq``: an ONNX graph as OpenVINO's IR in int8, by NNCF's post-training quantization on the user's texts.

Inputs of layers get constant scales. The layers that lose most, found by
:mod:`skerry.build.techniques.sensitivity`, can be left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.convert_openvino import FILES
from skerry.build.techniques.graph import Graph, refuses_onnx, require_layers, require_names
from skerry.build.techniques.nncf_weights import SCRIPT
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.sensitivity import most_sensitive
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter

SPARED = (0, 2, 6)
"""How many of the most sensitive layers are left in fp32, to be tried."""


class PtqSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    texts:
        How many to calibrate on. NNCF's own default is 300.
    smooth:
        How much of the scales of inputs is moved into the weights (SmoothQuant, 2022), 0 for none.
    symmetric:
        No zero points for inputs.
    exclude:
        Names of layers of the ONNX graph that stay as they are.
    accurate:
        Correct the biases layer by layer, which takes minutes.
    """

    texts: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300
    smooth: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.95
    symmetric: bool = False
    exclude: tuple[str, ...] = ()
    accurate: bool = False


class NncfPtq:
    """OpenVINO's IR in int8, inputs included, calibrated on texts."""

    name: ClassVar[str] = "nncf-ptq"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "OpenVINO's IR in int8 by NNCF, inputs too, calibrated on the user's texts and smoothed"
    toolchain: ClassVar[str | None] = "openvino"
    makes: ClassVar[Form] = "openvino"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return (
            "it is calibrated on texts, and this model takes none"
            if artifact.task == "tensors"
            else refuses_onnx(artifact)
        )

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return growing exclusions; measures sensitivities for some 12 s. None where there is no text."""
        require_accepted(self.refuses(artifact), self.name)
        if not workbench.texts:
            return []
        names = most_sensitive(artifact, workbench)
        return [plain(PtqSettings(exclude=tuple(names[:count]))) for count in SPARED if count < len(names)]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Convert, calibrate and quantize; some 10 s, and minutes with ``accurate``."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(PtqSettings, settings, self.name)
        if told.exclude:
            require_names(told.exclude, require_layers(Graph(artifact.path)), artifact.path)
        request = {
            "model": str(artifact.path.absolute()), "target": str(target.absolute() / FILES[0]), "how": "ptq",
            "calibrate": Samples(artifact, workbench, told.texts).ids, "smooth": told.smooth,
            "symmetric": told.symmetric, "accurate": told.accurate,
            "ignore": [f"^{re.escape(name)}$" for name in told.exclude],
        }  # fmt: skip
        ask_converter(self.name, "openvino", SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, FILES, form="openvino")
