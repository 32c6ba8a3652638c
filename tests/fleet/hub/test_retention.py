"""Retention: old records go, and all that they mean for repetitions, forks and audits stays; over both databases."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.fleet.hub.counts import Counts
from skerry.fleet.hub.ingest import Ingest
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.retention import Retention, last_in_excess
from skerry.fleet.hub.server import Hub
from skerry.fleet.hub.store import Extent, Filter, Store
from skerry.fleet.hub.tables import packed, runs, stretches, unpacked
from skerry.fleet.hub.writer import Writer
from skerry.spec.units import Duration, Size
from skerry.wire.receipt import Receipt, decode_receipt
from tests.fleet.hub.brokers import until
from tests.fleet.hub.devices import EPOCH, Device, record, records, request
from tests.fleet.hub.test_store_contract import NOW_MS, Picky, digest_sum, take

DAY_MS = 86_400_000


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    made = Writer(store, group=64)
    yield made
    made.close()


def tidy(store: Store, writer: Writer, *, days: float = 0, size: float = 0) -> int:
    options = HubOptions(keep=Duration(days * 86400.0), keep_size=Size(size))
    return Retention(store, writer, options, Counts(), lambda: False).tidy(NOW_MS / 1000)


def test_what_is_gone_is_known_for_ever(store: Store, writer: Writer) -> None:
    take(store, [*records(1, 1500), *records(1600, 4000)], now_ms=NOW_MS - 3 * DAY_MS)
    take(store, records(1501, 1510), now_ms=NOW_MS)
    assert tidy(store, writer, days=2) == 3901 and tidy(store, writer, days=2) == 0
    assert [each.seq for each in store.records()] == list(range(1501, 1511))
    whole = [*records(1, 1510), *records(1600, 4000)]
    again = take(store, [record(1), record(1024), record(1505), *records(1600, 1700), record(4000), record(9000)])
    assert again.committed == [(1, 1), (1024, 1024), (1505, 1505), (1600, 1700), (4000, 4000), (9000, 9000)]
    assert again.count == len(whole) + 1 and len(store.records()) == 11
    # A restored card writes other content under old numbers: it is told so, and nothing of it is lost.
    forked = take(store, [record(3, {"value": "other"}), record(1550), record(2500, {"value": "other"})])
    assert forked.forked == [(3, 3), (2500, 2500)] and forked.committed == [(1550, 1550)]
    assert (forked.count, forked.checksum) == store.recompute_audit("pump-1", EPOCH)
    assert forked.checksum == digest_sum([*whole, record(9000), record(1550)])


def test_an_egress_that_is_behind_holds_up_what_it_has_not_delivered(store: Store, writer: Writer) -> None:
    take(store, records(1, 20), now_ms=NOW_MS - 3 * DAY_MS)
    seventh = store.records()[6].id
    with store.begin() as transaction:
        transaction.move_cursor("slow", seventh)
        transaction.move_cursor("fast", store.last_id())
    assert tidy(store, writer, days=1) == 7
    with store.begin() as transaction:
        assert transaction.forget_cursor("slow") and not transaction.forget_cursor("slow")
    assert tidy(store, writer, days=1) == 12  # the newest one stays: cursors count on from it
    assert [each.seq for each in store.records()] == [20] and store.last_id() == store.records()[0].id


def test_the_oldest_go_where_there_are_too_many(store: Store, writer: Writer) -> None:
    take(store, [record(seq, {"text": "x" * 9_700}) for seq in range(1, 301)])
    assert tidy(store, writer, size=10e6) == 0
    gone = tidy(store, writer, size=1e6)
    assert 190 <= gone <= 210 and tidy(store, writer, size=1e6) == 0
    assert [each.seq for each in store.records()] == list(range(gone + 1, 301))


def test_dead_letters_stay_dead_when_their_neighbours_go(store: Store, writer: Writer) -> None:
    take(store, records(1, 9), ingest=Ingest([Picky(4)]), now_ms=NOW_MS - 3 * DAY_MS)
    with store.begin() as transaction:
        transaction.forget_cursor("effect")
    assert tidy(store, writer, days=1) == 7
    receipt: Receipt = take(store, records(1, 9))
    assert receipt.committed == [(1, 3), (5, 9)] and [seq for seq, _ in receipt.dead] == [4]
    assert (receipt.count, receipt.checksum) == store.recompute_audit("pump-1", EPOCH)


def test_filters_find_the_same_by_an_index_and_without(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pump-1", "pump-2", "pump-3"):
        with store.begin() as transaction:
            sent = [record(seq, mono_us=seq * 1_000_000) for seq in range(1, 41)]
            Ingest().take(Device(name).batch(sent), transaction, NOW_MS)
    begin = NOW_MS - 1_000_000
    asked = [
        Filter(device="pump-2"), Filter(device="pump-9"), Filter(since=begin + 10_000, until=begin + 13_000),
        Filter(device="pump-3", since=begin + 38_000), Filter(epoch=EPOCH, until=begin + 3_000),
    ]  # fmt: skip

    def answers() -> list[list[int]]:
        return [
            [each.id for each in store.records(after=after, limit=5, only=only, newest=newest)]
            for only in asked for after in (0, 50) for newest in (False, True)
        ]  # fmt: skip

    found = answers()
    monkeypatch.setattr("skerry.fleet.hub.sqlite_store.NARROW", 0)
    assert answers() == found and [len(each) for each in found[:2]] == [5, 5]


@given(st.sets(st.tuples(st.integers(1, 3), st.integers(1, 4000)), max_size=200), st.randoms())
def test_runs_hold_every_digest_once(numbers: set[tuple[int, int]], chance: random.Random) -> None:
    marks = [(account, seq, chance.randrange(-(2**63), 2**63)) for account, seq in numbers]
    found = [
        (account, seq, digest - 2**64 if digest >> 63 else digest)
        for account, first, digests in runs(marks)
        for seq, digest in enumerate(unpacked(packed(digests)), first)
    ]
    assert found == sorted(marks)


@given(st.sets(st.integers(1, 20_000)))
def test_stretches_leave_nothing_out(numbers: set[int]) -> None:
    parts = list(stretches(sorted(numbers)))
    assert [seq for part in parts for seq in part] == sorted(numbers)
    assert all(later[0] - earlier[-1] > 1024 for earlier, later in itertools.pairwise(parts))


def test_nothing_is_too_much_where_all_fits() -> None:
    assert last_in_excess(Extent(0, 0, 0.0), 10) == 0
    assert last_in_excess(Extent(11, 20, 750.0), 10_000) == 0 and last_in_excess(Extent(11, 20, 750.0), 9_500) == 11


def test_a_hub_keeps_what_it_is_told(start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.fleet.hub.server.TIDY_S", 0.05)
    ahead = [0.0]

    def clock() -> float:
        return NOW_MS / 1000 + ahead[0]

    hub, device = start_hub(options=HubOptions(keep=Duration(2 * 86400.0)), clock=clock), Device()

    def seqs() -> list[int]:
        return [each["seq"] for each in request(hub.port, "GET", "/v1/records").json()["records"]]

    for first in (1, 11):
        assert request(hub.port, "POST", "/v1/batches", device.pack(records(first, first + 9))).status == 200
        ahead[0] += 86400.0
    assert seqs() == list(range(1, 21))
    ahead[0] += 3600.0
    until(lambda: seqs() == list(range(11, 21)))
    assert "skerry_hub_forgotten_total 10" in request(hub.port, "GET", "/metrics").body.decode()
    assert decode_receipt(request(hub.port, "POST", "/v1/batches", device.pack(records(5, 12))).body).count == 20


def test_an_egress_that_is_not_at_work_is_told_of_and_forgotten(start_hub: Callable[..., Hub]) -> None:
    egress = "http://127.0.0.1:9/x?name=ops"
    hub, device = start_hub(egress=(egress,)), Device()
    assert request(hub.port, "POST", "/v1/batches", device.pack(records(1, 5))).status == 200
    (told,) = request(hub.port, "GET", "/v1/egress").json()["egress"]
    assert (told["name"], told["behind"], told["at_work"], told["position"]) == ("ops", 5, True, 0)
    assert request(hub.port, "POST", "/v1/egress/forget", b'{"name": "ops"}').status == 409
    hub.close()
    without = start_hub()
    (told,) = request(without.port, "GET", "/v1/egress").json()["egress"]
    assert not told["at_work"]
    assert request(without.port, "POST", "/v1/egress/forget", b'{"name": "ops"}').json() == {"forgotten": True}
    assert request(without.port, "GET", "/v1/egress").json() == {"egress": []}
    assert request(without.port, "POST", "/v1/egress/forget", b"{}").status == 400


def test_a_chore_that_fails_holds_up_no_other_and_is_done_again(
    start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.fleet.hub.server.TIDY_S", 0.02)
    done: list[str] = []

    def failing(_self: object, *_: object) -> None:
        done.append("uploads")
        raise ZeroDivisionError

    async def refreshed(_self: object, *_: object) -> None:
        done.append("certificate")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skerry.fleet.hub.server.Hub._refresh", refreshed)
    hub = start_hub()
    monkeypatch.setattr("skerry.fleet.hub.blobs.Blobs.sweep", failing)
    until(lambda: min(done.count("uploads"), done.count("certificate")) >= 3)
    assert request(hub.port, "GET", "/healthz").status == 200
