"""The group commit: callers that come while the disk is busy share the next commit.

There is no writer thread to hand over to. The first caller who finds nobody at work does the work itself, for
everybody who is queued, and passes the turn to the first of those who came meanwhile. So a lone caller pays for no
change of threads, and sixty-four pay for one sync between them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Work = TypeVar("Work")


class Ticket(Generic[Work]):
    """One caller's work, and what became of it."""

    __slots__ = ("error", "gate", "leads", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.leads = False
        self.gate: threading.Lock | None = None


class GroupCommit(Generic[Work]):
    """Runs ``commit`` for groups of tickets, one group at a time.

    Parameters
    ----------
    commit:
        Does the work of all tickets, setting ``result`` or ``error`` of each.
    """

    def __init__(self, commit: Callable[[Sequence[Ticket[Work]]], None]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._queue: deque[Ticket[Work]] = deque()
        self._busy = False

    def run(self, work: Work) -> Any:
        """Return the result of the work once its group is committed; raises what became of it instead."""
        ticket = Ticket(work)
        with self._lock:
            if self._busy:
                ticket.gate = threading.Lock()
                ticket.gate.acquire()
                self._queue.append(ticket)
            else:
                self._busy = ticket.leads = True
        if ticket.gate is not None:
            ticket.gate.acquire()
        if ticket.leads:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _lead(self, own: Ticket[Work]) -> None:
        group = [own]
        with self._lock:
            group += self._queue
            self._queue.clear()
        try:
            self._commit(group)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            for ticket in group:
                ticket.error = ticket.error or error
        self._pass_on()
        for ticket in group[1:]:
            if ticket.gate is not None:
                ticket.gate.release()

    def _pass_on(self) -> None:
        """Give the turn to the first who waits."""
        with self._lock:
            if not self._queue:
                self._busy = False
                return
            heir = self._queue.popleft()
            heir.leads = True
        if heir.gate is not None:
            heir.gate.release()
