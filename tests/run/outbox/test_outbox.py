"""The outbox as its callers see it: what was put in comes out, once, in order, until the hub has it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.outbox import Item, ItemsRefusedError, Outbox, folder, looking
from skerry.run.outbox.item import Packer, unpack
from skerry.run.outbox.life import Instant
from skerry.run.outbox.options import PRIORITIES
from skerry.spec.errors import OutboxError, SpecError
from skerry.spec.units import Size
from skerry.wire.record import Moment, WireRecord, canonical, record_digest
from tests.run.outbox.parts import item, numbers, opened, options

ODD_VALUES: dict[str, Any] = {
    "minus zero": -0.0, "large": 10**40, "small": -(2**70), "text": "ä\u2028\0", "nothing": None, "truth": True,
    "list": [1, [2, {"deep": []}]], "tiny": 5e-324, "empty": {},
}  # fmt: skip


def test_records_come_out_as_they_went_in(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        assert outbox.put([Item(stream="s", fields=ODD_VALUES, priority="high", release="sha256:ab")]) == [1]
        (record,) = outbox.pending()
    assert record.fields == ODD_VALUES
    assert str(record.fields["minus zero"]) == "-0.0"
    assert (record.seq, record.stream, record.priority, record.release) == (1, "s", 2, "sha256:ab")
    assert len(record.moment.boot) == 32


def test_the_highest_class_goes_first_and_within_it_the_oldest(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1, "low"), item(2, "critical"), item(3), item(4, "high"), item(5, "critical")])
        assert numbers(outbox) == [2, 5, 4, 3, 1]
        assert [record.fields["n"] for record in outbox.pending(2)] == [2, 5]
        assert [record.fields["n"] for record in outbox.pending(excluding=[(2, 4)])] == [5, 1]
        assert len(outbox.pending(max_bytes=1)) == 1, "one record goes whatever its size"


def test_what_was_put_survives_a_restart_and_numbers_go_on(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        assert outbox.put([item(1), item(2)]) == [1, 2]
        epoch = outbox.epoch
        assert outbox.settle([(1, 2)]) == 2
    with opened(tmp_path) as outbox:
        assert outbox.epoch == epoch
        assert outbox.put([item(3)]) == [3], "a number is never given twice, not even one of a record that is gone"
        assert numbers(outbox) == [3]


def test_the_audit_sums_digests_of_what_was_settled(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(number) for number in range(50)])
        records = outbox.pending()
        assert outbox.settle([(1, 10), (20, 20), (99, 200)]) == 11
        assert outbox.settle([(1, 10)]) == 0, "what is gone is not counted twice"
        expected = sum(record_digest(r) for r in records if r.seq <= 10 or r.seq == 20) % 2**64
        assert outbox.audit() == (11, expected)
    with opened(tmp_path) as outbox:
        assert outbox.audit() == (11, expected)


def test_a_receipt_of_an_earlier_epoch_settles_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
        before = outbox.epoch
        after = outbox.fork("the hub holds other records under these numbers")
        assert after == outbox.epoch != before
        assert outbox.settle([(1, 9)], epoch=before) == 0
        assert outbox.audit() == (0, 0)
        assert outbox.settle([(1, 9)], epoch=after) == 1


def test_a_fork_keeps_every_unsent_record_and_its_order(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(number, priority) for number, priority in enumerate(PRIORITIES)])
        outbox.settle([(1, 1)])
        outbox.fork("restored")
        assert numbers(outbox) == [3, 2, 1]
        assert outbox.status().forks == 1
        assert outbox.status().fork_reason == "restored"


def test_only_losses_that_the_hub_was_not_told_of_go_on_into_a_new_epoch(tmp_path: Path) -> None:
    small = options(max_size=Size(2000), max_record=Size(1000))
    with opened(tmp_path, options=small) as outbox:
        outbox.put([item(number, size=500) for number in range(6)])
        told = outbox.losses()
        assert told["evicted.normal.caps"] >= 3
        outbox.settle([], told=told)
        outbox.put([item(7, size=500), item(8, size=500)])
        total = outbox.losses()["evicted.normal.caps"]
        outbox.fork("restored")
        assert outbox.losses() == {"evicted.normal.caps": total - told["evicted.normal.caps"]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"a": float("nan")}, "'a' is nan"),
        ({"a": [1.0, float("inf")]}, "a[1]"),
        ({"a": {"b": b"bytes"}}, "'a.b' is bytes"),
        ({1: 2}, "key 1 is no text"),
        ({"a": {2: 3}}, "key 2"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": "x" * 100_000_000}, "max_record"),
        ([], "not a dict"),
    ],
)
def test_a_record_that_cannot_be_stored_is_named_and_takes_no_other_with_it(
    tmp_path: Path, fields: Any, words: str
) -> None:
    with opened(tmp_path) as outbox:
        with pytest.raises(ItemsRefusedError, match="item 2 of 3") as caught:
            outbox.put([item(1), Item(stream="s", fields=fields), item(3)])
        assert words in str(caught.value)
        assert list(caught.value.refused) == [1]
        assert caught.value.seqs == [1, 0, 2]
        assert numbers(outbox) == [1, 3]


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with opened(tmp_path) as outbox, pytest.raises(ItemsRefusedError, match="deeper"):
        outbox.put([Item(stream="s", fields={"a": endless})])


def test_subclasses_and_tuples_become_plain(tmp_path: Path) -> None:
    class Text(str):
        __slots__ = ()

    with opened(tmp_path) as outbox:
        outbox.put([Item(stream="s", fields={"a": (1, 2), "b": Text("b")})])
        assert outbox.pending()[0].fields == {"a": [1, 2], "b": "b"}


def test_an_unknown_priority_or_a_negative_ttl_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox, pytest.raises(ItemsRefusedError) as caught:
        outbox.put([item(1, "urgent"), item(2, ttl_s=-1.0), item(3)])  # type: ignore[arg-type]
    assert "urgent" in caught.value.refused[0]
    assert set(caught.value.refused) == {0, 1}


def test_limits_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="max_record"):
        opened(tmp_path, options=options(max_size=Size(10)))
    with pytest.raises(SpecError, match="class_sizes"):
        opened(tmp_path, options=options(class_sizes={"low": Size(10)}))


def test_callers_of_many_threads_each_get_their_own_numbers(tmp_path: Path) -> None:
    given_numbers: dict[int, list[int]] = {}
    with opened(tmp_path) as outbox:

        def produce(thread: int) -> None:
            given_numbers[thread] = [outbox.put([item(thread * 100 + n)])[0] for n in range(20)]

        threads = [threading.Thread(target=produce, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        by_seq = {record.seq: record.fields["n"] for record in outbox.pending(1000)}
    assert len(by_seq) == 320
    for thread, seqs in given_numbers.items():
        assert seqs == sorted(seqs)
        assert [by_seq[seq] for seq in seqs] == [thread * 100 + n for n in range(20)]


def test_waiting_ends_when_something_comes_or_the_outbox_is_closed(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    assert not outbox.wait(0.01)
    late = threading.Timer(0.05, outbox.put, [[item(1)]])
    late.start()
    assert outbox.wait(20)
    assert not outbox.wait(0.01, beyond=1), "nothing above what is known"
    closer = threading.Timer(0.05, outbox.close)
    closer.start()
    assert not outbox.wait(20, beyond=1)
    late.join()
    closer.join()
    with pytest.raises(OutboxError, match="closed"):
        outbox.put([item(2)])


def test_dead_letters_are_listed_replayed_and_dropped(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1, "high"), item(2), item(3)])
        outbox.bury(1, "the hub cannot read it")
        outbox.bury(3, "x" * 10_000)
        outbox.bury(99, "nobody")
        first, second = outbox.dead()
        assert (first.seq, first.reason, first.fields["n"]) == (1, "the hub cannot read it", 1)
        assert first.priority == "high"
        assert len(second.reason) == 500
        assert numbers(outbox) == [2]
        assert outbox.replay([first.id, 77]) == 1
        assert numbers(outbox) == [1, 2]
        assert [record.seq for record in outbox.pending()] == [4, 2], "it is a new record to the hub"
        assert outbox.drop() == 1
        assert outbox.dead() == []
        assert outbox.losses() == {"buried.high": 1, "buried.normal": 1}


def test_dead_letters_have_a_cap_of_their_own(tmp_path: Path) -> None:
    with opened(tmp_path, options=options(dead_size=Size(1000))) as outbox:
        outbox.put([item(number, size=300) for number in range(4)])
        for seq in range(1, 5):
            outbox.bury(seq, "poison")
        assert [letter.fields["n"] for letter in outbox.dead()] == [2, 3]
        assert outbox.losses()["dead.dropped"] == 2


def test_a_store_of_another_device_begins_a_new_epoch(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
        epoch = outbox.epoch
    with opened(tmp_path, device="pump-8") as outbox:
        assert outbox.epoch != epoch
        assert outbox.device == "pump-8"
        assert numbers(outbox) == [1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.text(), json_values, max_size=5))
def test_every_json_record_is_packed_without_loss(fields: dict[str, Any]) -> None:
    moment = Moment("0" * 32, 7, True)
    (packed,), refused = Packer(options()).pack(Instant(5, moment, 1, None), [Item(stream="s", fields=fields)])
    assert not refused
    assert packed.payload == canonical(WireRecord(9, "s", fields, 5, moment))
    record = unpack(9, 1, packed.digest, packed.payload)
    assert record.fields == fields
    assert json.dumps(record.fields, sort_keys=True) == json.dumps(fields, sort_keys=True), "minus zero too"
    assert record_digest(record) % 2**64 == packed.digest % 2**64


@pytest.mark.parametrize(
    "value", [b"\xcb\x7f\xf0".decode("latin-1"), 1.7976931348623157e308, -1e308, "\u02ff\u0bf0" * 99]
)
def test_what_only_looks_like_no_number_is_stored(tmp_path: Path, value: Any) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([Item(stream="s", fields={"a": value})])
        assert outbox.pending()[0].fields == {"a": value}


def test_one_store_for_each_who_opens_the_folder(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        assert [first.path.name, second.path.name] == ["outbox.db", "outbox-1.db"]
        assert first.epoch != second.epoch
        first.put([item(1)])
        second.put([item(2)])
        assert numbers(first) == [1]
        assert first.adopt() == []
    with opened(tmp_path) as again:
        assert again.path.name == "outbox.db"
        (orphan,) = again.adopt()
        with orphan:
            assert orphan.epoch == second.epoch
            assert numbers(orphan) == [2]
            assert again.adopt() == [], "it is held now"
            orphan.settle([(1, 1)])
        (orphan,) = again.adopt()
        assert orphan.retire(), "it is empty"
        assert [path.name for path in tmp_path.glob("outbox-1*")] == []
        assert again.adopt() == []
        again.bury(1, "poison")
        assert not again.retire(), "somebody has to look at the dead letter"
        assert again.path.exists()


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match="cannot be locked"):
        Outbox(tmp_path / "file" / "outbox.db", device="d")


def test_a_store_that_cannot_be_adopted_is_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path), opened(tmp_path) as second:
        second.put([item(1)])
    connection = apsw.Connection(str(tmp_path / "outbox-1.db"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with opened(tmp_path) as outbox:
        assert outbox.adopt() == []
    assert (tmp_path / "outbox-1.db").exists()


def test_the_log_keeps_its_size_so_that_a_commit_finds_its_space(tmp_path: Path) -> None:
    with opened(tmp_path, options=options(reserve=Size(400e3))) as outbox:
        log = outbox.path.with_name("outbox.db-wal")
        size = log.stat().st_size
        assert size >= 400_000
        for number in range(600):
            outbox.put([item(number)])
        assert log.stat().st_size == size
    with opened(tmp_path) as outbox:
        assert log.stat().st_size == size, "it is kept over a restart"
        assert len(numbers(outbox)) == 600


def test_a_process_that_comes_in_the_moment_of_a_replay_is_asked_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
        outbox.bury(1, "poison")
        monkeypatch.setattr(folder, "is_held", lambda path: False)
        assert not looking.change(outbox.path, "replay", None, 0.1)
        assert not (tmp_path / "outbox-1.db").exists(), "no store is left over"
        outbox._tended_us = -(10**9)
        outbox.losses()
        assert numbers(outbox) == [1]
