"""Techniques on models that take arrays: a network of convolutions, and a small ViT."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from skerry.build.artifact import Artifact
from skerry.build.progress import Progress
from skerry.build.technique import Workbench, techniques
from skerry.spec.errors import SpecError
from tests.build.tensor_models import answers, pixels, write_cnn, write_vit

WORKBENCH = Workbench(texts=(), samples=tuple({"pixels": one} for one in pixels(24)), progress=Progress(None))


@pytest.fixture(scope="module", params=["cnn", "vit"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    write_cnn(path) if request.param == "cnn" else write_vit(path)
    return Artifact(
        form="onnx", folder=path.parent, file=path.name, files=(path.name,), source="sha256:0", task="tensors"
    )


@pytest.mark.parametrize("name", ["onnx-convolutions", "onnx-dynamic", "onnx-fp16", "onnx-static", "onnx-weight-only"])
def test_a_made_form_answers_nearly_as_the_original(artifact: Artifact, name: str, tmp_path: Path) -> None:
    technique = techniques()[name]()
    assert technique.refuses(artifact) == ""
    settings = technique.candidates(artifact, WORKBENCH)[0]
    assert technique.candidates(artifact, WORKBENCH)[0] == settings
    made = technique.apply(artifact, settings, WORKBENCH, tmp_path)
    assert (made.task, made.tokenizer) == ("tensors", None)
    assert [path.name for path in tmp_path.iterdir()] == list(made.files)
    images = pixels(20, seed=5)
    before, after = answers(artifact.path, images), answers(made.path, images)
    cosines = (before * after).sum(axis=1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert cosines.mean() > 0.97
    assert not np.array_equal(before, after)


def test_convolutions_are_those_of_models_of_tensors(artifact: Artifact, tmp_path: Path) -> None:
    technique = techniques()["onnx-convolutions"]()
    assert "takes text" in technique.refuses(msgspec.structs.replace(artifact, task="embedding"))
    empty = Workbench(texts=(), progress=Progress(None))
    with pytest.raises(SpecError, match="there is no row of arrays"):
        technique.apply(artifact, {}, empty, tmp_path)
