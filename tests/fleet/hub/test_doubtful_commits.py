"""Commits of which nobody knows whether they happened, and stores that fail under an effect: nothing twice or lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.ingest import Ingest
from skerry.fleet.hub.server import Hub
from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.fleet.hub.store import Store, StoredRecord, Transaction
from skerry.fleet.hub.writer import Writer
from skerry.spec.errors import HubError
from skerry.testing.postgresql import Cluster
from skerry.wire.receipt import Receipt, decode_receipt
from tests.fleet.hub.devices import EPOCH, Device, record, records, request
from tests.fleet.hub.test_store_contract import NOW_MS, digest_sum, take


def test_a_commit_whose_answer_was_lost_is_found_when_it_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, losses = store.begin, [1]

    @contextlib.contextmanager
    def doubtful() -> Iterator[Transaction]:
        with begin() as transaction:
            yield transaction
        if losses[0]:
            losses[0] -= 1
            raise HubError("the server closed the connection unexpectedly")

    writer, held, go = Writer(store, group=64), threading.Event(), threading.Event()

    def gate(_transaction: Transaction) -> None:
        held.set()
        go.wait(30)

    def job(first: int) -> Callable[[Transaction], Receipt]:
        return lambda transaction: Ingest().take(Device().batch(records(first, first + 9)), transaction, NOW_MS)[0]

    gated = writer.submit(gate)
    held.wait(30)
    monkeypatch.setattr(store, "begin", doubtful)
    futures = [writer.submit(job(first)) for first in (1, 6, 11)]
    go.set()
    gated.result(30)
    # Together they were committed, and nobody knew; one by one, each finds all of it there.
    receipts = [future.result(30) for future in futures]
    writer.close()
    assert losses == [0]
    assert [each.committed for each in receipts] == [[(1, 10)], [(6, 15)], [(11, 20)]]
    assert [each.seq for each in store.records()] == list(range(1, 21))
    assert (receipts[-1].count, receipts[-1].checksum) == store.recompute_audit("pump-1", EPOCH)
    assert receipts[-1].checksum == digest_sum(records(1, 20))


def test_a_disk_that_is_full_under_an_effect_makes_no_dead_letter(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.db")

    def large(transaction: Transaction, _rows: Sequence[StoredRecord]) -> None:
        transaction.move_cursor("x" * 5_000_000, 1)

    store._writer.execute("PRAGMA max_page_count=500")
    for sent in ([record(1)], records(1, 3)):
        with pytest.raises(HubError, match="full"):
            take(store, sent, ingest=Ingest([large]))
    assert store.dead_letters() == [] and store.records() == []
    assert take(store, records(1, 3)).count == 3
    store.close()


def test_a_server_that_ends_the_connection_in_the_middle_of_a_batch(
    cluster: Cluster, start_hub: Callable[..., Hub]
) -> None:
    cut = [True]

    def cutting(transaction: Any, _rows: Sequence[StoredRecord]) -> None:
        if cut.pop() if cut else False:
            transaction._run("SELECT pg_terminate_backend(pg_backend_pid())")

    hub, device = start_hub(database=cluster.url, effects=[cutting]), Device()
    batch = device.pack(records(1, 9))
    assert request(hub.port, "POST", "/v1/batches", batch).status == 503
    receipt = decode_receipt(request(hub.port, "POST", "/v1/batches", batch).body)
    assert receipt.committed == [(1, 9)] and receipt.dead == [] and receipt.count == 9
