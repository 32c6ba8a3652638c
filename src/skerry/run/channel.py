"""A channel: the bounded queue at a cut between two threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from skerry.spec.pipeline import Queue
from skerry.spec.record import Fate, Record
from skerry.spec.summary import QueueState

SHUTDOWN = "shutdown"
"""The reason of what is dropped because the run ends: its source reads it again next time."""

Lose = Callable[[Record, Fate, str], None]
"""Told of every record that ends in the channel; called while the channel is locked, so it must be quick."""

_clock = time.monotonic_ns


class Channel:
    """Bounded by items and bytes, with a time to live and four ways of being full.

    A plain lock, a deque and one lock per sleeping consumer: about a third of the cost of ``queue.Queue``, because
    consumers take all that waits at once and a producer wakes nobody who is awake.

    Parameters
    ----------
    queue:
        The bounds and the policy.
    lose:
        Told of every record that is dropped or expires here.
    """

    def __init__(self, queue: Queue, lose: Lose) -> None:
        self._limit = 1 if queue.policy == "latest" else max(1, queue.items)
        self._byte_limit = int(queue.bytes)
        self._ttl_ns = queue.ttl.ns if queue.ttl else 0
        self._policy = queue.policy
        self._lose = lose
        self._lock = threading.Lock()
        self._items: deque[Record] = deque()
        self._arrivals: deque[int] = deque()
        self._bytes = 0
        self._sleepers: deque[threading.Lock] = deque()
        self._blocked: deque[threading.Lock] = deque()
        self._producers = 0
        self._closed = False
        self.offered = 0
        """Records that were accepted, the ones dropped here later included."""
        self.taken = 0

    def join(self) -> None:
        """Announce one more producer."""
        with self._lock:
            self._producers += 1

    def leave(self) -> None:
        """Take a producer's leave; after the last one, consumers are told once the channel is empty."""
        with self._lock:
            self._producers -= 1
            if self._producers <= 0:
                self._close()

    def abort(self) -> None:
        """Drop everything that waits, and refuse the rest."""
        with self._lock:
            self._close()
            while self._items:
                self._drop_oldest(SHUTDOWN)

    def _close(self) -> None:
        self._closed = True
        for gate in [*self._sleepers, *self._blocked]:
            gate.release()
        self._sleepers.clear()
        self._blocked.clear()

    def put(self, record: Record, wait: bool = True) -> bool:
        """Offer a record; tell whether it was accepted (also when the policy then dropped one).

        It is refused when the channel is closed, and with ``wait=False`` where a ``block`` policy would wait.
        """
        with self._lock:
            items = self._items
            total = self._bytes + record.size
            if not self._closed and (not items or (len(items) < self._limit and total <= self._byte_limit)):
                # As _append does it: this is the path of nearly every record.
                items.append(record)
                self._bytes = total
                self.offered += 1
                if self._ttl_ns:
                    self._arrivals.append(_clock())
                if self._sleepers:
                    self._sleepers.popleft().release()
                return True
        return self._put_full(record, wait)

    def give(self, record: Record) -> None:
        """Put a record that is already counted: what a closed channel refuses is dropped, and counted so."""
        if not self.put(record):
            with self._lock:
                self.offered += 1
                self._lose(record, Fate.DROPPED, SHUTDOWN)

    def _append(self, record: Record) -> None:
        self._items.append(record)
        self._bytes += record.size
        self.offered += 1
        if self._ttl_ns:
            self._arrivals.append(_clock())
        if self._sleepers:
            self._sleepers.popleft().release()

    def _put_full(self, record: Record, wait: bool) -> bool:
        """Put where there was no room a moment ago."""
        while True:
            with self._lock:
                if self._closed:
                    return False
                self._expire()
                if self._has_room(record.size):
                    self._append(record)
                    return True
                if self._policy == "drop_newest":
                    self.offered += 1
                    self._lose(record, Fate.DROPPED, "queue full")
                    return True
                if self._policy != "block":
                    self._make_room(record.size)
                    self._append(record)
                    return True
                if not wait:
                    return False
                gate = threading.Lock()
                gate.acquire()
                self._blocked.append(gate)
            # Woken by a consumer or by closing; the time limit lets expired records make room.
            if not gate.acquire(timeout=self._ttl_ns / 1e9 if self._ttl_ns else -1):
                with self._lock:
                    if gate in self._blocked:
                        self._blocked.remove(gate)

    def _has_room(self, size: int) -> bool:
        if not self._items:
            return True
        return len(self._items) < self._limit and self._bytes + size <= self._byte_limit

    def _make_room(self, size: int) -> None:
        if self._policy == "latest":
            while self._items:
                self._drop_oldest("superseded")
        while not self._has_room(size):
            self._drop_oldest("queue full")

    def _drop_oldest(self, reason: str, fate: Fate = Fate.DROPPED) -> None:
        record = self._items.popleft()
        if self._ttl_ns:
            self._arrivals.popleft()
        self._bytes -= record.size
        self._lose(record, fate, reason)

    def _expire(self) -> None:
        """End the records that waited longer than the time to live."""
        if self._ttl_ns:
            oldest = _clock() - self._ttl_ns
            while self._arrivals and self._arrivals[0] < oldest:
                self._drop_oldest("waited too long", Fate.EXPIRED)

    def take(self, limit: int, timeout: float | None) -> list[Record] | None:
        """Take what waits, up to ``limit`` records; wait for the first one at most ``timeout`` seconds.

        Returns an empty list when nothing came in that time, and ``None`` once the channel is closed and empty.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                self._expire()
                if self._items:
                    return self._grab(limit)
                self._wake_blocked()
                if self._closed:
                    return None
                left = -1.0 if ends is None else ends - time.monotonic()
                if ends is not None and left <= 0:
                    return []
                gate = threading.Lock()
                gate.acquire()
                self._sleepers.append(gate)
            if not gate.acquire(timeout=left):
                self._stop_sleeping(gate)

    def _stop_sleeping(self, gate: threading.Lock) -> None:
        """Take a sleeper back that timed out; a wake-up that came too late is passed on."""
        with self._lock:
            if gate in self._sleepers:
                self._sleepers.remove(gate)
            elif self._items and self._sleepers:
                self._sleepers.popleft().release()

    def _grab(self, limit: int) -> list[Record]:
        items = self._items
        if self._policy == "latest":
            limit = 1
        if len(items) <= limit:
            batch = list(items)
            items.clear()
            self._arrivals.clear()
            self._bytes = 0
        else:
            batch = [items.popleft() for _ in range(limit)]
            if self._ttl_ns:
                for _ in batch:
                    self._arrivals.popleft()
            self._bytes -= sum(record.size for record in batch)
            if self._sleepers:
                self._sleepers.popleft().release()
        self.taken += len(batch)
        self._wake_blocked()
        return batch

    def _wake_blocked(self) -> None:
        while self._blocked:
            self._blocked.popleft().release()

    def is_closed(self) -> bool:
        """Tell whether no more records will come."""
        return self._closed

    def is_full(self) -> bool:
        """Tell whether a producer waits for room, or the next one would have to."""
        return bool(self._blocked) or not self._has_room(1)

    def would_wait(self, record: Record) -> bool:
        """Tell whether putting this record would have to wait now."""
        with self._lock:
            self._expire()
            return not self._closed and self._policy == "block" and not self._has_room(record.size)

    def state(self) -> QueueState:
        """Return what waits and what the bounds are."""
        with self._lock:
            return QueueState(
                items=len(self._items), bytes=self._bytes, max_items=self._limit,
                max_bytes=self._byte_limit, policy=self._policy,
            )  # fmt: skip
