"""The real command line, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Skerry = Callable[..., "subprocess.CompletedProcess[str]"]
TIMEOUT_S = 60


def command(*words: str | Path) -> list[str]:
    """Return the command line of ``skerry`` with this interpreter."""
    return [sys.executable, "-m", "skerry", *map(str, words)]


@pytest.fixture
def skerry(tmp_path: Path) -> Skerry:
    """Run ``skerry`` with some words in an empty folder and return what came of it."""

    def run(*words: str | Path, cwd: Path = tmp_path, environment: Mapping[str, str] | None = None) -> object:
        return subprocess.run(
            command(*words), cwd=cwd, env={**os.environ, "COLUMNS": "100", **(environment or {})},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[[str], Path]:
    """Write a pipeline file and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
