"""The real command line in processes of its own, in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .parts import Outcome, Started

Skerry = Callable[..., Outcome]
Start = Callable[..., Started]
Write = Callable[[str], Path]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``skerry`` without waiting for it; whatever is left at the end of the test is killed."""
    started: list[Started] = []

    def run(*words: str | Path, **settings: Any) -> Started:
        started.append(Started(words, settings.pop("folder", tmp_path), **settings))
        return started[-1]

    yield run
    for process in started:
        process.kill()


@pytest.fixture
def skerry(start: Start) -> Skerry:
    """Run ``skerry`` to its end and return what came of it."""

    def run(*words: str | Path, **settings: Any) -> Outcome:
        return start(*words, **settings).end()

    return run


@pytest.fixture
def pipeline(tmp_path: Path) -> Write:
    """Write the pipeline file of a project in the test's folder; the first line is there already."""

    def write(text: str) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_text(f"skerry: 1\n{text}", encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return what mounts a disk of a size such as ``64k``; skips where this may not be done."""
    with ExitStack() as mounted:

        def mount(size: str, folder: Path | None = None) -> Path:
            disk = folder or tmp_path / "disk"
            disk.mkdir(exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
            if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
                pytest.skip("a full disk needs the right to mount a tiny tmpfs (root)")
            mounted.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
            return disk

        yield mount
