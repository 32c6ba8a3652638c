"""``export-onnx``: a transformer's weights as an ONNX graph, checked against PyTorch before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from skerry.build.artifact import Artifact
from skerry.build.export import export_transformer
from skerry.build.importing import Origin
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.settings import Settings, forged, read_settings, require_accepted

FILE = "model.onnx"


class ExportOnnx:
    """A transformer as an ONNX graph in fp32 with dynamic axes (:mod:`skerry.build.export`)."""

    name: ClassVar[str] = "export-onnx"
    kind: ClassVar[Kind] = "convert"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "an ONNX graph in fp32 of any number of texts and tokens"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return "" if artifact.form == "transformer" else f"it takes a transformer's folder, and this is {artifact.form}"

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return the one way there is."""
        return [{}]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the graph."""
        require_accepted(self.refuses(artifact), self.name)
        read_settings(Settings, settings, self.name)
        export_transformer(_origin(artifact), artifact.task, target / FILE)
        return forged(artifact, self, settings, target, (FILE,), form="onnx")


def _origin(artifact: Artifact) -> Origin:
    """Return the artifact as the exporter knows models."""
    return Origin(
        source=str(artifact.folder), kind="transformer", path=artifact.folder, part=artifact.part,
        files=tuple(artifact.folder / name for name in artifact.files), digest=artifact.source,
        tokenizer=artifact.tokenizer, max_tokens=artifact.max_tokens, pooling=artifact.pooling,
        normalize=artifact.normalize,
    )  # fmt: skip
