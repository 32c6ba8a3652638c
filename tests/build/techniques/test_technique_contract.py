"""Every technique that needs no toolchain keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.build.artifact import Artifact
from skerry.build.technique import Workbench, techniques
from skerry.testing.techniques import (
    CHECKS,
    ContractError,
    Specimen,
    it_makes_a_sound_model,
    refusing_is_pure,
    the_first_candidate_works,
    vectors,
)

Check = Callable[[Specimen], None]
SETTINGS: dict[str, dict[str, Any]] = {
    "distill": {"steps": 6, "check_every": 3, "batch": 128, "patience": 2, "further": 0, "compute": "fp32"}
}
FROM_WEIGHTS = {"export-onnx", "prune-layers", "prune-ffn", "trim-vocabulary", "distill", "student"}
ELSEWHERE = {"convert-tensorrt", "onnx-convolutions", "prune-sparse"}
"""What test_more_techniques.py and the tests of TensorRT hold to the contract."""
OWN = {
    "distill", "export-onnx", "onnx-dynamic", "onnx-fp16", "onnx-static", "onnx-weight-only", "prune-ffn",
    "prune-heads", "prune-layers", "student", "trim-vocabulary",
}  # fmt: skip


def specimen_of(name: str, transformer: Artifact, exported: Artifact, workbench: Workbench, folder: Path) -> Specimen:
    from_weights = name in FROM_WEIGHTS
    refused = exported if from_weights else transformer
    if name == "trim-vocabulary":
        refused = msgspec.structs.replace(exported, form="litert")
    if name == "student":  # of another source than its teacher, with the same weights
        other = msgspec.structs.replace(transformer, source="sha256:student")
        workbench = msgspec.structs.replace(workbench, students={"models/student": other})
    return Specimen(
        technique=techniques()[name], artifact=transformer if from_weights else exported, refused=refused,
        workbench=workbench, folder=folder, settings=SETTINGS.get(name, {}),
    )  # fmt: skip


def test_every_technique_without_a_toolchain_is_tried() -> None:
    assert {name for name, kind in techniques().items() if kind.toolchain is None} == OWN | ELSEWHERE


@pytest.mark.parametrize("name", sorted(OWN))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(
    name: str, check: Check, transformer: Artifact, exported: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    check(specimen_of(name, transformer, exported, workbench, tmp_path))


def test_a_vocabulary_is_trimmed_in_a_graph_too(exported: Artifact, workbench: Workbench, tmp_path: Path) -> None:
    specimen = Specimen(
        technique=techniques()["trim-vocabulary"], artifact=exported, refused=exported, workbench=workbench,
        folder=tmp_path, settings={"common": 0},
    )  # fmt: skip
    it_makes_a_sound_model(specimen)


@pytest.mark.parametrize("name", sorted(FROM_WEIGHTS))
@pytest.mark.parametrize("check", [it_makes_a_sound_model, the_first_candidate_works], ids=lambda check: check.__name__)
def test_classifiers_are_taken_too(
    name: str, check: Check, classifier: Artifact, exported: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    taught = msgspec.structs.replace(workbench, embed=lambda texts: vectors(classifier, list(texts)))
    check(specimen_of(name, classifier, exported, taught, tmp_path))


class Careless:
    """A technique that breaks promises, to see that the suite tells."""

    name, kind, version, summary, toolchain = "careless", "quantize", 1, "breaks promises", None

    def refuses(self, artifact: Artifact) -> str:
        return "" if artifact.path.exists() else "there is no file"

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        return []

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        return artifact


def test_the_suite_tells_broken_promises(
    transformer: Artifact, exported: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    specimen = Specimen(
        technique=Careless, artifact=exported, refused=transformer, workbench=workbench, folder=tmp_path
    )
    with pytest.raises(ContractError, match="looks at files"):
        refusing_is_pure(specimen)
    with pytest.raises(ContractError, match="target"):
        it_makes_a_sound_model(specimen)
