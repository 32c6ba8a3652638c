"""The timer, sys and memory sources."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.sources.memory import LiveMemorySource, MemorySource
from skerry.run.sources.timer import Schedule
from skerry.spec.errors import SourceError, SpecError
from skerry.testing.sources import Collector, Item, Run, build_source, make_context


def read(folder: Path, uri: str, position: Any = None, **options: Any) -> list[Item]:
    source = build_source(uri, **options)
    source.open(make_context(folder), position)
    emit = Collector()
    source.run(emit, threading.Event())
    source.close()
    return emit.items


class TestTimer:
    def test_it_counts_over_restarts(self, tmp_path: Path) -> None:
        items = read(tmp_path, "timer://1ms?count=4")
        assert [item.fields["tick"] for item in items] == [1, 2, 3, 4]
        again = read(tmp_path, "timer://1ms?count=4", items[1].position)
        assert [item.fields["tick"] for item in again] == [3, 4]
        assert set(items[0].fields) == {"tick", "time", "missed"}

    @pytest.mark.parametrize("uri", ["timer://", "timer://5", "timer://0s", "timer://soon"])
    def test_an_interval_is_needed(self, uri: str) -> None:
        with pytest.raises(SpecError, match="interval"):
            build_source(uri)

    def test_a_long_wait_is_left_at_once(self, tmp_path: Path) -> None:
        source = build_source("timer://1h")
        source.open(make_context(tmp_path), None)
        with Run(source, Collector()) as run:
            run.wait(1)
        assert len(run.emit.items) == 1

    @given(st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=50))
    def test_the_schedule_never_drifts_and_counts_what_it_skips(self, delays: list[float]) -> None:
        schedule = Schedule(1.0, start_s=100.0)
        now_s = 100.0
        for taken, delay in enumerate(delays, 1):
            now_s += schedule.wait_s(now_s)
            now_s += delay  # the pipeline is busy for so long
            schedule.take(now_s)
            moment = taken + schedule.missed - 1
            assert moment <= now_s - 100.0 + 1e-6 < moment + 1 + 2e-6
            assert 0 <= schedule.wait_s(now_s) <= 1.0


class TestSys:
    def test_a_reading_tells_how_the_machine_is(self, tmp_path: Path) -> None:
        first, second = read(tmp_path, "sys:?every=20ms&count=2")
        for fields in (first.fields, second.fields):
            assert 0 <= fields["memory_percent"] <= 100
            assert fields["memory_used_bytes"] > 0
            assert 0 <= fields["cpu_percent"] <= 100
            assert len(fields["cpu_percent_per_core"]) >= 1
            assert fields["disk_free_bytes"] >= 0
            assert fields["load_1m"] >= 0
            for name in ("temperature_c", "battery_percent", "network_sent_bytes_per_s", "disk_read_bytes_per_s"):
                assert fields[name] is None or fields[name] > -100
        assert set(first.fields) == set(second.fields)
        assert second.fields["time"] >= first.fields["time"]

    def test_it_counts_over_restarts(self, tmp_path: Path) -> None:
        assert len(read(tmp_path, "sys:?every=1ms&count=3", {"reading": 1})) == 2

    def test_a_disk_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="no disk can be measured"):
            read(tmp_path, f"sys:?disk={tmp_path}/none")

    def test_without_rest_is_refused(self) -> None:
        with pytest.raises(SpecError, match="never rest"):
            build_source("sys:?every=0s")


class TestMemory:
    def test_items_are_copied_and_repeated_up_to_the_count(self, tmp_path: Path) -> None:
        items = read(tmp_path, "memory:", items=[{"a": 1}, {"a": 2}], count=3)
        assert [item.fields for item in items] == [{"a": 1}, {"a": 2}, {"a": 1}]
        assert [item.fields for item in read(tmp_path, "memory:?count=2")] == [{"index": 0}, {"index": 1}]

    def test_a_channel_ends(self, tmp_path: Path) -> None:
        channel = MemorySource.channel("ends")
        channel.push({"a": 1})
        channel.end()
        assert [item.fields for item in read(tmp_path, "memory:ends")] == [{"a": 1}]
        with pytest.raises(SourceError, match="ended"):
            channel.push({"a": 2})
        MemorySource.forget("ends")

    def test_the_live_one_shares_the_channels(self) -> None:
        assert LiveMemorySource.live
        assert not MemorySource.live
        assert LiveMemorySource.channel("shared") is MemorySource.channel("shared")
        MemorySource.forget("shared")
