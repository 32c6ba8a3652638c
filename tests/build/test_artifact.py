"""An artifact: what a cache notes of it gives it again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from skerry.build.artifact import Artifact, Step


def test_what_is_noted_of_an_artifact_gives_it_again(tmp_path: Path) -> None:
    given = Artifact(
        form="transformer", folder=tmp_path / "given", file="config.json", files=("config.json",), source="sha256:0",
        tokenizer=tmp_path / "given" / "tokenizer.json",
    )  # fmt: skip
    planned = msgspec.structs.replace(given, steps=(Step(technique="convert", version=1),))
    made = msgspec.structs.replace(
        planned, form="litert", folder=tmp_path / "made", file="model.tflite", files=("model.tflite",), pooling="none",
        normalize=False, max_tokens=32, dimension=8,
    )  # fmt: skip
    noted = msgspec.json.decode(msgspec.json.encode(made.noted()))
    assert planned.found(tmp_path / "made", noted) == made

    trimmed = msgspec.structs.replace(made, tokenizer=tmp_path / "made" / "tokenizer.json")
    assert planned.found(tmp_path / "made", trimmed.noted()) == trimmed
