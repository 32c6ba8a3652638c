"""A damaged store: put aside, what can be read is saved, and the device goes on under a new epoch."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import apsw
import pytest

from skerry.run.outbox import Outbox
from skerry.run.outbox.recovery import successor_of
from skerry.spec.errors import OutboxError
from tests.run.outbox.parts import PAGE, item, numbers, opened, pages_of, spoil


def filled(folder: Path, count: int = 200) -> str:
    with opened(folder) as outbox:
        outbox.put([item(number, size=100) for number in range(count)])
        outbox.put([item(1000, "critical"), item(1001, "low")])
        outbox.bury(1, "poison")
        return outbox.epoch


def aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.split("-")[-1].isdecimal())


@pytest.mark.parametrize("content", [b"", b"not a database at all " * 500, b"\0" * 9000])
def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "outbox.db").write_bytes(content)
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
        assert numbers(outbox) == [1]
        if content:
            assert outbox.losses() == {"damaged.stores": 1}
            assert (tmp_path / "outbox.db.damaged-1").read_bytes() == content


def test_a_database_of_somebody_else_is_put_aside(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "outbox.db"))
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
    assert (tmp_path / "outbox.db.damaged-1").exists()


def test_a_store_of_a_newer_skerry_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    connection = apsw.Connection(str(tmp_path / "outbox.db"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OutboxError, match="form 99"):
        opened(tmp_path)
    assert aside(tmp_path) == []


def test_one_damaged_page_of_records_costs_only_its_records(tmp_path: Path) -> None:
    epoch = filled(tmp_path)
    path = tmp_path / "outbox.db"
    leaves = pages_of(path, "normal")[1:]
    spoil(path, [leaves[len(leaves) // 2]])
    with opened(tmp_path) as outbox:
        left = numbers(outbox)
        assert outbox.epoch == epoch, "what was on its way is still the same record to the hub"
        assert {1000, 1001} <= set(left)
        assert 202 - 2 * PAGE // 100 - 1 <= len(left) < 201
        assert left[1:-1] == sorted(left[1:-1])
        assert outbox.losses()["damaged.stores"] == 1
        assert [letter.reason for letter in outbox.dead()] == ["poison"]
    assert aside(tmp_path) == ["outbox.db.damaged-1"]


@pytest.mark.parametrize("table", ["store", "loss", "dead", "sqlite_sequence", "low"])
def test_damage_beside_the_records_costs_none_of_them(tmp_path: Path, table: str) -> None:
    filled(tmp_path)
    path = tmp_path / "outbox.db"
    spoil(path, pages_of(path, table)[:1])
    with opened(tmp_path) as outbox:
        outbox.losses()
        outbox.dead()
        outbox.put([item(2000)])
        expected = {*range(1, 200), 1000, 1001, 2000} - ({1001} if table == "low" else set())
        assert set(numbers(outbox)) == expected


def test_any_damage_leaves_a_store_that_works(tmp_path: Path) -> None:
    filled(tmp_path / "whole")
    size = (tmp_path / "whole" / "outbox.db").stat().st_size
    for seed in range(40):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / "outbox.db"
        with path.open("r+b") as file:
            for _ in range(chance.choice([1, 3, 30])):
                file.seek(chance.randrange(size))
                file.write(chance.randbytes(chance.choice([1, 16, 5000])))
            if chance.random() < 0.3:
                file.truncate(chance.randrange(size))
        path.with_name("outbox.db-wal").unlink(missing_ok=True)
        with opened(folder, synchronous="OFF") as outbox:
            outbox.put([item(5000)])
            found = numbers(outbox)
            assert 5000 in found
            assert set(found) <= {*range(200), 1000, 1001, 5000}, "nothing is invented"
            outbox.settle([(1, 2**62)])
            assert numbers(outbox) == []


def test_a_page_that_is_damaged_during_a_run_stops_nobody(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(number, size=100) for number in range(2000)])
        outbox.put([item(3000, "critical")])
        # Pages that are still in the log come from there, damage or not.
        outbox._store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        epoch = outbox.epoch
        leaves = pages_of(outbox.path, "normal")[1:]
        with outbox.path.open("r+b") as file:
            for page in leaves[1:20]:
                file.seek((page - 1) * PAGE)
                file.write(random.Random(page).randbytes(PAGE))
        outbox._store.connection.execute("PRAGMA shrink_memory")  # what is still in memory would hide it
        outbox._store.connection.execute("PRAGMA cache_size = 1")
        before = outbox.settle([(1, 5)], epoch=epoch), outbox.audit()
        left = numbers(outbox)
        assert outbox.epoch == epoch, "what was on its way is still the same record to the hub"
        assert before[0] == outbox.audit()[0] == 5
        assert left[0] == 3000
        losses = outbox.losses()
        assert losses["damaged.stores"] == 1
        assert losses["damaged.normal"] == 1996 - len(left), "what was lost is known to the record"
        assert outbox.put([item(4000)]) == [2002], "numbers go on"
        assert 4000 in numbers(outbox)


def test_a_record_whose_content_has_changed_is_not_sent(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "outbox.db"
    content = path.read_bytes()
    wanted = b"\xa1n\xcc\x96\xa3pad"  # 150 and its pad, in MessagePack; a page that was split may hold it twice
    assert wanted in content
    path.write_bytes(content.replace(wanted, wanted[:3] + b"\x97" + wanted[4:]))
    path.with_name("outbox.db-wal").unlink(missing_ok=True)
    with opened(tmp_path) as outbox:
        epoch = outbox.epoch
        assert len(numbers(outbox)) == 200
        assert outbox.losses()["damaged.normal"] == 1
        assert outbox.status().pending == 200
        assert outbox.epoch == epoch, "one record is no reason to begin anew"


@pytest.mark.parametrize("step", range(4))
def test_a_recovery_that_is_interrupted_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    filled(tmp_path)
    path = tmp_path / "outbox.db"
    spoil(path, pages_of(path, "store")[:1])
    path.with_name("outbox.db-wal").write_bytes(b"")
    rename, done = Path.rename, 0

    class PowerCutError(BaseException):
        pass

    def interrupted(source: Path, target: Path) -> Path:
        nonlocal done
        if done == step:
            raise PowerCutError
        done += 1
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    try:
        opened(tmp_path).close()
    except PowerCutError:
        pass
    else:
        assert step >= 2
    monkeypatch.undo()
    with opened(tmp_path) as outbox:
        assert set(numbers(outbox)) == {*range(1, 200), 1000, 1001}
        assert outbox.losses()["damaged.stores"] == 1
    assert not successor_of(path).exists()


def test_what_was_on_its_way_when_damage_is_found_is_no_duplicate_to_the_hub(tmp_path: Path) -> None:
    epoch = filled(tmp_path)
    with opened(tmp_path) as outbox:
        outbox.settle([(2, 10)])
        audit = outbox.audit()
        sent = {record.seq: record.fields["n"] for record in outbox.pending(50)}
        last = outbox.status().last_seq
    path = tmp_path / "outbox.db"
    spoil(path, pages_of(path, "normal")[-2:-1])
    with opened(tmp_path) as outbox:
        assert outbox.losses()["damaged.stores"] == 1
        again = {record.seq: record.fields["n"] for record in outbox.pending()}
        assert outbox.epoch == epoch
        assert sent.items() <= again.items(), "the same numbers"
        assert outbox.audit() == audit
        (new,) = outbox.put([item(5000)])
        assert new > last + 1, "how many numbers the lost page had is not known: none is given twice"
        assert outbox.settle([(1, last)], epoch=epoch) == len(again)


def test_a_damaged_count_of_losses_begins_a_new_epoch(tmp_path: Path) -> None:
    """The hub keeps the greater of two totals: new losses would hide behind the old ones."""
    epoch = filled(tmp_path)
    path = tmp_path / "outbox.db"
    spoil(path, pages_of(path, "loss")[:1])
    with opened(tmp_path) as outbox:
        assert outbox.epoch != epoch
        assert outbox.audit() == (0, 0)


def test_a_database_that_was_cut_to_nothing_is_damage(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.put([item(1)])
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy)
    outbox.close()
    (copy / "outbox.db").write_bytes(b"")
    with opened(copy) as found:
        assert found.losses() == {"damaged.stores": 1}
    assert (copy / "outbox.db.damaged-1-wal").stat().st_size > 0, "for whoever wants to look"


def test_losses_that_only_memory_knows_survive_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
        outbox._store.unwritten = {"refused.low.disk": 7}
        outbox._store.connection.close()
        outbox._replace()
        assert outbox.losses()["refused.low.disk"] == 7


def test_two_copies_of_one_store_are_told_apart_by_a_fork(tmp_path: Path) -> None:
    """A restored image of a disk: both copies give the same numbers to other records, the hub says so, one forks."""
    filled(tmp_path / "device", 5)
    shutil.copytree(tmp_path / "device", tmp_path / "image")
    with opened(tmp_path / "device") as device, opened(tmp_path / "image") as image:
        assert device.epoch == image.epoch
        (one,), (other,) = device.put([item(10)]), image.put([item(20)])
        assert one == other
        hub = _Hub()
        assert hub.take(device) == []
        forked = hub.take(image)
        assert forked == [(other, other)], "what both hold alike is a duplicate, what differs is a fork"
        before = image.epoch
        image.fork("the hub holds another record under this number")
        assert image.epoch != before
        assert hub.take(image) == []
        assert sorted(hub.content.values()) == [1, 2, 3, 4, 10, 20, 1000, 1001]


class _Hub:
    """Takes what waits, as the hub does: by identity and digest."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, int], int] = {}

    def take(self, outbox: Outbox) -> list[tuple[int, int]]:
        committed, forked = [], []
        for record in outbox.pending():
            known = self.content.setdefault((outbox.epoch, record.seq), record.fields["n"])
            (committed if known == record.fields["n"] else forked).append((record.seq, record.seq))
        outbox.settle(committed)
        return forked


def test_a_text_that_is_none_any_more_is_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "outbox.db"
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE normal SET wall_ms = CAST(x'cfcfcfcf' AS TEXT) WHERE seq = 50")
    connection.execute("UPDATE loss SET name = CAST(x'cfcfcfcf' AS TEXT)")
    connection.close()
    with opened(tmp_path) as outbox:
        outbox.put([item(5000)])
        assert outbox.losses()["damaged.stores"] == 1
        assert {*range(1, 49), 1000, 1001, 5000} <= set(numbers(outbox))
