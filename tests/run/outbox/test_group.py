"""The group commit: who shares a commit, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from skerry.run.outbox.group import GroupCommit, Ticket
from skerry.spec.errors import OutboxError


class Committer:
    """Commits slowly, and remembers in what groups."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.slow = threading.Event()
        self.entered = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, tickets: Sequence[Ticket[Any]]) -> None:
        self.groups.append([ticket.work for ticket in tickets])
        self.entered.set()
        self.slow.wait(20)
        if self.error is not None:
            raise self.error
        for ticket in tickets:
            ticket.result = [ticket.work]


def start(group: GroupCommit[Any], work: int, results: dict[int, Any]) -> threading.Thread:
    def run() -> None:
        try:
            results[work] = group.run(work)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            results[work] = error

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def queued(group: GroupCommit[Any], count: int) -> None:
    ends = time.monotonic() + 20
    while len(group._queue) < count and time.monotonic() < ends:
        time.sleep(0.001)
    assert len(group._queue) == count


def test_those_who_come_during_a_commit_share_the_next() -> None:
    committer, results = Committer(), dict[int, Any]()
    group: GroupCommit[Any] = GroupCommit(committer)
    threads = [start(group, 0, results)]
    assert committer.entered.wait(20)
    for number in range(1, 6):
        threads.append(start(group, number, results))
        queued(group, number)
    committer.slow.set()
    for thread in threads:
        thread.join()
    assert committer.groups == [[0], [1, 2, 3, 4, 5]]
    assert results == {number: [number] for number in range(6)}
    assert group.run(7) == [7]


@pytest.mark.parametrize("error", [OutboxError("no"), RuntimeError("a fault"), KeyboardInterrupt()])
def test_what_breaks_a_commit_reaches_everybody_and_the_next_goes_on(error: BaseException) -> None:
    committer, results = Committer(), dict[int, Any]()
    group: GroupCommit[Any] = GroupCommit(committer)
    threads = [start(group, 0, results)]
    assert committer.entered.wait(20)
    for number in (1, 2):
        threads.append(start(group, number, results))
        queued(group, number)
    committer.error = error
    committer.slow.set()
    for thread in threads:
        thread.join()
    assert results[0] is error
    assert results[1] is error
    if isinstance(error, KeyboardInterrupt):
        assert isinstance(results[2], OutboxError), "only the leader was interrupted"
    else:
        assert results[2] is error
    committer.error = None
    assert group.run(9) == [9]


def test_a_caller_that_leaves_holds_nobody_up() -> None:
    committer, results = Committer(), dict[int, Any]()
    group: GroupCommit[Any] = GroupCommit(committer)
    first = start(group, 0, results)
    assert committer.entered.wait(20)
    second = start(group, 1, results)
    queued(group, 1)
    ticket = group._queue[0]
    group._leave(ticket)
    assert not group._queue
    third = start(group, 2, results)
    queued(group, 1)
    committer.slow.set()
    first.join()
    third.join()
    assert committer.groups == [[0], [2]]
    assert ticket.gate is not None
    ticket.gate.release()
    second.join()
    heir = Ticket[Any](5)
    heir.leads = group._busy = True
    group._leave(heir)
    assert group.run(6) == [6]
