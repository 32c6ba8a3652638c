"""Latency: how long an item that comes every millisecond is on its way through three stages that do nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.engine_rows.queues import QueuePipeline
from bench.engine_rows.rig import Call, PassOn, Tap, running
from bench.measuring import Samples, percentile
from bench.report import Report

RATE_HZ = 1000
SETTLE_S = 0.02
"""After a slice, for what is still on its way; also the part of a slice that is thrown away at its start."""
Put = Callable[[dict[str, Any]], object]


class Journal:
    """Notes how long each item took from being handed over to arriving, in seconds."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def note(self, fields: dict[str, Any]) -> None:
        """Note one arrival."""
        self.taken.append((time.perf_counter_ns() - fields["sent_ns"]) / 1e9)


def add_rows(report: Report, *, quick: bool) -> None:
    """Measure in slices that alternate, and add the rows for the 50th and the 99th percentile."""
    slices, slice_s = (4, 1.0) if quick else (24, 1.0)
    mine, theirs = _measured(slices, slice_s)
    for share, must in ((99.0, "<= 0.4"), (50.0, None)):
        ours = Samples(tuple(percentile(taken, share) for taken in mine))
        others = Samples(tuple(percentile(taken, share) for taken in theirs))
        report.add(
            f"added latency at 1 kHz, p{share:.0f}: fused segment behind a channel vs queue.Queue threads",
            ours.over(others), "×", must=must,
            peers={"skerry µs": ours.scaled(1e6), "queue.Queue µs": others.scaled(1e6)},
        )  # fmt: skip


def _measured(slices: int, slice_s: float) -> tuple[list[list[float]], list[list[float]]]:
    stages = [PassOn() for _ in range(3)]
    journal = Journal()
    tap = Tap(live=True)
    by_hand = QueuePipeline([stage.process for stage in stages], journal.note)
    mine: list[list[float]] = []
    theirs: list[list[float]] = []
    with running(tap, stages, Call(lambda record: journal.note(record.fields))):
        for number in range(slices):
            turns: list[tuple[Put, list[list[float]]]] = [(tap.emit, mine), (by_hand.put, theirs)]
            for put, slot in turns if number % 2 else reversed(turns):
                slot.append(_slice(put, journal, slice_s))
    by_hand.close()
    return mine, theirs


def _slice(put: Put, journal: Journal, slice_s: float) -> list[float]:
    """Hand over an item each millisecond; return how long they took, those of the start left out."""
    journal.taken = []
    _pace(put, round(slice_s * RATE_HZ))
    time.sleep(SETTLE_S)
    return journal.taken[round(SETTLE_S * RATE_HZ) :]


def _pace(put: Put, items: int) -> None:
    """Call ``put`` on a schedule that does not drift."""
    begin = time.perf_counter()
    for number in range(items):
        wait = begin + number / RATE_HZ - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        put({"sent_ns": time.perf_counter_ns()})
