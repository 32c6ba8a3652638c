"""Latency: how long an item that comes every millisecond is on its way through three stages that do nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.engine_rows.queues import QueuePipeline
from bench.engine_rows.rig import Call, PassOn, Tap, running
from bench.measuring import Samples, percentile
from bench.report import Report

RATE_HZ = 1000
SLICE_S = 1.0
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


class Slice(NamedTuple):
    """A second of one candidate: how long its items took, and how late the schedule itself was, both in seconds."""

    taken: list[float]
    late_s: float


def add_rows(report: Report, *, quick: bool) -> None:
    """Measure in slices that alternate, and add the rows for the 50th and the 99th percentile."""
    rounds = quiet_third(_measured(9 if quick else 60))
    for share, must in ((99.0, "<= 0.4"), (50.0, None)):
        ours, others = (Samples(tuple(percentile(turn[who].taken, share) for turn in rounds)) for who in (0, 1))
        report.add(
            f"added latency at 1 kHz, p{share:.0f}: fused segment behind a channel vs queue.Queue threads",
            ours.over(others), "×", must=must,
            peers={"skerry µs": ours.scaled(1e6), "queue.Queue µs": others.scaled(1e6)},
        )  # fmt: skip


def quiet_third(rounds: list[tuple[Slice, Slice]]) -> list[tuple[Slice, Slice]]:
    """Return the third of the rounds in which the machine let the schedule itself be least late.

    The witness is the thread that sleeps until the next item is due, before any candidate has it: where other work
    keeps it waiting for a millisecond, the 99th percentile of both candidates is that of the other work.
    """
    by_lateness = sorted(rounds, key=lambda turn: max(one.late_s for one in turn))
    return by_lateness[: (len(rounds) + 2) // 3]


def _measured(rounds: int) -> list[tuple[Slice, Slice]]:
    """Return the slices of the engine and of the queues, round by round."""
    stages = [PassOn() for _ in range(3)]
    journal = Journal()
    tap = Tap(live=True)
    by_hand = QueuePipeline([stage.process for stage in stages], journal.note)
    taken: list[tuple[Slice, Slice]] = []
    with running(tap, stages, Call(lambda record: journal.note(record.fields))):
        for number in range(rounds):
            if number % 2:
                mine = _slice(tap.emit, journal)
                taken.append((mine, _slice(by_hand.put, journal)))
            else:
                theirs = _slice(by_hand.put, journal)
                taken.append((_slice(tap.emit, journal), theirs))
    by_hand.close()
    return taken


def _slice(put: Put, journal: Journal) -> Slice:
    """Hand over an item each millisecond for a second; those of the start are left out."""
    journal.taken = []
    late = _pace(put, round(SLICE_S * RATE_HZ))
    time.sleep(SETTLE_S)
    return Slice(journal.taken[round(SETTLE_S * RATE_HZ) :], percentile(late, 99.0))


def _pace(put: Put, items: int) -> list[float]:
    """Call ``put`` on a schedule that does not drift; return how late each call was."""
    late: list[float] = []
    begin = time.perf_counter()
    for number in range(items):
        due = begin + number / RATE_HZ
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        late.append(time.perf_counter() - due)
        put({"sent_ns": time.perf_counter_ns()})
    return late
