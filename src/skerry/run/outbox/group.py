"""The group commit: callers that come while the disk is busy share the next commit.

There is no writer thread to hand over to. The first caller who finds nobody at work does the work itself, for
everybody who is queued, and passes the turn to the first of those who came meanwhile. So a lone caller pays for no
change of threads, and sixty-four pay for one sync between them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from skerry.spec.errors import OutboxError

Work = TypeVar("Work")
_MOST = 0.9  # of the callers: the last ones are not worth waiting for
_SHARE_OF_COMMIT = 0.5
_LONGEST_WAIT_S = 0.01  # on a disk whose syncs take longer, everybody is there by then
_WORTH_IT_S = 0.001  # on a disk that is faster than that, waking callers takes longer than another sync
_MOST_SKIPPED = 64


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
        self._lock = threading.Lock()
        self._queue: deque[Ticket[Work]] = deque()
        self._busy = False
        self._complete = threading.Lock()  # released when as many have come as are waited for
        self._complete.acquire()
        self._wanted = 0
        self._callers = 1
        self._took_s = 0.0
        self._in_vain = 0
        self._skip = 0

    def run(self, work: Work) -> Any:
        """Return the result of the work once its group is committed; raises what became of it instead."""
        ticket = Ticket(work)
        with self._lock:
            if self._busy:
                ticket.gate = threading.Lock()
                ticket.gate.acquire()
                self._queue.append(ticket)
                if self._wanted and len(self._queue) >= self._wanted:
                    self._wanted = 0
                    self._complete.release()
            else:
                self._busy = ticket.leads = True
        if ticket.gate is not None:
            try:
                ticket.gate.acquire()
            except BaseException:  # Ctrl-C in a caller that waits
                self._leave(ticket)
                raise
        if ticket.leads:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _leave(self, ticket: Ticket[Work]) -> None:
        """Take back what a caller brought who does not wait any more, or pass on the turn that it was given."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
                return
        if ticket.leads:
            self._pass_on(1)

    def _lead(self, own: Ticket[Work]) -> None:
        group = [own]
        began = time.perf_counter()
        try:
            if self._callers > 1:
                self._gather()
            with self._lock:
                group += self._queue
                self._queue.clear()
            began = time.perf_counter()
            self._commit(group)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            self._fail(group, error)
        self._took_s = time.perf_counter() - began
        self._pass_on(len(group))
        for ticket in group[1:]:
            if ticket.gate is not None:
                ticket.gate.release()

    def _fail(self, group: Sequence[Ticket[Work]], error: BaseException) -> None:
        """Tell a group that its commit was broken off; only the leader was sent a Ctrl-C."""
        with self._lock:
            self._wanted = 0
            self._complete.acquire(blocking=False)
        for ticket in group[1:]:
            if ticket.result is None and ticket.error is None:
                ticket.error = error if isinstance(error, Exception) else OutboxError("the commit was interrupted")
        group[0].error = error

    def _gather(self) -> None:
        """Wait until most of those who called lately are there, if that has been worth it."""
        if self._skip > 0 or self._took_s < _WORTH_IT_S:
            self._skip = max(self._skip - 1, 0)
            return
        with self._lock:
            wanted = int(self._callers * _MOST) - 1
            if len(self._queue) >= wanted:
                return
            self._wanted = wanted
        if self._complete.acquire(timeout=min(self._took_s * _SHARE_OF_COMMIT, _LONGEST_WAIT_S)):
            self._in_vain = 0
            return
        with self._lock:
            if self._wanted:
                self._wanted = 0
                self._in_vain += 1
                self._skip = min(2**self._in_vain, _MOST_SKIPPED)
                return
        self._complete.acquire()  # they came in the very moment

    def _pass_on(self, group: int) -> None:
        """Give the turn to the first who waits."""
        with self._lock:
            self._callers = group + len(self._queue)
            if not self._queue:
                self._busy = False
                return
            heir = self._queue.popleft()
            heir.leads = True
        if heir.gate is not None:
            heir.gate.release()
