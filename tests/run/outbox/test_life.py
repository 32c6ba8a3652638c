"""Time to live: judged on boot, monotonic clock, wall clock and its flag together, never on the wall clock alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skerry.run.outbox import SystemClock
from skerry.spec.units import Duration
from tests.run.outbox.parts import YEAR_MS, HandClock, item, numbers, opened, options, pages_of, spoil

HOUR = 3600.0


def test_a_record_goes_when_its_time_is_over_and_is_counted(tmp_path: Path) -> None:
    clock = HandClock()
    limits = options(ttl={"low": Duration(HOUR)})
    with opened(tmp_path, clock=clock, options=limits) as outbox:
        outbox.put([item(1, "low"), item(2, "low", ttl_s=2 * HOUR), item(3, "normal"), item(4, ttl_s=60.0)])
        clock.pass_s(59)
        assert numbers(outbox) == [3, 4, 1, 2]
        clock.pass_s(2)
        assert outbox.status().pending == 4, "nobody has looked yet"
        assert numbers(outbox) == [3, 1, 2], "and still it is not sent"
        clock.pass_s(59)
        outbox.losses()
        assert outbox.status().pending == 3
        clock.pass_s(HOUR)
        assert numbers(outbox) == [3, 2]
        assert outbox.losses() == {"expired.low": 1, "expired.normal": 1}


def test_a_large_store_is_swept_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.run.outbox.sweep.NUMBERS", 10)
    monkeypatch.setattr("skerry.run.outbox.sweep.LONGEST_S", -1.0)
    clock = HandClock()
    found = []
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(number, ttl_s=60.0) for number in range(25)])
        outbox.settle([(3, 18)])
        clock.pass_s(100)
        outbox.put([item(99, "high", ttl_s=HOUR)])
        for _ in range(4):
            found.append(outbox.losses().get("expired.normal", 0))
            clock.pass_s(100)
        assert numbers(outbox) == [99]
    assert (found[0], found[-1]) == (2, 9), "records 1 and 2 of the first part; then those from 19 on"


@pytest.mark.parametrize("jump_ms", [YEAR_MS, -YEAR_MS])
@pytest.mark.parametrize("synced", [True, False])
def test_a_wall_clock_that_jumps_by_a_year_changes_nothing(tmp_path: Path, jump_ms: int, synced: bool) -> None:
    clock = HandClock(synced=synced)
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(1, ttl_s=HOUR)])
        clock.wall += jump_ms
        clock.pass_s(HOUR - 60)
        outbox.put([item(2, ttl_s=HOUR)])
        assert sorted(numbers(outbox)) == [1, 2]
        clock.pass_s(120)
        outbox.losses()
        assert numbers(outbox) == [2], "its own clock went on"
        assert not outbox.pending()[0].moment.synced or not synced, "a clock that jumped is believed by nobody"
        assert outbox.pending()[0].moment.synced is False


@pytest.mark.parametrize("jump_ms", [YEAR_MS, -YEAR_MS])
def test_a_wrong_clock_after_a_reboot_takes_no_record(tmp_path: Path, jump_ms: int) -> None:
    clock = HandClock(synced=False)
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(1, ttl_s=HOUR)])
    clock.reboot(off_s=10, wall_error_ms=jump_ms)
    with opened(tmp_path, clock=clock) as outbox:
        clock.pass_s(600)
        outbox.losses()
        assert numbers(outbox) == [1]
        clock.pass_s(HOUR)
        outbox.losses()
        assert numbers(outbox) == [], "it has lived for an hour in any case"


def test_time_without_power_counts_where_both_clocks_were_right(tmp_path: Path) -> None:
    clock = HandClock(synced=True)
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(1, ttl_s=HOUR), item(2, ttl_s=100 * HOUR)])
    clock.reboot(off_s=2 * HOUR)
    clock.is_synced = False
    with opened(tmp_path, clock=clock) as outbox:
        clock.pass_s(20)
        outbox.losses()
        assert numbers(outbox) == [1, 2], "the clock is not set yet: nobody knows how long it was off"
        clock.is_synced = True
        clock.pass_s(20)
        outbox.losses()
        assert numbers(outbox) == [2]


def test_life_goes_on_over_many_boots(tmp_path: Path) -> None:
    clock = HandClock(synced=False)
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(1, ttl_s=HOUR)])
    for _ in range(7):
        clock.reboot(off_s=0)
        with opened(tmp_path, clock=clock) as outbox:
            clock.pass_s(600)
            outbox.put([item(2)])
    with opened(tmp_path, clock=clock) as outbox:
        clock.pass_s(20)
        outbox.losses()
        assert 1 not in numbers(outbox), "seven boots of ten minutes are more than an hour"


def test_the_clock_of_this_machine_tells_what_it_can() -> None:
    clock = SystemClock()
    first = clock.mono_us()
    assert first <= clock.mono_us()
    assert len(clock.boot()) == 32
    int(clock.boot(), 16)
    assert clock.synced() in {True, False}
    assert clock.wall_ms() > 1_600_000_000_000


def test_a_kill_within_a_boot_makes_no_record_older(tmp_path: Path) -> None:
    clock = HandClock(synced=False)
    for number in range(3):
        source = tmp_path / str(number)
        outbox = opened(source, clock=clock)
        outbox.put([item(number, ttl_s=HOUR)])
        clock.pass_s(100)
        shutil.copytree(source, tmp_path / str(number + 1))  # what a kill leaves behind
        outbox.close()
    with opened(tmp_path / "3", clock=clock) as outbox:
        clock.pass_s(20)
        outbox.losses()
        assert numbers(outbox) == [0, 1, 2]
        clock.pass_s(HOUR - 250)
        outbox.losses()
        assert numbers(outbox) == [1, 2]


@pytest.mark.parametrize("table", ["store", "dead"])
def test_a_recovery_makes_no_record_older_or_younger(tmp_path: Path, table: str) -> None:
    clock = HandClock(synced=False)
    for number in range(3):  # the life of the store is longer than that of a boot
        with opened(tmp_path, clock=clock) as outbox:
            clock.pass_s(100 * HOUR)
            outbox.put([item(number, ttl_s=HOUR)])
        clock.reboot(off_s=0) if number < 2 else clock.pass_s(HOUR / 2)
    path = tmp_path / "outbox.db"
    spoil(path, pages_of(path, table)[:1])
    with opened(tmp_path, clock=clock) as outbox:
        clock.pass_s(20)
        outbox.losses()
        assert outbox.losses()["damaged.stores"] == 1
        assert numbers(outbox) == [2]
        clock.pass_s(HOUR / 2)
        outbox.losses()
        assert numbers(outbox) == []
