"""The options of ``skerry build``: those that would be ignored are refused, and what is wrong is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.cli.main import main
from skerry.spec.errors import UsageError

PIPELINE = "skerry: 1\nname: p\nsource: memory:?count=1\nsinks: ['memory:']\nmodels: {m: {from: nowhere}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    monkeypatch.setenv("SKERRY_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("words", [["--device", "raspberry-pi-5"], ["--calibrate"], ["--prune"], ["--threads", "1,2"],
                                   ["--seed", "0"]])  # fmt: skip
def test_an_option_of_a_search_needs_one(words: list[str], project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(project), *words]) == UsageError.exit_code
    assert f"{words[0]} needs a search" in capsys.readouterr().err


def test_a_search_keeps_no_form_for_its_own_sake(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(project), "--time", "3s", "--keep-fp32"]) == UsageError.exit_code
    assert "--keep-fp32" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "x"])
def test_a_seed_is_a_whole_number_that_all_take(seed: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(project), "--time", "3s", "--seed", seed]) == UsageError.exit_code
    assert f"'{seed}' is not a whole number of 0 to 4294967295" in capsys.readouterr().err


def test_a_wrong_device_is_told_before_minutes_of_calibration(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(project), "--time", "3s", "--calibrate", "--device", "raspbery-pi-5"]) == 70
    said = capsys.readouterr().err
    assert "raspberry-pi-5" in said
    assert "encoder" not in said
    assert not (project / "cache").exists()


def test_more_threads_than_cores_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(project), "--time", "3s", "--threads", "9999"]) == UsageError.exit_code
    assert "--threads 9999: this machine has" in capsys.readouterr().err
    assert not (project / "cache").exists()


def test_thread_counts_beyond_the_cores_are_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(project), "--time", "3s", "--threads", "1,9999"]) != UsageError.exit_code
    assert "without 9999 threads: this machine has" in capsys.readouterr().err
