"""``export-onnx``: a model as an ONNX graph, checked against what it was made from before it is used.

Weights are exported here (:mod:`skerry.build.export`). TensorFlow's models and PyTorch's programs are converted in a
toolchain, which is made where it is missing: there is no other way to take them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from skerry.build import export, toolchain
from skerry.build.artifact import Artifact, Form
from skerry.build.importing import Origin
from skerry.build.parity import read_cases, require_same
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import FILE
from skerry.build.techniques.settings import Settings, forged, read_settings, require_accepted

CONVERTERS: dict[Form, tuple[str, str]] = {
    "saved-model": ("tensorflow", "onnx_from_tensorflow.py"),
    "keras": ("tensorflow", "onnx_from_tensorflow.py"),
    "torch-program": ("torch", "onnx_from_program.py"),
}
"""The toolchain and the script for each form that is not exported here."""


class ExportOnnx:
    """A model as an ONNX graph in fp32 whose free axes stay free."""

    name: ClassVar[str] = "export-onnx"
    kind: ClassVar[Kind] = "convert"
    version: ClassVar[int] = export.VERSION
    summary: ClassVar[str] = "an ONNX graph in fp32 of any number of texts and tokens"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.form == "transformer" or artifact.form in CONVERTERS:
            return ""
        return f"it takes a transformer's folder, or a model of TensorFlow or torch.export, and this is {artifact.form}"

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return the one way there is."""
        return [{}]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the graph."""
        require_accepted(self.refuses(artifact), self.name)
        read_settings(Settings, settings, self.name)
        if artifact.form == "transformer":
            export.export_transformer(_origin(artifact), artifact.task, target / FILE)
        else:
            _convert(artifact, workbench, target / FILE)
        return forged(artifact, self, settings, target, (FILE,), form="onnx")


def _convert(artifact: Artifact, workbench: Workbench, target: Path) -> None:
    """Ask the converter for the form, and compare what it wrote with what the model answered there."""
    chain, script = CONVERTERS[artifact.form]
    with tempfile.TemporaryDirectory() as scratch:
        cases = Path(scratch) / "cases.npz"
        request = {
            "model": str(artifact.path.absolute()), "target": str(target.absolute()), "cases": str(cases),
            "signature": artifact.part,
        }  # fmt: skip
        (workbench.toolchain or toolchain.run)(chain, script, request)
        require_same(target, read_cases(cases))


def _origin(artifact: Artifact) -> Origin:
    """Return the artifact as the exporter knows models."""
    return Origin(
        source=str(artifact.folder), kind="transformer", path=artifact.folder, part=artifact.part,
        files=tuple(artifact.folder / name for name in artifact.files), digest=artifact.source,
        tokenizer=artifact.tokenizer, max_tokens=artifact.max_tokens, pooling=artifact.pooling,
        normalize=artifact.normalize,
    )  # fmt: skip
