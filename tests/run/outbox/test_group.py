"""The group commit: who shares a commit, and that nobody waits for ever."""

from __future__ import annotations

import _thread
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


def test_a_caller_that_is_interrupted_takes_its_work_along_and_holds_nobody_up() -> None:
    committer, results = Committer(), dict[int, Any]()
    group: GroupCommit[Any] = GroupCommit(committer)
    first = start(group, 0, results)
    assert committer.entered.wait(20)

    def interrupt() -> None:
        queued(group, 1)
        time.sleep(0.05)
        _thread.interrupt_main()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        group.run(1)
    interrupter.join()
    assert not group._queue
    third = start(group, 2, results)
    queued(group, 1)
    committer.slow.set()
    first.join()
    third.join()
    assert committer.groups == [[0], [2]]
    assert group.run(6) == [6]


def test_a_wake_up_that_was_lost_costs_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    committer, results = Committer(), dict[int, Any]()
    group: GroupCommit[Any] = GroupCommit(committer)
    first = start(group, 0, results)
    assert committer.entered.wait(20)
    others = [start(group, number, results) for number in (1, 2)]
    queued(group, 2)
    monkeypatch.setattr(group, "_wake_next", lambda: None)
    committer.slow.set()
    for thread in (first, *others):
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(results) == [0, 1, 2]


def test_many_callers_are_all_answered_with_their_own() -> None:
    def commit(tickets: Sequence[Ticket[int]]) -> None:
        for ticket in tickets:
            ticket.result = -ticket.work

    group: GroupCommit[int] = GroupCommit(commit)
    wrong: list[int] = []

    def call(number: int) -> None:
        wrong.extend(work for work in range(number * 1000, number * 1000 + 300) if group.run(work) != -work)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
