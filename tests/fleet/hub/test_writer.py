"""The one writer: many jobs in one commit, and no job can harm another or the writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.fleet.hub.store import Transaction
from skerry.fleet.hub.writer import Job, Writer
from skerry.spec.errors import HubError, WireError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "hub.db")
    yield made
    made.close()


class Gate:
    """A job that holds the writer until the test lets it go, so that others wait together."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, _transaction: Transaction) -> None:
        self.reached.set()
        self.go.wait(30)


def move(name: str, position: int) -> Job:
    return lambda transaction: transaction.move_cursor(name, position)


def test_jobs_that_wait_together_share_commits(store: SqliteStore) -> None:
    writer, gate = Writer(store, group=64), Gate()
    held = writer.submit(gate)
    gate.reached.wait(30)
    futures = [writer.submit(move(f"c{number}", number)) for number in range(100)]
    gate.go.set()
    assert held.result() is None and [each.result(30) for each in futures] == [None] * 100
    assert writer.commits == 3  # the gate, 64 jobs, 36 jobs
    writer.close()
    assert store.cursor("c99") == 99


def test_a_job_that_fails_is_undone_alone(store: SqliteStore) -> None:
    def refused(transaction: Transaction) -> None:
        transaction.move_cursor("refused", 1)
        raise WireError("no")

    def broken(transaction: Transaction) -> None:
        transaction.move_cursor("broken", 1)
        raise ZeroDivisionError

    writer, gate = Writer(store, group=64), Gate()
    writer.submit(gate)
    gate.reached.wait(30)
    futures = [writer.submit(job) for job in (move("a", 1), refused, broken, move("b", 2))]
    left = writer.submit(move("left", 1))
    assert left.cancel()  # whoever waited has gone
    gate.go.set()
    assert futures[0].result(30) is None and futures[3].result(30) is None
    with pytest.raises(WireError, match="no"):
        futures[1].result(30)
    with pytest.raises(HubError):
        futures[2].result(30)
    writer.close()
    cursors = {name: store.cursor(name) for name in ("a", "b", "refused", "broken", "left")}
    assert cursors == {"a": 1, "b": 2, "refused": None, "broken": None, "left": None}


def test_a_store_that_is_gone_fails_all_who_wait_and_the_writer_lives(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.db")
    writer = Writer(store, group=64)
    store.close()
    for future in [writer.submit(move("a", number)) for number in range(5)]:
        with pytest.raises(HubError):
            future.result(30)
    writer.close()
    with pytest.raises(HubError, match="ending"):
        writer.submit(move("a", 1))
