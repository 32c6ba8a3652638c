"""Durable enqueue: records per second into an outbox, over what the disk itself can sync in the same second.

``python -m bench.sync_rows.enqueue`` runs it alone. The floor is one block of 4096 bytes written into a preallocated
file and synced (``fdatasync``), over and over: no store that loses nothing can acknowledge one record sooner.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.measuring import interleaved
from bench.report import Peer, Report, table
from bench.sync_rows.slow_disk import SlowDisk
from skerry.run.outbox import Item, Outbox, OutboxOptions
from skerry.spec.units import Size

BLOCK = 4096
BLOCKS = 2048
CALLERS = 64
SLOW_S = 0.005
"""What the slow disk adds to a sync: a good card takes 2 to 20 ms."""
MUST = {"1 record per call": ">= 0.85", "100 records per call": ">= 50", f"{CALLERS} callers of 1 record": ">= 10"}
_OPTIONS = OutboxOptions(max_size=Size(4e9))


def fields() -> dict[str, Any]:
    """Return a record of telemetry: 13 fields, 220 bytes of JSON."""
    numbers = {f"sensor_{place}": 20.0 + place * 1.37 for place in range(9)}
    return {"n": 1, "host": "pump-7", "ok": True, "level": "warning", **numbers}


class Floor:
    """A preallocated file that is written to and synced block by block."""

    def __init__(self, folder: Path, delay_s: float) -> None:
        self._descriptor = os.open(folder / "floor", os.O_RDWR | os.O_CREAT)
        self._delay_s = delay_s
        os.pwrite(self._descriptor, bytes(BLOCK * BLOCKS), 0)
        os.fsync(self._descriptor)
        self._block = os.urandom(BLOCK)

    def seconds_of_one(self, syncs: int) -> float:
        """Return the mean time of one sync."""
        begin = time.perf_counter()
        for number in range(syncs):
            os.pwrite(self._descriptor, self._block, number % BLOCKS * BLOCK)
            if self._delay_s:
                time.sleep(self._delay_s)
            os.fdatasync(self._descriptor)
        return (time.perf_counter() - begin) / syncs

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


def seconds_of_one(outbox: Outbox, per_call: int, calls: int) -> float:
    """Return the time of one record when a single caller brings ``per_call`` at once."""
    items = [Item(stream="telemetry", fields=fields()) for _ in range(per_call)]
    begin = time.perf_counter()
    for _ in range(calls):
        outbox.put(items)
    taken = time.perf_counter() - begin
    _empty(outbox)
    return taken / (calls * per_call)


def seconds_of_one_of_many(outbox: Outbox, callers: int, calls: int) -> float:
    """Return the time of one record when many callers bring one each, over and over."""
    start, item = threading.Barrier(callers + 1), Item(stream="telemetry", fields=fields())

    def call() -> None:
        start.wait()
        for _ in range(calls):
            outbox.put([item])

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - begin
    _empty(outbox)
    return taken / (callers * calls)


def _empty(outbox: Outbox) -> None:
    """Let the hub have taken everything, outside the time that is measured."""
    outbox.settle([(1, 2**62)])


def add_rows(report: Report, *, quick: bool) -> None:
    """Measure on the disk as it is, and on one whose syncs take as long as a card's; add the rows."""
    for delay_s in (0.0, SLOW_S):
        _add_rows(report, delay_s, repeats=4 if quick else 12)


def _add_rows(report: Report, delay_s: float, repeats: int) -> None:
    layer = SlowDisk(delay_s) if delay_s else None
    syncs = 60 if delay_s else 300
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # not /tmp, which may be memory
        floor = Floor(Path(folder), delay_s)
        with Outbox(Path(folder), device="bench", options=_OPTIONS, vfs=layer.name if layer else None) as outbox:
            candidates: dict[str, Callable[[], float]] = {
                "floor": partial(floor.seconds_of_one, syncs),
                "1 record per call": partial(seconds_of_one, outbox, 1, syncs),
                "100 records per call": partial(seconds_of_one, outbox, 100, syncs // 3),
                f"{CALLERS} callers of 1 record": partial(seconds_of_one_of_many, outbox, CALLERS, syncs // 6),
            }
            samples = interleaved(candidates, repeats=repeats, warm_up=1)
        floor.close()
    if layer is not None:
        layer.unregister()
    base = samples.pop("floor")
    disk = f"syncs {SLOW_S * 1000:.0f} ms slower, as a card's" if delay_s else "this disk as it is"
    for name, taken in samples.items():
        peers: dict[str, Peer] = {"syncs/s of the floor": 1 / base.median, "records/s": 1 / taken.median}
        report.add(
            f"durable enqueue, {name}, {disk}", base.over(taken), "× the fdatasync floor", must=MUST[name], peers=peers
        )


def main() -> int:
    """Measure alone and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.sync_rows.enqueue", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    report = Report("enqueue", packages=("apsw",))
    add_rows(report, quick=parser.parse_args().quick)
    print(table(report.rows))
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
