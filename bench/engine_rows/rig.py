"""The rig: a running engine whose items a benchmark hands over one by one, from its own thread."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from skerry.run.engine import Engine
from skerry.run.models import Models
from skerry.run.nodes import Node, SinkNode, SourceNode, StageNode
from skerry.run.settings import Settings
from skerry.spec.graph import connect
from skerry.spec.pipeline import Common
from skerry.spec.ports import Context, Emit, Options, Source, Stage, Stop
from skerry.spec.record import Record

LOG = logging.getLogger("skerry.bench")
READY_S = 60.0
"""How long an engine may take to come up: a model has to be loaded."""


class Tap:
    """A source that does nothing by itself: the benchmark calls its ``emit``.

    A pulled one (``live=False``) runs the stages in the thread that calls ``emit``, as ``file://`` does; a live one
    hands over to the engine's threads through a channel, as ``tail://`` or ``mqtt://`` do.
    """

    Options: ClassVar[type[Options]] = Options

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.emit: Emit
        self._running = threading.Event()

    def open(self, context: Context, position: Any | None) -> None:
        """Nothing to get ready."""

    def run(self, emit: Emit, stop: Stop) -> None:
        """Lend ``emit`` to the benchmark until the run ends."""
        self.emit = emit
        self._running.set()
        stop.wait()

    def await_emit(self, engine: threading.Thread) -> None:
        """Wait until items can be handed over; raises ``RuntimeError`` when the engine does not come up."""
        for _ in range(int(READY_S / 0.1)):
            if self._running.wait(0.1):
                return
            if not engine.is_alive():
                break
        raise RuntimeError("the engine did not come up")

    def commit(self, position: Any) -> None:
        """Nobody has to be told."""

    def close(self) -> None:
        """Nothing to give back."""


class PassOn:
    """A stage that does nothing, so that what is measured is what is around it."""

    Options: ClassVar[type[Options]] = Options

    def open(self, context: Context) -> None:
        """Nothing to get ready."""

    def process(self, record: Any) -> Any:
        """Return what came in: a record, or in a yardstick whatever goes through its queues."""
        return record

    def close(self) -> None:
        """Nothing to give back."""


class Call:
    """A sink that never waits and calls ``take`` with every record."""

    Options: ClassVar[type[Options]] = Options
    blocking: ClassVar[bool] = False

    def __init__(self, take: Callable[[Record], object]) -> None:
        self._take = take

    def open(self, context: Context) -> None:
        """Nothing to get ready."""

    def write(self, records: Sequence[Record]) -> None:
        """Call ``take`` for each."""
        for record in records:
            self._take(record)

    def flush(self) -> None:
        """Nothing waits to be durable."""

    def close(self) -> None:
        """Nothing to give back."""


@contextmanager
def running(
    tap: Tap, stages: Sequence[Any], sink: Any, *, models: Models | None = None, **settings: Any
) -> Iterator[Engine]:
    """Run a pipeline of ``stages`` between ``tap`` and ``sink`` while the block lasts; its law is checked at the end.

    Every stage has the name ``stage0``, ``stage1``, …; ``settings`` are those of :class:`skerry.run.settings.Settings`,
    and ``batch`` the pipeline file's key of the same name for every stage.
    """
    common = Common(batch=settings.pop("batch", None))
    named = {f"stage{number}": stage for number, stage in enumerate(stages)}
    nodes: list[Node] = [
        SourceNode(id="tap", kind="bench", source=cast("Source", tap)),
        *(
            StageNode(id=name, kind="bench", make=partial(_same, stage), settings=common, probe=stage)
            for name, stage in named.items()
        ),
        SinkNode(id="sink", kind="bench", sink=sink),
    ]
    graph = connect(["tap"], [(name, None) for name in named], [("sink", None)], str)
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as folder:
        made = Settings(name="bench", home=Path(folder), state=Path(folder), log=LOG, **settings)
        with at_work(Engine(nodes, graph, made, models=models), tap) as engine:
            yield engine


@contextmanager
def at_work(engine: Engine, tap: Tap) -> Iterator[Engine]:
    """Run an engine in a thread of its own; its failure is raised at the end of the block."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            engine.run()
        except BaseException as error:  # noqa: BLE001 -- raised below, in the thread of the benchmark
            failures.append(error)

    thread = threading.Thread(target=run, name="bench-engine")
    thread.start()
    try:
        tap.await_emit(thread)
        yield engine
    finally:
        engine.stop()
        thread.join()
        if failures:
            raise failures[0]


def _same(stage: Stage) -> Stage:
    """Return the stage itself: a benchmark has one worker."""
    return stage
