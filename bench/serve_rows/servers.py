"""Servers: ours and the peers', each in a process of its own, with the same model behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.engine_rows.server import READY_S, ServerMissingError, end, free_port
from bench.environments import ROOT, SILENT, Environment, clean_variables
from bench.serve_rows.load import Wire, post

SKERRY, LITSERVE, BENTOML = "skerry", "litserve", "bentoml"
PEERS = {LITSERVE: "LitServe", BENTOML: "BentoML"}


class Subject(NamedTuple):
    """A model that all serve: how each server is started, and what it is asked."""

    name: str
    folder: Path
    """What ``skerry serve`` takes."""
    variables: dict[str, str]
    """What the peers' servers read: the files of the model."""
    modules: dict[str, str]
    """The peers' servers."""
    path: str
    """Where ``skerry serve`` answers; the peers do at ``/predict``."""
    ours: Callable[[object], object]
    """Makes the body of a request out of an item, for ``skerry serve``."""
    theirs: Callable[[object], object]
    items: Sequence[object]

    def requests(self, server: str) -> list[bytes]:
        """Return every request to a server, ready to be sent."""
        if server == SKERRY:
            return [post(self.path, json.dumps(self.ours(item)).encode()) for item in self.items]
        return [post("/predict", json.dumps(self.theirs(item)).encode()) for item in self.items]


class Running(NamedTuple):
    """A server that answers."""

    port: int
    process_id: int
    ready_s: float
    """From the start of its process to its first answer."""


@contextmanager
def running(server: str, subject: Subject, environment: Environment | None) -> Iterator[Running]:
    """Run a server while the block lasts; raises ``ServerMissingError`` when it does not come up."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as folder:
        said = Path(folder) / "said.txt"
        variables = clean_variables() | SILENT | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
        variables |= {**subject.variables, "BENTOML_HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        begin = time.perf_counter()
        with said.open("wb") as output:
            process = subprocess.Popen(
                _command(server, subject, environment, port), cwd=ROOT, env=variables, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            _await_answer(process, port, subject.requests(server)[0], said)
            yield Running(port, process.pid, time.perf_counter() - begin)
        finally:
            end(process)


def _command(server: str, subject: Subject, environment: Environment | None, port: int) -> list[str]:
    if server == SKERRY:
        return [sys.executable, "-m", "skerry", "serve", str(subject.folder), "--port", str(port), "--quiet"]
    assert environment is not None
    module = subject.modules[server]
    if server == LITSERVE:
        return [str(environment.python), "-m", module, str(port)]
    return [str(environment.python), "-m", "bentoml", "serve", module, "--host", "127.0.0.1", "--port", str(port)]


def _await_answer(process: subprocess.Popen[bytes], port: int, request: bytes, said: Path) -> None:
    ends = time.monotonic() + READY_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            wire = Wire(port)
        except OSError:
            time.sleep(0.02)
            continue
        try:
            wire.ask(request)
            return
        except (OSError, ValueError):
            time.sleep(0.1)
        finally:
            wire.close()
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    raise ServerMissingError(f"its server did not answer: {lines[-1] if lines else 'it said nothing'}")


def variables_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return environment variables that name files."""
    return {name: str(path) for name, path in files.items()}
