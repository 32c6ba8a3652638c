"""The outlet: one egress at work, from the store to whoever takes its records, at least once each.

Its cursor is a number of a record in the store, moved only after everything up to it was confirmed. Numbers rise in
the order of commits, so nothing is skipped; what was confirmed but not noted, because the hub was killed in between,
is sent again with the same id.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from skerry.fleet.hub.egress.event import Event, event_of
from skerry.fleet.hub.store import Filter, Store
from skerry.fleet.hub.writer import Writer

LOOK_S = 5.0
"""How long to wait for a commit before looking by itself."""
LONGEST_PAUSE_S = 60.0
"""The longest pause between two attempts; the first one is about a second."""
END_S = 10.0
"""How long the events under way may take at the end; what was not confirmed by then is sent again next time."""
_log = logging.getLogger("skerry.hub")


class Target(Protocol):
    """Whoever takes events."""

    def open(self) -> None:
        """Connect; raises ``OSError`` or an error of the tree where that fails."""

    def deliver(self, events: Sequence[Event]) -> None:
        """Return once every event was confirmed; raises ``OSError`` or an error of the tree if one was not."""

    def close(self) -> None:
        """Give everything back; safe to call twice, and after a failed ``open``."""


class OutletOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every egress can be told in the query of its URI.

    Parameters
    ----------
    name:
        Under which its cursor is kept; the URI without its query where nothing is said.
    type:
        ``type`` of the CloudEvents.
    batch:
        The most records that are sent before their confirmations are waited for.
    begin:
        ``all`` begins with the oldest record, ``now`` with the next one, where there is no cursor yet.
    device, stream, release:
        Only these records.
    insecure:
        Allows plain text beyond loopback.
    """

    name: str = ""
    type: str = "io.skerry.record"
    batch: int = 200
    begin: str = "all"
    device: str | None = None
    stream: str | None = None
    release: str | None = None
    insecure: bool = False

    @property
    def only(self) -> Filter:
        """The filter of the records."""
        return Filter(device=self.device, stream=self.stream, release=self.release)


class RunningOutlet:
    """A thread that hands records to a target until it is told to end."""

    def __init__(self, name: str, target: Target, options: OutletOptions, store: Store, writer: Writer) -> None:
        self.name = name
        self._target, self._options, self._store, self._writer = target, options, store, writer
        self._position, self._batch = 0, options.batch
        self._delivered = self._failures = 0
        self._trouble = ""
        self._end_by = 0.0
        self._end, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"egress-{name}", daemon=True)

    def start(self) -> None:
        """Start at the cursor, or where the options say when there is none; raises ``HubError``."""
        position = self._store.cursor(self.name)
        if position is None:
            position = self._store.last_id() if self._options.begin == "now" else 0
            first = position
            self._writer.submit(lambda transaction: transaction.move_cursor(self.name, first)).result()
        self._position = position
        self._thread.start()

    def ring(self) -> None:
        """Tell that there may be new records; from any thread."""
        self._news.set()

    def state(self) -> Mapping[str, Any]:
        """Return how far it is and how it fares."""
        return {
            "position": self._position, "delivered": self._delivered, "failures": self._failures,
            "trouble": self._trouble,
        }  # fmt: skip

    def end(self) -> None:
        """Take up nothing new; what is under way has :data:`END_S` from the first call on."""
        if not self._end.is_set():
            self._end_by = time.monotonic() + END_S
            self._end.set()
        self._news.set()

    def close(self) -> None:
        """End after the events under way; safe to call twice."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(max(0.0, self._end_by - time.monotonic()))

    def _work(self) -> None:
        attempts, is_open = 0, False
        while not self._end.is_set():
            try:
                if not is_open:
                    self._target.open()
                    is_open = True
                moved = self._step()
            except Exception as error:  # noqa: BLE001 - brokers' clients raise what they like; nothing is lost by waiting
                attempts, is_open = attempts + 1, False
                self._batch = max(1, self._batch // 2)  # it may be too much at once for the receiver
                self._note(error)
                self._target.close()
                self._end.wait(pause_s(attempts, random.random()))
            else:
                attempts, self._trouble = 0, ""
                if not moved:
                    self._news.wait(LOOK_S)
        self._target.close()

    def _step(self) -> bool:
        """Deliver the next records and move the cursor; tell whether there were any."""
        self._news.clear()
        newest = self._store.last_id()
        if newest <= self._position:
            return False
        found = self._store.records(after=self._position, limit=self._batch, only=self._options.only)
        if found:
            self._target.deliver([event_of(record, self._options.type) for record in found])
        # Where nothing was found, what the filter left out is behind us too.
        position = found[-1].id if found else newest
        self._writer.submit(lambda transaction: transaction.move_cursor(self.name, position)).result()
        self._position, self._delivered = position, self._delivered + len(found)
        self._batch = min(self._options.batch, 2 * self._batch)
        return True

    def _note(self, error: Exception) -> None:
        self._failures += 1
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        if text != self._trouble:
            _log.warning("egress %s: %s; it will be tried again", self.name, text)
        self._trouble = text


def pause_s(attempts: int, chance: float) -> float:
    """Return the pause after some failed attempts: full jitter under a bound that doubles, ``chance`` from 0 to 1."""
    return max(0.1, chance * min(LONGEST_PAUSE_S, float(1 << min(attempts, 10))))
