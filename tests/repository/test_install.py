"""The installation: which torch it asks for, and what it says when it cannot go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.install import CONSTRAINTS, InstallError, environment, install_torch, pinned

ROOT = Path(__file__).parents[2]
VERSION = "2.13.0"


def recording_python(folder: Path, script: str) -> Path:
    """Return a program that notes how it was called, line by line, in ``calls`` beside it and then runs ``script``."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\necho "$*" >> "{folder}/calls"\n{script}\n')
    program.chmod(0o755)
    return program


def calls(folder: Path) -> list[str]:
    """Return how the program was called to install something."""
    return [line for line in (folder / "calls").read_text().splitlines() if " pip install " in line]


def test_the_cpu_build_is_taken_where_it_is_on_offer(tmp_path: Path) -> None:
    install_torch(recording_python(tmp_path, "exit 0"), VERSION, "")
    assert [line.rpartition(" ")[2] for line in calls(tmp_path)] == [f"torch=={VERSION}+cpu"]


def test_else_the_plain_one_is_taken_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_torch(recording_python(tmp_path, 'case "$*" in *+cpu) exit 1;; esac'), VERSION, "")
    assert [line.rpartition(" ")[2] for line in calls(tmp_path)] == [f"torch=={VERSION}+cpu", f"torch=={VERSION}"]
    assert "TORCH_INDEX" in capsys.readouterr().out


def test_an_index_of_cpu_builds_is_one_more(tmp_path: Path) -> None:
    install_torch(recording_python(tmp_path, "exit 0"), VERSION, "https://example.org/cpu")
    assert "--extra-index-url https://example.org/cpu" in calls(tmp_path)[0]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    install_torch(recording_python(tmp_path, f"echo {VERSION}"), VERSION, "")
    assert not calls(tmp_path)


def test_an_install_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="this step failed"):
        install_torch(recording_python(tmp_path, "exit 1"), VERSION, "")


def test_everything_is_installed_under_the_constraints(tmp_path: Path) -> None:
    install_torch(recording_python(tmp_path, "exit 0"), VERSION, "")
    assert f"--constraint {CONSTRAINTS}" in calls(tmp_path)[0]
    assert pinned("torch") == VERSION
    with pytest.raises(InstallError, match="not pinned"):
        pinned("no-such-package")


def test_a_broken_environment_is_made_again_and_one_that_fits_is_kept(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "venv" / "bin" / "python").chmod(0o755)
    python = environment(tmp_path / "venv")
    assert subprocess.run([python, "-c", "import pip"], check=False).returncode == 0
    trace = tmp_path / "venv" / "trace"
    trace.touch()
    assert environment(tmp_path / "venv") == python and trace.exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed: make system-deps")
@pytest.mark.parametrize("old", ['#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n', None])
def test_a_python_that_is_too_old_or_missing_is_named(tmp_path: Path, old: str | None) -> None:
    program = tmp_path / "python3.9"
    if old is not None:
        program.write_text(old)
        program.chmod(0o755)
    command = ["make", "-C", str(ROOT), f"PYTHON={program}", f"VENV={tmp_path / 'venv'}", "test"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"MAKEFLAGS": ""})
    assert done.returncode and not (tmp_path / "venv").exists()
    assert "Python 3.11 or newer is needed" in done.stderr and str(program) in done.stderr
    assert ("Python 3.9.2" if old else "missing") in done.stderr
