"""The group commit: callers that come while the disk is busy share the next commit.

There is no writer thread to hand over to. The first caller who finds nobody at work does the work itself, for
everybody who is queued, and wakes the first of those who came meanwhile. So a lone caller pays for no change of
threads, and sixty-four pay for one sync between them.

An interrupt (Ctrl-C) may come between any two steps. The turn is held by ``with`` alone, which no interrupt can cut in
two; a wake-up that was lost with an interrupt costs those who wait a second, after which they look for themselves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from skerry.spec.errors import OutboxError

Work = TypeVar("Work")
_MOST = 0.9  # of the callers: the last ones are not worth waiting for
_SHARE_OF_COMMIT = 0.5
_LONGEST_WAIT_S = 0.01  # on a disk whose syncs take longer, everybody is there by then
_WORTH_IT_S = 0.001  # on a disk that is faster than that, waking callers takes longer than another sync
_MOST_SKIPPED = 64
_LOOK_S = 1.0


class Ticket(Generic[Work]):
    """One caller's work, and what became of it."""

    __slots__ = ("done", "error", "gate", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.gate: threading.Lock | None = None

    def wake(self) -> None:
        """Wake the caller, if it sleeps."""
        if self.gate is not None:
            with suppress(RuntimeError):  # woken already
                self.gate.release()


class GroupCommit(Generic[Work]):
    """Runs ``commit`` for groups of tickets, one group at a time.

    Those of the last group are about to come back with more, if they are callers in a loop. Without a thought for
    them, the first one back would sync the disk for itself alone while all others wait. So where a group had several
    callers, the next one waits a moment until most of them are back: for half the time of a commit at the longest, and
    less and less often where that turns out to be in vain. After a lone caller nobody waits.

    Parameters
    ----------
    commit:
        Does the work of all tickets, setting ``result`` or ``error`` of each.
    """

    def __init__(self, commit: Callable[[Sequence[Ticket[Work]]], None]) -> None:
        self._commit = commit
        self._turn = threading.Lock()
        self._queue: deque[Ticket[Work]] = deque()
        self._complete = threading.Event()  # set when as many have come as are waited for
        self._wanted = 0
        self._callers = 1
        self._took_s = 0.0
        self._in_vain = 0
        self._skip = 0

    def run(self, work: Work) -> Any:
        """Return the result of the work once its group is committed; raises what became of it instead."""
        ticket = Ticket(work)
        if self._turn.locked():
            gate = ticket.gate = threading.Lock()
            gate.acquire()
            self._queue.append(ticket)
            try:
                self._wait(ticket, gate)
            except BaseException:  # Ctrl-C in a caller that waits: what it brought is not stored any more
                with suppress(ValueError):
                    self._queue.remove(ticket)
                self._wake_next()  # it may have been this one's turn
                raise
        else:
            self._queue.append(ticket)
        if not ticket.done:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _wait(self, ticket: Ticket[Work], gate: threading.Lock) -> None:
        """Wait until the ticket is done, or nobody is at work who would do it."""
        if self._wanted and len(self._queue) >= self._wanted:
            self._complete.set()
        while not ticket.done and self._turn.locked():
            gate.acquire(timeout=_LOOK_S)

    def _lead(self, own: Ticket[Work]) -> None:
        group: list[Ticket[Work]] = []
        try:
            with self._turn:
                if not own.done:
                    self._do(own, group)
        finally:
            self._wake_next()
            for ticket in group:
                if ticket is not own:
                    ticket.wake()

    def _wake_next(self) -> None:
        """Let the first who waits take the turn; who comes later has seen that it is free."""
        with suppress(IndexError):
            self._queue[0].wake()

    def _do(self, own: Ticket[Work], group: list[Ticket[Work]]) -> None:
        """Commit for all who are there, one's own work among it; everybody's ticket tells, whatever happens."""
        began = time.perf_counter()
        try:
            if self._callers > 1:
                self._gather()
            while self._queue:
                group.append(self._queue.popleft())
            began = time.perf_counter()
            if own not in group:
                raise OutboxError("the commit was interrupted")  # with the group of a caller that was, a second ago
            self._commit(group)
        except BaseException as error:
            self._fail(own, group, error)
            raise
        finally:
            self._took_s = time.perf_counter() - began
            self._callers = len(group) + len(self._queue)
            for ticket in group:
                ticket.done = True

    def _fail(self, own: Ticket[Work], group: Sequence[Ticket[Work]], error: BaseException) -> None:
        """Tell a group that its commit was broken off; only the leader was sent a Ctrl-C."""
        for ticket in group:
            if ticket is not own and ticket.result is None and ticket.error is None:
                ticket.error = error if isinstance(error, Exception) else OutboxError("the commit was interrupted")

    def _gather(self) -> None:
        """Wait until most of those who called lately are there, if that has been worth it."""
        if self._skip > 0 or self._took_s < _WORTH_IT_S:
            self._skip = max(self._skip - 1, 0)
            return
        self._complete.clear()
        self._wanted = int(self._callers * _MOST)
        if len(self._queue) >= self._wanted or self._complete.wait(
            min(self._took_s * _SHARE_OF_COMMIT, _LONGEST_WAIT_S)
        ):
            self._in_vain = 0
        else:
            self._in_vain += 1
            self._skip = min(2**self._in_vain, _MOST_SKIPPED)
        self._wanted = 0
