"""The protocol: an answer that needs no model, by the connection of ``skerry serve`` and by uvicorn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.engine_rows.server import READY_S, ServerMissingError, free_port
from bench.environments import ROOT, clean_variables
from bench.measuring import Samples, interleaved
from bench.report import Report
from bench.serve_rows import tiny
from bench.serve_rows.load import Wire, together

REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WIRES = 8
OURS, UVICORN = "skerry serve", "uvicorn"


def add_rows(report: Report, *, quick: bool) -> None:
    """Start both, let them answer in turns, and add the rows; informative, without a bound."""
    count = 5_000 if quick else 20_000  # processor time is counted in steps of 10 ms
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="skerry-bench-")))
        model = tiny.write_model(folder / "tiny.onnx")
        commands = {
            OURS: ["-m", "skerry", "serve", str(model), "--quiet", "--port", "{port}"],
            UVICORN: ["-m", "bench.serve_rows.plain_uvicorn", "{port}"],
        }
        try:
            servers = {name: stack.enter_context(_serving(command)) for name, command in commands.items()}
        except ServerMissingError as error:
            report.missing(
                "an answer without a model: skerry serve vs uvicorn and a bare ASGI function", "×", str(error)
            )
            return
        cpu: dict[str, list[float]] = {name: [] for name in servers}
        rates = interleaved(
            {name: partial(_measured, server, count, cpu[name]) for name, server in servers.items()},
            repeats=5 if quick else 15,
        )
    report.add(
        f"answers per second without a model, {WIRES} at once: skerry serve vs uvicorn with httptools",
        rates[OURS].over(rates[UVICORN]), "×", peers={"skerry": rates[OURS], "uvicorn": rates[UVICORN]},
    )  # fmt: skip
    taken = {name: Samples(tuple(values[1:])) for name, values in cpu.items()}
    report.add(
        "processor time of an answer without a model: skerry serve vs uvicorn with httptools",
        taken[OURS].over(taken[UVICORN]), "×",
        peers={"skerry µs": taken[OURS].scaled(1e6), "uvicorn µs": taken[UVICORN].scaled(1e6)},
    )  # fmt: skip


class _Server:
    def __init__(self, process_id: int, port: int) -> None:
        self.process_id = process_id
        self.wires = [Wire(port) for _ in range(WIRES)]


@contextmanager
def _serving(command: list[str]) -> Iterator[_Server]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, *(part.format(port=port) for part in command)],
        cwd=ROOT,
        env=clean_variables() | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))},
        stdin=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + READY_S
        while True:
            try:
                server = _Server(process.pid, port)
                break
            except OSError as error:
                if time.monotonic() > ends or process.poll() is not None:
                    raise ServerMissingError(f"{command[1]} did not come up: {error}") from error
                time.sleep(0.05)
        yield server
        for wire in server.wires:
            wire.close()
    finally:
        process.terminate()
        process.wait(READY_S)


def _measured(server: _Server, count: int, cpu: list[float]) -> float:
    """Return answers per second, and note the processor time of one."""
    import psutil

    process = psutil.Process(server.process_id)
    before = process.cpu_times()
    load = together(server.wires, [REQUEST] * count)
    after = process.cpu_times()
    cpu.append((after.user + after.system - before.user - before.system) / count)
    return load.per_second
