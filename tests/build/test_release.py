"""The release folder of variants that have more than one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.build.release import write_release
from skerry.run.digest import file_digest
from skerry.run.encoder import load_encoder
from skerry.spec.errors import ModelCorruptError, ModelMissingError
from skerry.spec.manifest import Manifest, ModelManifest, Variant


def manifest(source: Path, release: str) -> Manifest:
    graph, weights = (source / name for name in ("graph.xml", "graph.bin"))
    variant = Variant(
        name="best", runtime="openvino", file="models/m/best.xml", digest=file_digest(graph),
        beside={"models/m/best.bin": file_digest(weights)},
    )  # fmt: skip
    model = ModelManifest(source="x", task="embedding", variants=(variant,))
    return Manifest(name="x", release=release, models={"m": model})


def write(source: Path, folder: Path, release: str = "1") -> bool:
    files = {"models/m/best.xml": source / "graph.xml", "models/m/best.bin": source / "graph.bin"}
    return write_release(folder, manifest(source, release), b"{}", files)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "graph.xml").write_text("<net/>")
    (tmp_path / "graph.bin").write_bytes(b"weights")
    return tmp_path


def test_weights_beside_a_graph_stay_when_the_next_release_is_written(source: Path) -> None:
    folder = source / "release"
    assert write(source, folder)
    assert write(source, folder, "2")
    assert write(source, folder, "3")
    assert (folder / "models/m/best.bin").read_bytes() == b"weights"


def test_weights_that_were_lost_or_damaged_are_written_again(source: Path) -> None:
    folder = source / "release"
    write(source, folder)
    assert not write(source, folder)
    (folder / "models/m/best.bin").write_bytes(b"w")
    assert write(source, folder)
    (folder / "models/m/best.bin").unlink()
    assert write(source, folder)
    assert (folder / "models/m/best.bin").read_bytes() == b"weights"


def test_weights_beside_a_graph_are_checked_when_it_is_loaded(source: Path) -> None:
    folder = source / "release"
    write(source, folder)
    model = manifest(source, "1").models["m"]
    (folder / "models/m/best.bin").write_bytes(b"forged!")
    with pytest.raises(ModelCorruptError, match="not what was built"):
        load_encoder(folder, model, model.variants[0])
    (folder / "models/m/best.bin").unlink()
    with pytest.raises(ModelMissingError):
        load_encoder(folder, model, model.variants[0])
