"""The field of bench-build with real processes: whose program is a peer's, who answers, and who fails on the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.build_rows.field import Entrant, Field
from skerry.build.artifact import Artifact

# A peer's program, as bench/peers/ctranslate2_child.py is one: it answers by the name of its file.
PROGRAM = """
import os, sys, time
import numpy as np
from skerry.build import trial_child

class Encoder:
    dimension = 4
    def __init__(self, deed):
        self.deed, self.answered = deed, 0
    def warm_up(self):
        pass
    def embed(self, texts):
        self.answered += len(texts)
        if self.deed == "crash" and self.answered > 20:
            os.abort()
        if self.deed == "slow":
            time.sleep(0.002 * len(texts))
        rows = [np.sin(np.arange(1, 5) * (1 + sum(map(ord, text)))) for text in texts]
        answer = np.stack(rows).astype("float32")
        if self.deed == "wrong":
            answer = np.abs(answer) * np.float32([1, 0, 0, 0.1])
        return np.full_like(answer, np.nan) if self.deed == "nan" else answer

def load(folder, manifest, variant):
    if variant.file == "absent.onnx":
        raise RuntimeError("there is no such model")
    return Encoder(variant.file.partition(".")[0])

trial_child.load_encoder = load
trial_child.main()
"""
TEXTS = [f"text number {number}" for number in range(30)]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "child.py"
    path.write_text(PROGRAM)
    return path


def entrant(deed: str, program: Path) -> Entrant:
    file = f"{deed}.onnx"
    (program.parent / file).write_bytes(b"12345")
    artifact = Artifact(form="onnx", folder=program.parent, file=file, files=(file,), source="s", dimension=4)
    return Entrant(deed, artifact, Path(sys.executable), program)


def test_all_answer_the_same_turns_and_are_judged_beside_one(program: Path) -> None:
    with Field([entrant(deed, program) for deed in ("fast", "slow", "wrong")]) as field:
        field.start(TEXTS)
        race = field.race(TEXTS, 5)
        quality = field.judge(TEXTS, "fast")
    assert {name: times.runs for name, times in race.wall.items()} == {"fast": 5, "slow": 5, "wrong": 5}
    assert min(race.wall["slow"].values) >= 2.0  # milliseconds for each text, not for the turn
    assert race.speed("slow", "fast").runs == 5
    assert quality["fast"]["agreement@10"].value == 1.0
    assert quality["slow"]["agreement@10"].value == 1.0
    assert quality["wrong"]["agreement@10"].value < 1.0
    assert field.size_bytes("fast") == 5
    assert field.peak_bytes["fast"] > 1_000_000
    assert field.load_ms["fast"] > 0


def test_whoever_fails_is_left_out_with_the_reason_and_the_others_go_on(program: Path) -> None:
    with Field([entrant(deed, program) for deed in ("fast", "crash", "nan", "absent")]) as field:
        field.start(TEXTS)
        assert field.names == ["fast", "crash", "nan"]
        race = field.race(TEXTS, 8)
        quality = field.judge(TEXTS, "fast")
    assert set(race.wall) == {"fast", "nan"}
    assert race.wall["fast"].runs == 8
    assert set(quality) == {"fast"}
    assert field.failed["absent"] == "error: RuntimeError: there is no such model"
    assert "SIGABRT" in field.failed["crash"]
    assert "NaN" in field.failed["nan"]


def test_an_interpreter_that_is_not_there_is_a_failure_and_no_more(program: Path) -> None:
    gone = entrant("fast", program)._replace(name="gone", python=program.parent / "no-python")
    with Field([entrant("fast", program), gone]) as field:
        field.start(TEXTS)
    assert list(field.failed) == ["gone"]
