"""Artifacts of small real models, a workbench with some texts and a teacher, and toolchains real and made up."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.build import toolchain
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


NEEDS = {
    "convert-executorch": ("executorch", "executorch"),
    "convert-litert": ("litert", "ai_edge_litert"),
    "litert-int8": ("litert", "ai_edge_litert"),
    "nncf-ptq": ("openvino", "openvino"),
    "nncf-weights": ("openvino", "openvino"),
    "openvino": ("openvino", "openvino"),
}
"""The toolchain of each technique that has one, and the package that runs what it makes."""


def require(name: str) -> None:
    """Skip where the toolchain of a technique, or the runtime of what it makes, is not installed."""
    chain, package = NEEDS[name]
    if toolchain.find(chain) is None:
        pytest.skip(f"the toolchain {chain} is not installed: skerry toolchain install {chain}")
    pytest.importorskip(package, reason=f"the runtime is not installed: pip install 'skerry[{chain}]'")


class Remembered:
    """A real toolchain that does each thing once: importing its libraries takes most of the time of a conversion."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[str, tuple[Path, dict[str, Any]]] = {}

    def __call__(self, name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
        target = Path(request["target"])
        asked = json.dumps([name, script, {key: value for key, value in request.items() if key != "target"}])
        if asked not in self._answers:
            own = Path(tempfile.mkdtemp(dir=self._folder))
            self._answers[asked] = own, toolchain.run(name, script, request | {"target": str(own / target.name)})
        made, answer = self._answers[asked]
        shutil.copytree(made, target.parent, dirs_exist_ok=True)
        return answer


class StandIn:
    """Notes what is asked, and writes empty files."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, script, request))
        target = Path(request["target"])
        for path in (target, target.with_suffix(".bin")) if target.suffix == ".xml" else (target,):
            path.write_bytes(b"made")
        return {"bytes": 4, "pooled": request.get("pooling", "none") != "none"}


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


@pytest.fixture(scope="session")
def real(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return msgspec.structs.replace(workbench, toolchain=Remembered(tmp_path_factory.mktemp("remembered")))


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def fast(workbench: Workbench, stand_in: StandIn) -> Workbench:
    return msgspec.structs.replace(workbench, toolchain=stand_in)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A BERT of three layers that tells three classes apart, and whose layers do much."""
    folder = tmp_path_factory.mktemp("classifier") / "bert"
    write_model(folder, architecture="Classifier", num_hidden_layers=3, num_labels=3, initializer_range=0.3)
    return folder_artifact(folder, task="classification", pooling="none", normalize=False, dimension=3)


Family = Callable[..., Artifact]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Makes a small model of another family."""

    def make(kind: str, **changes: object) -> Artifact:
        return folder_artifact(write_model(tmp_path_factory.mktemp(kind) / kind, kind, **changes))

    return make


__all__ = ["LINES", "NEEDS", "WORDS", "Family", "Remembered", "StandIn", "folder_artifact", "require"]
