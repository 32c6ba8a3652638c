"""``convert-executorch``: a transformer's weights as an ExecuTorch program (``.pte``) for XNNPACK, as it is or in int8.

Lowering takes minutes, more than any other conversion here, so a search comes to it late. With ``quantize`` weights of
dense layers are rounded by torchao, and their inputs row by row as they come; tables of embeddings stay in fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.toolchained import ask_converter
from skerry.build.techniques.transformer import refuses_transformer
from skerry.spec.errors import SpecError

FILE = "model.pte"
SCRIPT = "executorch_from_torch.py"


class ExecuTorchSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    quantize:
        ``int8`` has a scale for each output channel, ``int4`` one for every 32 numbers, ``none`` is fp32.
    tokens:
        The longest text; longer ones are cut. None: what the model takes.
    """

    quantize: Literal["none", "int8", "int4"] = "int8"
    tokens: Annotated[int, msgspec.Meta(ge=2)] | None = None


class ConvertExecuTorch:
    """A transformer as an ExecuTorch program; in fp32 compared with PyTorch before it is used."""

    name: ClassVar[str] = "convert-executorch"
    kind: ClassVar[Kind] = "convert"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "an ExecuTorch program for XNNPACK, dense layers in int8 by torchao; takes minutes to make"
    toolchain: ClassVar[str | None] = "executorch"
    makes: ClassVar[Form] = "executorch"
    late: ClassVar[bool] = True
    """MiniLM took 1 to 3 minutes of a core to lower, where LiteRT takes half of one."""

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.task == "tensors" or artifact.part:
            return "it takes whole text encoders and classifiers only"
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return int8, then fp32."""
        require_accepted(self.refuses(artifact), self.name)
        return [plain(ExecuTorchSettings()), plain(ExecuTorchSettings(quantize="none"))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Quantize, export and lower; takes minutes."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(ExecuTorchSettings, settings, self.name)
        tokens = told.tokens or artifact.max_tokens
        if tokens > artifact.max_tokens:
            raise SpecError(
                f"tokens: no text has {tokens} tokens, since the model takes {artifact.max_tokens}", where=self.name,
                expected=f"2 to {artifact.max_tokens}",
            )  # fmt: skip
        request = {
            "model": str(artifact.folder.absolute()), "target": str(target.absolute() / FILE), "batch": 1,
            "tokens": tokens, "compress": told.quantize,
            "output": "logits" if artifact.task == "classification" else "last_hidden_state",
        }  # fmt: skip
        ask_converter(self.name, "executorch", SCRIPT, request, workbench)
        return forged(artifact, self, settings, target, (FILE,), form="executorch", max_tokens=tokens)
