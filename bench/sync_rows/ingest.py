"""Ingest: how many records a second one hub takes, into SQLite and PostgreSQL, over real sockets and durable."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.measuring import Samples, percentile
from bench.report import Report, table
from bench.traces import BOOT, read_records
from skerry.spec.errors import HubError
from skerry.testing.broker import free_port
from skerry.testing.postgresql import binaries, running_cluster
from skerry.trust.keys import KeySigner, new_key
from skerry.wire.batch import Header, encode
from skerry.wire.receipt import decode_receipt
from skerry.wire.record import WireRecord

SIZE = 100
"""Records of a batch."""
DEVICES = 8
"""Devices that send at once, each with one batch on its way."""
MUST = ">= 3000"
"""Records for each second of processor time of the hub: a fleet of 3,000 devices that report every second."""


def add_rows(report: Report, *, quick: bool = False) -> None:
    """Measure both stores in turns and add the rows."""
    rounds, batches = (2, 20) if quick else (7, 60)
    trace = read_records("telemetry")
    figures: dict[str, Figures] = {}
    with contextlib.ExitStack() as stack:
        urls = {"SQLite": ""}
        if binaries() is None:
            report.missing("records/s that one hub takes into PostgreSQL", "1/s", "PostgreSQL is not installed")
        else:
            urls["PostgreSQL"] = stack.enter_context(running_cluster()).url
        hubs = {name: stack.enter_context(running_hub(url)) for name, url in urls.items()}
        for number in range(rounds):
            for name, (port, process) in hubs.items():
                figures.setdefault(name, Figures()).add(*measure(port, process, trace, number, batches))
    for name, found in figures.items():
        _add(report, name, found)


class Figures:
    """What was measured of one store, a value for each round."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.waits_ms: list[float] = []

    def add(self, wall: float, cpu: float, waits_ms: list[float]) -> None:
        """Add a round: records per second of the clock and of the hub's processor time, and waits for receipts."""
        self.wall.append(wall)
        self.cpu.append(cpu)
        self.waits_ms += waits_ms


def _add(report: Report, name: str, found: Figures) -> None:
    words = f"records/s that one hub takes into {name}, in signed batches of {SIZE} from {DEVICES} devices"
    report.add(f"{words}, per second of its processor time", Samples(tuple(found.cpu)), "1/s", must=MUST)
    report.add(f"{words}, by the clock", Samples(tuple(found.wall)), "1/s")
    report.add(f"wait for a durable receipt at that load, {name}, p50", percentile(found.waits_ms, 50), "ms")
    report.add(f"wait for a durable receipt at that load, {name}, p99", percentile(found.waits_ms, 99), "ms")


@contextlib.contextmanager
def running_hub(database: str) -> Iterator[tuple[int, int]]:
    """Yield the port and the process id of a hub in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, "-m", "skerry", "hub", "--listen", f"127.0.0.1:{port}", "--data", folder]
        command += ["--database", database] if database else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith(b"hub: "):
                raise HubError("the hub did not start")
            yield port, process.pid
        finally:
            process.terminate()
            process.communicate()


def measure(
    port: int, process: int, trace: Sequence[WireRecord], round_number: int, batches: int
) -> tuple[float, float, list[float]]:
    """Send batches of every device; return records/s by the clock and by the hub's CPU, and each wait in ms."""
    import psutil

    hub = psutil.Process(process)
    ready = [packed(f"bench-{round_number}-{device}", trace, batches) for device in range(DEVICES)]
    waits_ms: list[float] = []
    threads = [threading.Thread(target=send, args=(port, each, waits_ms)) for each in ready]
    before, begin = hub.cpu_times(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s, after = time.perf_counter() - begin, hub.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    count = DEVICES * batches * SIZE
    if len(waits_ms) * SIZE != count:
        raise HubError(f"{count - len(waits_ms) * SIZE} records were not acknowledged")
    return count / wall_s, count / cpu_s, waits_ms


def packed(device: str, trace: Sequence[WireRecord], batches: int) -> list[bytes]:
    """Return batches of a device, signed with a key of its own, of as much of the trace as they take."""
    signer, made = KeySigner(new_key()), []
    for number in range(batches):
        records = [
            msgspec.structs.replace(trace[(number * SIZE + place) % len(trace)], seq=number * SIZE + place + 1)
            for place in range(SIZE)
        ]
        header = Header(
            device=device, epoch="9f3c2a7be1d04856", boot=BOOT, sent_mono_us=records[-1].mono_us, sent_wall_ms=0,
            synced=False,
        )  # fmt: skip
        made.append(encode(header, records, signer))
    return made


def send(port: int, batches: Sequence[bytes], waits_ms: list[float]) -> None:
    """Send batches one after the other, and note how long each receipt took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for batch in batches:
        begin = time.perf_counter()
        connection.request("POST", "/v1/batches", batch)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status == 200 and decode_receipt(body).committed:
            waits_ms.append((time.perf_counter() - begin) * 1000)
    connection.close()


def main() -> int:
    """Measure and print."""
    report = Report("ingest", packages=("apsw", "psycopg", "litestar", "uvicorn"))
    add_rows(report, quick="--quick" in sys.argv)
    print(table(report.rows))
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
