"""Shapes: pipelines through which millions of records go, each with another way for records to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skerry.run.engine import Engine
from skerry.spec.errors import SinkUnavailableError
from skerry.spec.pipeline import Queue
from skerry.spec.ports import Context, Emit, Options, Stop
from skerry.spec.record import HELD, Emission, Merged, Outcome, Record
from tests.run.parts import Batch, Call, engine, sink, source, stage


class Numbers:
    """A source of the numbers below ``count``, as fast as they are taken."""

    Options: ClassVar[type[Options]] = Options

    def __init__(self, count: int, *, live: bool = False) -> None:
        self.live = live  # type: ignore[misc]
        self._count = count
        self.emitted = 0

    def open(self, context: Context, position: Any | None) -> None:
        pass

    def run(self, emit: Emit, stop: Stop) -> None:
        for number in range(self._count):
            if not emit({"n": number}, size=8, position=number):
                return
            self.emitted += 1

    def commit(self, position: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Counter:
    """A sink that counts; ``down`` tells for which writes it is out of order."""

    Options: ClassVar[type[Options]] = Options

    def __init__(self, *, blocking: bool = False, down: Callable[[int], bool] | None = None) -> None:
        self.blocking = blocking  # type: ignore[misc]
        self._down = down
        self._lock = threading.Lock()
        self.writes = 0
        self.count = 0

    def open(self, context: Context) -> None:
        pass

    def write(self, records: Sequence[Record]) -> None:
        self.writes += 1
        if self._down and self._down(self.writes):
            raise SinkUnavailableError("the sink is down")
        with self._lock:
            self.count += len(records)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Tens:
    """A window of ten records."""

    Options: ClassVar[type[Options]] = Options
    tick_s = 0.0

    def __init__(self) -> None:
        self._held: list[Record] = []

    def open(self, context: Context) -> None:
        self._held = []

    def process(self, record: Record) -> Outcome:
        self._held.append(record)
        return self._merge() if len(self._held) == 10 else HELD

    def tick(self, now_ns: int) -> Sequence[Emission]:
        return []

    def flush(self) -> Sequence[Emission]:
        return [self._merge()] if self._held else []

    def _merge(self) -> Merged:
        held, self._held = self._held, []
        return Merged(held[-1], len(held))

    def close(self) -> None:
        pass


def passing(record: Record) -> Outcome:
    return record


def every_third_is_filtered(record: Record) -> Outcome:
    return record if record.fields["n"] % 3 else None


def every_thousandth_fails(record: Record) -> Outcome:
    if not record.fields["n"] % 1000:
        raise ValueError("bad luck")
    return record


def every_seventh_is_doubled(record: Record) -> Outcome:
    return record if record.fields["n"] % 7 else [record, record.with_fields(dict(record.fields))]


Shape = Callable[[Path, int], tuple[Engine, list[Numbers], list[Counter]]]


def inline(folder: Path, items: int) -> tuple[Engine, list[Numbers], list[Counter]]:
    """One thread: filters, failures, records that multiply."""
    read, got = Numbers(items), Counter()
    made = engine(
        folder, source("in", read), stage("filter", Call(every_third_is_filtered)),
        stage("fail", Call(every_thousandth_fails)), stage("double", Call(every_seventh_is_doubled)), sink("out", got),
    )  # fmt: skip
    return made, [read], [got]


def dropping(folder: Path, items: int) -> tuple[Engine, list[Numbers], list[Counter]]:
    """A live source that is faster than its stages, whose queue drops the oldest, and a window."""
    read, got = Numbers(items, live=True), Counter()
    made = engine(
        folder, source("in", read), stage("slow", Call(every_thousandth_fails), queue=Queue(policy="drop_oldest")),
        stage("tens", Tens()), sink("out", got),
    )  # fmt: skip
    return made, [read], [got]


def branching(folder: Path, items: int) -> tuple[Engine, list[Numbers], list[Counter]]:
    """A fan-out to a filter and to two workers, a fan-in, and two sinks."""
    read, one, two = Numbers(items), Counter(), Counter()
    made = engine(
        folder, source("in", read), stage("first", Call(passing)),
        stage("left", Call(every_third_is_filtered), after="first"),
        stage("right", lambda: Call(every_thousandth_fails), after="first", workers=2),
        stage("join", Call(passing), after=["left", "right"]), sink("one", one), sink("two", two),
    )  # fmt: skip
    return made, [read], [one, two]


def struggling(folder: Path, items: int) -> tuple[Engine, list[Numbers], list[Counter]]:
    """Two sources, batches, deadlines that are missed, and a sink that goes down and comes back."""
    reads = [Numbers(items // 2), Numbers(items - items // 2, live=True)]
    got = Counter(blocking=True, down=lambda write: write % 500 == 0)
    made = engine(
        folder, source("in-1", reads[0]), source("in-2", reads[1]), stage("batched", Batch(passing, max_batch=16)),
        stage("fail", Call(every_thousandth_fails), on_error="dead_letter"), sink("out", got),
        dead_letter=Counter(blocking=True), deadline_ns=2_000_000,
    )  # fmt: skip
    return made, reads, [got]


SHAPES: dict[str, tuple[Shape, float]] = {
    "inline": (inline, 0.5),
    "dropping": (dropping, 0.25),
    "branching": (branching, 0.15),
    "struggling": (struggling, 0.1),
}
"""Each shape with its share of the items."""
