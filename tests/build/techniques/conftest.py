"""Artifacts of small real models, and a workbench with some texts and a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from skerry.build.artifact import Artifact
from skerry.build.progress import Progress
from skerry.build.technique import Workbench
from skerry.build.techniques.export_onnx import ExportOnnx
from skerry.testing.techniques import vectors

from ..conftest import WORDS, write_model

LINES = tuple(
    f"{'abcdefghijklm'[number % 13] * (1 + number % 3)} {'nopqrst'[number % 7]}{'uvwxyz'[number % 6]} word {number % 5}"
    f"{' and more' * (number % 4)}"
    for number in range(80)
)


def folder_artifact(folder: Path, **changes: object) -> Artifact:
    """Return a written model as an artifact."""
    files = tuple(sorted(path.name for path in folder.iterdir() if path.name in {"config.json", "model.safetensors"}))
    plain = Artifact(
        form="transformer", folder=folder, file="model.safetensors", files=files, source="sha256:test",
        tokenizer=folder / "tokenizer.json", max_tokens=64, dimension=32,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture(scope="session")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A BERT of three layers with a vocabulary of characters."""
    folder = tmp_path_factory.mktemp("techniques") / "bert"
    return folder_artifact(write_model(folder, num_hidden_layers=3, num_attention_heads=4))


@pytest.fixture(scope="session")
def workbench(transformer: Artifact) -> Workbench:
    """Eighty texts, and the small model itself as the teacher."""
    return Workbench(
        texts=LINES, progress=Progress(None), seed=7, embed=lambda texts: vectors(transformer, list(texts))
    )


@pytest.fixture(scope="session")
def exported(transformer: Artifact, workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """That BERT as an ONNX graph."""
    return ExportOnnx().apply(transformer, {}, workbench, tmp_path_factory.mktemp("exported"))


Family = Callable[..., Artifact]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Makes a small model of another family."""

    def make(kind: str, **changes: object) -> Artifact:
        return folder_artifact(write_model(tmp_path_factory.mktemp(kind) / kind, kind, **changes))

    return make


__all__ = ["LINES", "WORDS", "Family", "folder_artifact"]
