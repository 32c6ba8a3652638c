"""The parts of a running hub that its addresses share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from skerry.fleet.hub.access import Access
from skerry.fleet.hub.blobs import Blobs
from skerry.fleet.hub.counts import Counts
from skerry.fleet.hub.ingest import Ingest
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.reception import Reception
from skerry.fleet.hub.store import Store, Transaction
from skerry.fleet.hub.writer import Writer

Answer = TypeVar("Answer")


class Parts:
    """What the addresses of a hub work with."""

    def __init__(
        self,
        data: Path,
        store: Store,
        access: Access,
        options: HubOptions,
        ingest: Ingest,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.data, self.store, self.access, self.options, self.ingest = data, store, access, options, ingest
        self.clock = clock
        self.counts = Counts()
        self.bell = CommitBell()
        self.writer = Writer(store, group=options.group, committed=self.bell.ring)
        self.reception = Reception(self.writer, ingest, access, options, self.counts, clock)
        self.blobs = Blobs(data / "blobs", options)
        self.outlets: list[Outlet] = []
        """The egresses at work."""

    async def write(self, job: Callable[[Transaction], Answer]) -> Answer:
        """Do a job in the writer's thread; returns once it is durable."""
        return await asyncio.wrap_future(self.writer.submit(job))


class Outlet(Protocol):
    """An egress as others see it."""

    name: str

    def state(self) -> Mapping[str, Any]:
        """Return ``position``, ``delivered``, ``failures`` and ``trouble`` (empty while all is well)."""


class CommitBell:
    """Rings in the writer's thread at each commit; waits in an event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self.listeners: list[Callable[[], None]] = []
        """Called at each ring, in the writer's thread; must not block."""
        self.ended = False
        """Whether the hub ends: who waits should leave."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop in which everybody waits."""
        self._loop = loop

    def ring(self) -> None:
        """Wake everybody; from any thread."""
        for listener in self.listeners:
            listener()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
                self._loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """Wake everybody for the last time; from any thread."""
        self.ended = True
        self.ring()

    def ear(self) -> asyncio.Event:
        """Return what the next ring sets; take it before looking for records, so that none is missed in between."""
        return self._event

    async def wait(self, ear: asyncio.Event, timeout_s: float) -> None:
        """Return when there may be new records, when the hub ends, or after ``timeout_s``."""
        if self.ended:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await ear.wait()
        except TimeoutError:
            return

    def _wake(self) -> None:
        # Whoever waits has the old event; whoever comes now waits for the next commit.
        self._event.set()
        self._event = asyncio.Event()
