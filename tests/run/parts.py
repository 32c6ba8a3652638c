"""Parts: small sources, stages and sinks of which the engine's tests build pipelines."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skerry.run.engine import Engine
from skerry.run.nodes import Node, SinkNode, SourceNode, StageNode
from skerry.run.settings import Settings
from skerry.spec.errors import SinkError, SinkUnavailableError
from skerry.spec.graph import connect
from skerry.spec.pipeline import Common, Endpoint
from skerry.spec.ports import Context, Emit, Options, Stop
from skerry.spec.record import HELD, Emission, Merged, Outcome, Record

LOG = logging.getLogger("skerry.test")


class Items:
    """A source of ready-made items; ``pauses`` maps an item's number to seconds to wait before it."""

    Options: ClassVar[type[Options]] = Options

    def __init__(
        self, items: Sequence[Mapping[str, Any]], *, live: bool = False, pauses: Mapping[int, float] | None = None
    ) -> None:
        self.items = items
        self.live = live  # type: ignore[misc]
        self.pauses = pauses or {}
        self.committed: Any = None
        self._start = 0

    def open(self, context: Context, position: Any | None) -> None:
        self._start = position or 0

    def run(self, emit: Emit, stop: Stop) -> None:
        for number in range(self._start, len(self.items)):
            if stop.wait(self.pauses.get(number, 0.0)) or stop.is_set():
                return
            if not emit(dict(self.items[number]), size=10, position=number + 1):
                return

    def commit(self, position: Any) -> None:
        self.committed = position

    def close(self) -> None:
        pass


class Call:
    """A stage that calls a function with the record."""

    Options: ClassVar[type[Options]] = Options

    def __init__(self, function: Callable[[Record], Outcome]) -> None:
        self.process = function
        self.opened = 0
        self.closed = 0

    def open(self, context: Context) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1


class Batch(Call):
    """A stage that takes several records at once."""

    def __init__(self, function: Callable[[Record], Outcome], max_batch: int = 8) -> None:
        super().__init__(function)
        self.max_batch = max_batch
        self.sizes: list[int] = []

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        self.sizes.append(len(records))
        return [self.process(record) for record in records]


class Pairs:
    """A window of ``size`` records; its rest comes out at the flush, or every ``tick_s``."""

    Options: ClassVar[type[Options]] = Options

    def __init__(self, size: int = 2, tick_s: float = 0.0) -> None:
        self.size = size
        self.tick_s = tick_s
        self._held: list[Record] = []

    def open(self, context: Context) -> None:
        self._held = []

    def process(self, record: Record) -> Outcome:
        self._held.append(record)
        return self._merge() if len(self._held) >= self.size else HELD

    def _merge(self) -> Merged:
        held, self._held = self._held, []
        return Merged(held[-1].with_fields({"n": [record.fields["n"] for record in held]}), len(held))

    def tick(self, now_ns: int) -> Sequence[Emission]:
        return [self._merge()] if self._held else []

    def flush(self) -> Sequence[Emission]:
        return self.tick(0)

    def close(self) -> None:
        pass


class Collect:
    """A sink that keeps what it was given once it is flushed, and can be told to be slow or to fail."""

    Options: ClassVar[type[Options]] = Options

    def __init__(
        self,
        *,
        blocking: bool = True,
        delay_s: float = 0.0,
        bad: Callable[[Record], bool] | None = None,
        down: Callable[[int], bool] | None = None,
    ) -> None:
        self.blocking = blocking  # type: ignore[misc]
        self.delay_s = delay_s
        self.bad = bad
        self.down = down
        self.writes = 0
        self.got: list[Record] = []
        self._unsynced: list[Record] = []
        self._lock = threading.Lock()

    def open(self, context: Context) -> None:
        if self.down and self.down(self.writes):
            self.writes += 1
            raise SinkUnavailableError("the sink is down")

    def write(self, records: Sequence[Record]) -> None:
        self.writes += 1
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.down and self.down(self.writes):
            raise SinkUnavailableError("the sink is down")
        if self.bad and any(self.bad(record) for record in records):
            raise SinkError("a bad record")
        with self._lock:
            self._unsynced += records

    def flush(self) -> None:
        with self._lock:
            self.got += self._unsynced
            self._unsynced = []

    def close(self) -> None:
        pass

    def numbers(self) -> list[Any]:
        """The field ``n`` of all that arrived."""
        return [record.fields["n"] for record in self.got]


def numbered(count: int) -> list[dict[str, Any]]:
    """Return items with the field ``n`` from 0 on."""
    return [{"n": number} for number in range(count)]


def flaky(seed: int, *, fail: float = 0.0, drop: float = 0.0, split: float = 0.0) -> Callable[[Record], Outcome]:
    """Return a stage function that fails, filters and multiplies records at random."""
    chance = random.Random(seed)

    def process(record: Record) -> Outcome:
        draw = chance.random()
        if draw < fail:
            raise ValueError("bad luck")
        if draw < fail + drop:
            return None
        if draw < fail + drop + split:
            return [record, *(record.with_fields(dict(record.fields)) for _ in range(chance.randrange(3)))]
        return record

    return process


def source(name: str, made: Any, **settings: Any) -> SourceNode:
    return SourceNode(id=name, kind="test", source=made, settings=Endpoint(**settings))


def stage(
    name: str, made: Any, *, after: str | list[str] | None = None, when: Any = None, **settings: Any
) -> StageNode:
    """Return a node for a stage instance, or for a function that makes one for each worker."""
    make = made if callable(made) and not hasattr(made, "process") else lambda: made
    probe = make()
    return StageNode(
        id=name, kind="test", make=make, settings=Common(after=after, **settings), when=when, probe=probe
    )  # fmt: skip


def sink(name: str, made: Any, *, after: str | list[str] | None = None, **settings: Any) -> SinkNode:
    return SinkNode(id=name, kind="test", sink=made, settings=Endpoint(after=after, **settings))


def engine(folder: Path, *nodes: Node, dead_letter: Any = None, conductor: Any = None, **settings: Any) -> Engine:
    """Connect nodes as a pipeline file would, and return their engine."""

    def after(node: Any) -> tuple[str, ...] | None:
        given = node.settings.after
        return (given,) if isinstance(given, str) else None if given is None else tuple(given)

    graph = connect(
        [node.id for node in nodes if isinstance(node, SourceNode)],
        [(node.id, after(node)) for node in nodes if isinstance(node, StageNode)],
        [(node.id, after(node)) for node in nodes if isinstance(node, SinkNode)],
        lambda name: name,
    )
    defaults: dict[str, Any] = {"drain_s": 5.0, "sync_s": 0.02}
    made = Settings(name="test", home=folder, state=folder, log=LOG, **{**defaults, **settings})
    return Engine(nodes, graph, made, dead_letter=dead_letter, conductor=conductor)
