"""What every store of a hub has to do, and ingest on top of it; over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.fleet.hub.clock import Offset
from skerry.fleet.hub.ingest import REPLAYED, Ingest, replay
from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.fleet.hub.store import Filter, KnownKey, Store, StoredRecord, Transaction
from skerry.spec.errors import HubError, WireError
from skerry.wire.receipt import Receipt
from skerry.wire.record import Moment, WireRecord, record_digest
from tests.fleet.hub.conftest import in_memory
from tests.fleet.hub.devices import BOOT, EARLIER_BOOT, EPOCH, Device, record, records

NOW_MS = 1_800_000_000_000


def take(store: Store, sent: Sequence[WireRecord], *, ingest: Ingest | None = None, now_ms: int = NOW_MS) -> Receipt:
    """Take a batch of the device and commit it."""
    with store.begin() as transaction:
        return (ingest or Ingest()).take(Device().batch(sent), transaction, now_ms)[0]


def digest_sum(sent: Sequence[WireRecord]) -> int:
    return sum(record_digest(each) for each in sent) % 2**64


def test_records_are_stored_as_they_were_sent(store: Store) -> None:
    fields = {"text": "é\n\u0000", "big": 2**70, "zero": -0.0, "none": None, "list": [1, {"a": True}], "": 1e-300}
    take(store, [record(7, fields, priority=3, release="sha256:1")])
    (found,) = store.records()
    assert json.loads(found.fields) == fields and str(json.loads(found.fields)["zero"]) == "-0.0"
    assert (found.device, found.epoch, found.seq, found.stream) == ("pump-1", EPOCH, 7, "events")
    assert (found.priority, found.release, found.received_ms) == (3, "sha256:1", NOW_MS)


def test_what_comes_again_is_committed_but_stored_once(store: Store) -> None:
    first, again = take(store, records(1, 10)), take(store, records(5, 15))
    assert first.committed == [(1, 10)] and again.committed == [(5, 15)]
    assert [each.seq for each in store.records()] == list(range(1, 16))
    assert (again.count, again.checksum) == (15, digest_sum(records(1, 15)))
    assert store.recompute_audit("pump-1", EPOCH) == (15, digest_sum(records(1, 15)))


def test_other_content_under_the_same_number_is_a_fork(store: Store) -> None:
    take(store, records(1, 4))
    receipt = take(store, [record(2, {"value": "other"}), record(3), record(4, stream="else"), record(5)])
    assert receipt.committed == [(3, 3), (5, 5)] and receipt.forked == [(2, 2), (4, 4)]
    assert receipt.count == 5


def test_devices_and_epochs_do_not_mix(store: Store) -> None:
    with store.begin() as transaction:
        for device in (Device("a"), Device("b"), Device("a", epoch="ff" * 8)):
            Ingest().take(device.batch(records(1, 3)), transaction, NOW_MS)
    assert sorted((each.device, each.epoch, each.count) for each in store.accounts()) == [
        ("a", EPOCH, 3), ("a", "ff" * 8, 3), ("b", EPOCH, 3)
    ]  # fmt: skip
    assert len(store.records(only=Filter(device="a"))) == 6
    assert len(store.records(only=Filter(device="a", epoch=EPOCH))) == 3


def test_what_was_undone_is_not_there(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as transaction:
        Ingest().take(Device().batch(records(1, 3)), transaction, NOW_MS)
        raise ZeroDivisionError
    assert store.records() == [] and store.accounts() == []
    assert take(store, records(1, 3)).count == 3


def test_a_closed_store_opens_again_with_all_it_had(open_store: Callable[[], Store]) -> None:
    store = open_store()
    take(store, records(1, 3))
    with store.begin() as transaction:
        transaction.move_cursor("out", 2)
    store.close()
    again = open_store()
    assert [each.seq for each in again.records()] == [1, 2, 3]
    assert again.cursor("out") == 2 and again.cursor("never") is None
    assert take(again, records(3, 4)).count == 4


class Picky:
    """An effect that does not take some values, and notes in the store what it took."""

    def __init__(self, *bad: int) -> None:
        self.bad, self.calls = bad, 0

    def __call__(self, transaction: Transaction, rows: Sequence[StoredRecord]) -> None:
        self.calls += 1
        for row in rows:
            if row.seq in self.bad:
                raise LookupError(f"no rule for {row.seq}")
        transaction.move_cursor("effect", rows[-1].seq)


def test_poison_is_found_by_halves_and_the_rest_is_stored(store: Store) -> None:
    effect = Picky(17, 64)
    receipt = take(store, records(1, 100), ingest=Ingest([effect]))
    assert receipt.dead == [(17, "LookupError: no rule for 17"), (64, "LookupError: no rule for 64")]
    assert receipt.committed == [(1, 16), (18, 63), (65, 100)] and receipt.count == 98
    assert effect.calls < 40  # 2 log2(100) halvings of each side, not 100 attempts
    assert [letter.seq for letter in store.dead_letters()] == [17, 64]
    assert store.recompute_audit("pump-1", EPOCH) == (98, receipt.checksum)


def test_a_dead_record_that_comes_again_is_dead_and_can_be_replayed_or_dropped(store: Store) -> None:
    ingest = Ingest([Picky(2, 3)])
    take(store, records(1, 3), ingest=ingest)
    assert [seq for seq, _ in take(store, records(1, 3), ingest=ingest).dead] == [2, 3]
    assert take(store, [record(2, {"value": "other"})], ingest=ingest).forked == [(2, 2)]
    two, three = store.dead_letters()
    with store.begin() as transaction:
        assert "no rule" in replay(two, ingest, transaction)
        assert replay(two, Ingest(), transaction) == ""
        transaction.drop_dead(three.id, "dropped by ann")
    assert store.dead_letters() == [] and sorted(each.seq for each in store.records()) == [1, 2]
    # Its device was told that 2 is dead, or will be if that answer got lost: both sides count the same for ever.
    receipt = take(store, records(1, 3))
    assert receipt.committed == [(1, 1)] and receipt.dead == [(2, REPLAYED), (3, "dropped by ann")]
    assert (receipt.count, receipt.checksum) == store.recompute_audit("pump-1", EPOCH) == (1, digest_sum(records(1, 1)))
    with store.begin() as transaction:
        for late in (two, three):  # somebody else saw them when they were still dead
            assert "meanwhile" in replay(late, Ingest(), transaction)
    assert len(store.records()) == 2


def test_a_value_that_no_column_takes_is_poison_and_not_the_end(store: Store) -> None:
    sent = [record(1), record(2, mono_us=2**63), record(3)]
    receipt = take(store, sent)
    assert receipt.committed == [(1, 1), (3, 3)] and [seq for seq, _ in receipt.dead] == [2]


def test_a_failing_disk_is_no_poison(store: Store) -> None:
    def full(_transaction: Transaction, _rows: Sequence[StoredRecord]) -> None:
        raise HubError("no space is left")

    with pytest.raises(HubError, match="no space"):
        take(store, records(1, 3), ingest=Ingest([full]))
    assert store.dead_letters() == [] and take(store, records(1, 3)).count == 3


@pytest.mark.parametrize("sent", [[record(1), record(1)], [record(2**62 + 1)], [record(0)]])
def test_numbers_that_cannot_be_are_refused(store: Store, sent: list[WireRecord]) -> None:
    with pytest.raises(WireError):
        take(store, sent)


def test_losses_are_merged_by_the_largest(store: Store) -> None:
    for losses in ({"evicted.low": 5}, {"evicted.low": 3, "expired.high": 1}):
        with store.begin() as transaction:
            Ingest().take(Device().batch(records(1, 2), losses=losses), transaction, NOW_MS)
    assert store.accounts()[0].losses == {"evicted.low": 5, "expired.high": 1}


def test_times_are_by_the_hubs_clock_wherever_it_can_be(store: Store) -> None:
    earlier = Moment(EARLIER_BOOT, 5_000_000, False)
    take(store, [record(10), record(11, moment=earlier), record(12, moment=Moment("ee" * 16, 7_000, True))])
    # The batch left 1,000 s after the boot and arrived at NOW_MS; the record was made 10 s after the boot.
    found = {each.seq: (each.at_ms, each.at_from) for each in store.records()}
    assert found[10] == (NOW_MS - 990_000, "hub")
    assert found[11] == (None, "unknown")
    assert found[12] == (19_000, "wall")
    with store.begin() as transaction:
        transaction.learn_offset("pump-1", EARLIER_BOOT, Offset(NOW_MS - 2_000_000, NOW_MS))
    take(store, [record(13, moment=earlier)])
    assert store.records()[-1].at_ms == NOW_MS - 2_000_000 + 13_000 and store.records()[-1].at_from == "offset"


def test_records_are_listed_in_order_by_filter_and_from_a_number(store: Store) -> None:
    take(store, [record(seq, stream=f"s{seq % 2}", priority=seq % 4) for seq in range(1, 21)])
    assert [each.id for each in store.records()] == sorted(each.id for each in store.records())
    third = store.records()[2].id
    assert [each.seq for each in store.records(after=third, limit=2)] == [4, 5]
    assert [each.seq for each in store.records(limit=2, newest=True)] == [19, 20]
    assert [each.seq for each in store.records(only=Filter(stream="s0", priority=2))] == [2, 6, 10, 14, 18]
    since = NOW_MS - 1_000_000 + 18_000
    assert [each.seq for each in store.records(only=Filter(since=since))] == [18, 19, 20]
    assert [each.seq for each in store.records(only=Filter(since=since, until=since + 1))] == [18]
    assert store.last_id() == store.records()[-1].id


def test_no_more_is_read_at_once_than_fits(store: Store) -> None:
    take(store, [record(seq, {"text": "x" * 3_000_000}) for seq in range(1, 11)])
    first = store.records()
    assert [each.seq for each in first] == [1, 2]
    assert [each.seq for each in store.records(after=first[-1].id)] == [3, 4]
    assert [each.seq for each in store.records(newest=True)] == [9, 10]


def test_keys_are_kept_and_forgotten(store: Store) -> None:
    with store.begin() as transaction:
        transaction.add_key(KnownKey("a", b"12345678", b"der", 5))
        transaction.add_key(KnownKey("a", b"12345678", b"other", 6))
    with store.begin() as transaction:
        assert transaction.keys("a") == [KnownKey("a", b"12345678", b"der", 5)] and transaction.keys("b") == []
        assert transaction.forget_keys("a") == 1 and transaction.keys("a") == []


def test_savepoints_nest(store: Store) -> None:
    with store.begin() as transaction:
        transaction.move_cursor("a", 1)
        with pytest.raises(ZeroDivisionError), transaction.savepoint():
            transaction.move_cursor("a", 2)
            with transaction.savepoint():
                transaction.move_cursor("a", 3)
            raise ZeroDivisionError
        with transaction.savepoint():
            transaction.move_cursor("b", 4)
    assert (store.cursor("a"), store.cursor("b")) == (1, 4)


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12, unique=True), max_size=8), st.randoms())
def test_any_order_of_any_repetitions_gives_each_record_once(batches: list[list[int]], chance: random.Random) -> None:
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        check_any_order(Path(folder), batches, chance)


def check_any_order(folder: Path, batches: list[list[int]], chance: random.Random) -> None:
    store = SqliteStore(folder / "hub.db")
    poison = {seq for seq in range(1, 31) if chance.random() < 0.1}
    try:
        for seqs in batches:
            receipt = take(store, [record(seq) for seq in seqs], ingest=Ingest([Picky(*poison)]))
            told = {n for first, last in receipt.committed for n in range(first, last + 1)}
            assert told == set(seqs) - poison and {seq for seq, _ in receipt.dead} == set(seqs) & poison
        wanted = {seq for seqs in batches for seq in seqs} - poison
        assert sorted(each.seq for each in store.records()) == sorted(wanted)
        if batches:
            assert (receipt.count, receipt.checksum) == store.recompute_audit("pump-1", EPOCH)
    finally:
        store.close()


def test_the_boot_is_what_the_header_says(store: Store) -> None:
    take(store, records(1, 1))
    assert store.records()[0].boot == BOOT
