"""A student that the pipeline names: another architecture in the given model's place, taught by it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from skerry.build.artifact import Artifact
from skerry.build.importing import artifact_of, find_origin
from skerry.build.progress import Progress
from skerry.build.teacher import teaching
from skerry.build.technique import Workbench
from skerry.build.techniques.distill import Distill, DistillSettings
from skerry.build.techniques.export_onnx import ExportOnnx
from skerry.build.techniques.settings import plain
from skerry.build.techniques.student import Student
from skerry.spec.errors import ModelKindError, ModelMissingError
from skerry.spec.pipeline import Model
from tests.build.conftest import write_model

from .conftest import LINES


def given(folder: Path) -> Artifact:
    model = msgspec.convert({"from": str(folder)}, Model)
    return artifact_of(find_origin(model, folder.parent), model)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Workbench]:
    folder = tmp_path_factory.mktemp("models")
    teacher = given(write_model(folder / "teacher", num_hidden_layers=3))
    students = {"student": given(write_model(folder / "student", "distilbert"))}
    return teacher, Workbench(texts=tuple(LINES), progress=Progress(None), teacher=teacher, students=students)


def test_a_student_is_taught_and_runs(bench: tuple[Artifact, Workbench], tmp_path: Path) -> None:
    teacher, workbench = bench
    folders = [tmp_path / name for name in ("given", "student", "taught", "exported")]
    for folder in folders:
        folder.mkdir()
    exported = ExportOnnx().apply(teacher, {}, workbench, folders[0])
    [settings] = Student().candidates(teacher, workbench)
    student = Student().apply(teacher, settings, workbench, folders[1])
    with teaching(exported) as embed:
        assert embed is not None
        taught_by = msgspec.structs.replace(workbench, embed=embed)
        how = plain(DistillSettings(steps=60, further=0, check_every=20, embedding="learned"))
        taught = Distill().apply(student, how, taught_by, folders[2])
        wanted = embed(LINES)
    cosine = []
    for artifact in (student, taught):
        folder = tmp_path / f"of-{artifact.folder.name}"
        folder.mkdir()
        with teaching(ExportOnnx().apply(artifact, {}, workbench, folder)) as answer:
            assert answer is not None
            cosine.append(float(np.mean(np.sum(answer(LINES) * wanted, axis=1))))
    assert cosine[1] > cosine[0] + 0.05
    assert [step.technique for step in taught.steps] == ["student", "distill"]


def test_one_that_the_pipeline_does_not_name_is_refused(bench: tuple[Artifact, Workbench], tmp_path: Path) -> None:
    teacher, workbench = bench
    with pytest.raises(ModelKindError, match="not among those"):
        Student().apply(teacher, {"source": "student", "digest": "sha256:0"}, workbench, tmp_path)
    assert Student().candidates(teacher, msgspec.structs.replace(workbench, students={})) == []


def test_a_student_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError):
        given(tmp_path / "nowhere")
