"""A full disk, a real one: what matters most is still taken, all else is counted, and room again is enough to go on."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from skerry.run.outbox import Outbox, OutboxOptions
from skerry.spec.errors import OutboxError, OutboxFullError
from skerry.spec.units import Size
from tests.run.outbox.parts import item, numbers, pages_of, spoil

DISK = 6_000_000
OPTIONS = OutboxOptions(max_size=Size(50e6), ballast=Size(1e6), reserve=Size(500e3))
_MS_NOSUID = 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of six megabytes, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.mount(b"tmpfs", bytes(place), b"tmpfs", _MS_NOSUID, f"size={DISK}".encode()) != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    if libc.umount2(bytes(place), 2) != 0:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(disk: Path, leave: int = 0) -> Path:
    """Let somebody else fill the disk."""
    other = disk / "somebody-else"
    with other.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(file.tell() - leave, 0))
    return other


def count_of(outbox: Outbox) -> int:
    return outbox.status().pending + sum(outbox.losses().values())


def test_others_fill_the_disk_and_make_room_again(disk: Path) -> None:
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        outbox.put([item(number, size=500) for number in range(1000)])
        assert outbox.status().ballast_bytes == 1e6
        other = fill(disk)
        put = 1000
        for number in range(1800):
            outbox.put([item(10_000 + number, "critical", size=500), item(20_000 + number, "low", size=500)])
            put += 2
        assert outbox.status().ballast_bytes == 0
        kept = set(numbers(outbox))
        assert {*range(10_000, 11_800)} <= kept, "not one critical record was given up"
        assert count_of(outbox) == put
        losses = outbox.losses()
        assert set(losses) <= {"evicted.low.disk", "evicted.normal.disk", "refused.low.disk", "refused.normal.disk"}
        other.unlink()
        before = sum(outbox.losses().values())
        for start in range(30_000, 31_000, 100):
            outbox.put([item(start + number, "low", size=500) for number in range(100)])
        assert {*range(30_000, 31_000)} <= set(numbers(outbox)), "no restart was needed"
        assert sum(outbox.losses().values()) == before
        outbox._tended_us = -(10**9)
        outbox.losses()
        assert outbox.status().ballast_bytes == 1e6, "the ballast is taken again"
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        assert sum(outbox.losses().values()) == before
        assert count_of(outbox) == put + 1000


def test_a_disk_that_is_full_of_critical_records_says_so_and_goes_on_when_they_are_sent(disk: Path) -> None:
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        taken: list[int] = []
        with pytest.raises(OutboxFullError, match="full"):
            for number in range(100_000):
                outbox.put([item(number, "critical", size=5000)])
                taken.append(number)
        assert numbers(outbox) == taken, "what was acknowledged is there"
        assert outbox.put([item(1, "normal", size=5000)]) == [0]
        assert outbox.losses() == {"refused.normal.disk": 1}
        assert len(taken) > DISK / 5000 / 2, "most of the disk was of use"
        batch = outbox.pending(200)
        assert outbox.settle([(record.seq, record.seq) for record in batch]) == len(batch)
        more = [outbox.put([item(200_000 + number, "critical", size=5000)])[0] for number in range(len(batch) // 2)]
        assert all(more)


def test_opening_on_a_full_disk_works_where_the_store_is_there(disk: Path) -> None:
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        outbox.put([item(number, size=500) for number in range(500)])
    fill(disk)
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        assert len(numbers(outbox)) == 500
        assert outbox.put([item(1000, "critical")])[0] > 0
        assert outbox.settle([(1, 100)]) == 100
        assert outbox.fork("restored") == outbox.epoch
        outbox.bury(200, "poison")
        assert len(outbox.dead()) == 1


def test_records_are_sent_from_a_full_disk_until_none_is_left(disk: Path) -> None:
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        outbox.put([item(number, size=500) for number in range(2000)])
        fill(disk)
        for _ in range(400):
            outbox.put([item(5000, "low", size=500)])
        sent = 0
        while records := outbox.pending(37):
            sent += outbox.settle([(record.seq, record.seq) for record in records])
        assert sent + sum(outbox.losses().values()) == 2400


def test_a_damaged_store_on_a_full_disk_is_succeeded_in_the_room_of_the_ballast(disk: Path) -> None:
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        outbox.put([item(number, size=500) for number in range(400)])
    path = disk / "outbox" / "outbox.db"
    spoil(path, pages_of(path, "store")[:1])
    fill(disk)
    with Outbox(disk / "outbox", device="d", options=OPTIONS) as outbox:
        assert numbers(outbox) == list(range(400))
        assert outbox.losses() == {"damaged.stores": 1}
        assert outbox.put([item(1000, "critical", size=500)]) != [0]


def test_a_damaged_store_without_any_room_waits_for_some(disk: Path) -> None:
    scant = OutboxOptions(max_size=Size(50e6), ballast=Size(0), reserve=Size(0))
    with Outbox(disk / "outbox", device="d", options=scant) as outbox:
        outbox.put([item(number, size=500) for number in range(400)])
        outbox._store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        spoil(outbox.path, pages_of(outbox.path, "normal")[1:5])
        outbox._store.connection.execute("PRAGMA shrink_memory")
        other = fill(disk)
        for _ in range(3):
            with pytest.raises(OutboxError, match="full"):
                numbers(outbox)
        other.unlink()
        left = numbers(outbox)
        assert 350 < len(left) < 400
        assert outbox.losses()["damaged.normal"] == 400 - len(left)
