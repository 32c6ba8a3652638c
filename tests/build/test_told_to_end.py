"""A build that is told to end, by SIGTERM or in the midst of a calibration, ends as it does with Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from skerry.build.cache import Cache
from skerry.build.latency.calibration import calibrated
from tests.build.test_searching_stopped import made_by, project

__all__ = ["project"]  # a fixture

TIMEOUT_S = 120


class Told:
    """A process of ours that is told to end, and what it leaves."""

    def __init__(self, command: list[str], folder: Path, **variables: str) -> None:
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        environment = {**os.environ, "TMPDIR": str(self.scratch), "SKERRY_CACHE": str(folder / "cache"), **variables}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def children(self) -> list[psutil.Process]:
        """Return all that it has started and that still runs."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def commands(self) -> list[str]:
        """Return what these were started with; of one that has ended since, nothing."""
        found = []
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(" ".join(child.cmdline()))
        return found

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, as long as the process runs."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.process.poll() is None, self.process.communicate()

    def end(self, *numbers: signal.Signals) -> str:
        """Send signals, and return what it said; no process and no temporary file is left of it."""
        children = self.children()
        for number in numbers:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        assert not list(self.scratch.iterdir())
        assert "Traceback" not in said
        return said


Start = Callable[..., Told]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Start]:
    """Start processes that do not outlive the test."""
    started: list[Told] = []

    def start(command: list[str], **variables: str) -> Told:
        started.append(Told(command, tmp_path, **variables))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def build(project: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "skerry", "build", str(project), "--time", "8s", *words]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_search_ends_and_keeps_what_was_finished(number: signal.Signals, project: Path, told: Start) -> None:
    cache = project / "cache"
    search = told(build(project))
    search.wait_for(lambda: len(made_by(cache)) > 4 and search.children())
    said = search.end(number, number)  # twice, as `timeout` sends it
    assert search.process.returncode == 128 + number
    assert said.endswith("skerry: interrupted; what was finished is in the cache, and is not done again\n")
    assert not (project / ".skerry").exists()
    assert not list((cache / "work").iterdir())
    assert len(made_by(cache)) > 4


def test_a_calibration_that_is_interrupted_is_not_taken_for_whole(project: Path, told: Start, tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxruntime"):
        pytest.importorskip(package)
    its_own = str(tmp_path / "inductor")  # a folder that PyTorch makes when it is imported, and keeps
    search = told(build(project, "--calibrate"), TORCHINDUCTOR_CACHE_DIR=its_own)
    search.wait_for(lambda: any("trial_child" in words for words in search.commands()))
    said = search.end(signal.SIGINT)
    assert search.process.returncode == 130
    assert "measure the narrow encoder" in said
    assert not list((project / "cache" / "work").iterdir())
    assert calibrated(Cache(project / "cache")) is None


def test_an_install_of_a_toolchain_leaves_nothing(tmp_path: Path, told: Start) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from skerry.build import toolchain as t; from skerry.cli.main import main\n"
        "t.PINS = Path(sys.argv[1]); t.SPARE_BYTES = 0\n"
        "t.TOOLCHAINS['tiny'] = t.Toolchain(purpose='', packages=(), modules=(), size_bytes=0)\n"
        "sys.exit(main(['toolchain', 'install', 'tiny']))"
    )
    (tmp_path / "tiny.txt").write_text("tiny_tool==1.0\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an index that takes connections and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        command = [sys.executable, "-c", code, str(tmp_path)]
        install = told(command, PIP_INDEX_URL=address, PIP_CONFIG_FILE=os.devnull)
        silent.settimeout(TIMEOUT_S)
        connection, _ = silent.accept()  # pip is at work
        with connection:
            install.end(signal.SIGTERM)
    assert install.process.returncode == 143
    assert not list((tmp_path / "cache" / "toolchains").glob("tiny-*"))


def test_a_converter_ends_with_the_build_and_so_does_what_it_started(told: Start) -> None:
    code = (
        "import os; from skerry.build.following import follow; from skerry.cli.signals import ending_like_ctrl_c\n"
        "try:\n"
        "    with ending_like_ctrl_c():\n"
        "        command = ['/bin/sh', '-c', 'sleep 600 & sleep 600']\n"
        "        follow(command, on_line=print, variables=os.environ, time_limit_s=600)\n"
        "except KeyboardInterrupt as error:\n"
        "    raise SystemExit(error.exit_code)\n"
    )
    build = told([sys.executable, "-c", code])
    build.wait_for(lambda: len(build.children()) == 3)
    build.end(signal.SIGTERM)
    assert build.process.returncode == 143
