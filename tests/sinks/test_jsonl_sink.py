"""The jsonl sink: rotation, repair after a crash, a full disk."""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.sinks.jsonl import JsonlOptions, JsonlSink
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkFullError, SinkUnavailableError, SpecError
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from skerry.testing.sinks import SinkCase, SinkContract, a_context, some_records


def jsonl_sink(target: str = "out/events.jsonl", **options: Any) -> JsonlSink:
    return JsonlSink(parse_address(f"jsonl://{target}")[0], JsonlOptions(**options))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


class TestContract(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> SinkCase:
        path, aside = tmp_path / "out" / "events.jsonl", tmp_path / "out" / "aside"

        def put_a_folder_in_the_way() -> None:
            if path.exists():
                path.rename(aside)
            path.mkdir(parents=True)

        def take_it_away() -> None:
            path.rmdir()
            if aside.exists():
                aside.rename(path)

        return SinkCase(
            make=lambda: jsonl_sink(str(path)),
            read=lambda: lines(path),
            home=tmp_path,
            break_=put_a_folder_in_the_way,
            mend=take_it_away,
        )


class TestContractOnATinyDisk(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path, tiny_disk: Callable[[str], Path]) -> SinkCase:
        disk = tiny_disk("64k")
        ballast = disk / "ballast"
        return SinkCase(
            make=lambda: jsonl_sink(str(disk / "events.jsonl")),
            read=lambda: lines(disk / "events.jsonl"),
            home=tmp_path,
            break_=lambda: fill(ballast),
            mend=ballast.unlink,
        )


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_takes_nothing_and_says_so(tmp_path: Path, tiny_disk: Callable[[str], Path]) -> None:
    disk = tiny_disk("64k")
    sink = jsonl_sink(str(disk / "events.jsonl"))
    sink.open(a_context(tmp_path))
    sink.write(some_records(10))
    before = (disk / "events.jsonl").read_bytes()
    with pytest.raises(SinkFullError, match="full"):
        sink.write([Record({"n": 11, "text": "x" * 100_000})])
    assert (disk / "events.jsonl").read_bytes() == before
    sink.write(some_records(1, start=11))
    assert len(lines(disk / "events.jsonl")) == 11
    sink.close()


def test_rotates_by_size_and_keeps_so_many(tmp_path: Path) -> None:
    sink = jsonl_sink(rotate=Size(100), keep=2)
    sink.open(a_context(tmp_path))
    for number in range(1, 9):
        sink.write([Record({"n": number, "text": "x" * 60})])
    sink.close()
    found = {path.name: [row["n"] for row in lines(path)] for path in (tmp_path / "out").iterdir()}
    assert found == {"events.jsonl": [8], "events.jsonl.1": [7], "events.jsonl.2": [6]}


def test_rotated_files_are_compressed(tmp_path: Path) -> None:
    sink = jsonl_sink(rotate=Size(100), keep=3, gzip=True)
    sink.open(a_context(tmp_path))
    for number in range(1, 6):
        sink.write([Record({"n": number, "text": "x" * 60})])
    sink.close()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["events.jsonl", "events.jsonl.1.gz", "events.jsonl.2.gz", "events.jsonl.3.gz"]
    assert json.loads(gzip.decompress((tmp_path / "out" / "events.jsonl.1.gz").read_bytes()))["n"] == 4


def test_keeping_none_keeps_the_file_at_work(tmp_path: Path) -> None:
    sink = jsonl_sink(rotate=Size(10), keep=0)
    sink.open(a_context(tmp_path))
    for number in range(3):
        sink.write([Record({"n": number})])
        sink.write([Record({"n": number, "text": "long enough to rotate"})])
    sink.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["events.jsonl"]


def test_rotates_by_age_across_runs(tmp_path: Path) -> None:
    context = a_context(tmp_path)
    first = jsonl_sink(rotate_every=Duration(3600))
    first.open(context)
    first.write(some_records(1))
    first.close()
    (context.state / "started").write_text("1000.0")  # as if an hour had passed long ago
    second = jsonl_sink(rotate_every=Duration(3600))
    second.open(context)
    second.write(some_records(1, start=2))
    second.write(some_records(1, start=3))
    second.close()
    assert [row["n"] for row in lines(tmp_path / "out" / "events.jsonl.1")] == [1]
    assert [row["n"] for row in lines(tmp_path / "out" / "events.jsonl")] == [2, 3]


@pytest.mark.parametrize("tail", [b'{"n": 3, "te', b"\xff\x00\xfe", b"x" * 200_000])
def test_an_unfinished_line_is_cut_off(tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out" / "events.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"n":1}\n{"n":2}\n' + tail)
    sink = jsonl_sink()
    with caplog.at_level(logging.WARNING):
        sink.open(a_context(tmp_path))
    assert f"{len(tail)} bytes were cut off" in caplog.text
    sink.write(some_records(1, start=3))
    sink.close()
    assert [row["n"] for row in lines(path)] == [1, 2, 3]


def test_a_whole_last_line_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out" / "events.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"n":1}\n{"n":2}')
    sink = jsonl_sink()
    sink.open(a_context(tmp_path))
    sink.write(some_records(1, start=3))
    sink.close()
    assert [row["n"] for row in lines(path)] == [1, 2, 3]


@given(cut=st.integers(0, 200))
def test_a_crash_at_any_byte_leaves_whole_lines(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    home = tmp_path_factory.mktemp("crash")
    sink = jsonl_sink()
    sink.open(a_context(home))
    sink.write(some_records(4))
    sink.close()
    path = home / "out" / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    sink.open(a_context(home))
    sink.write(some_records(1, start=5))
    sink.close()
    found = [row["n"] for row in lines(path)]
    assert found[-1] == 5
    assert found[:-1] == list(range(1, len(found)))


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    first, second = jsonl_sink(), jsonl_sink()
    first.open(a_context(tmp_path))
    with pytest.raises(SinkUnavailableError, match="another process"):
        second.open(a_context(tmp_path))
    first.close()
    second.open(a_context(tmp_path))
    second.close()


@pytest.mark.parametrize("moved", [True, False])
def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path, moved: bool) -> None:
    path = tmp_path / "out" / "events.jsonl"
    sink = jsonl_sink()
    sink.open(a_context(tmp_path))
    sink.write(some_records(1))
    if moved:
        path.rename(path.with_name("elsewhere"))
    else:
        path.unlink()
    sink.write(some_records(1, start=2))
    sink.close()
    assert [row["n"] for row in lines(path)] == [2]


def test_the_envelope_says_where_a_record_came_from(tmp_path: Path) -> None:
    sink = jsonl_sink(envelope=True)
    sink.open(a_context(tmp_path))
    sink.write([Record({"n": 1}, "log", 7)])
    sink.close()
    assert lines(tmp_path / "out" / "events.jsonl") == [{"n": 1, "skerry": {"source": "log", "sequence": 7}}]


def test_a_folder_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out" / "events.jsonl").mkdir(parents=True)
    with pytest.raises(SinkUnavailableError, match="in the way"):
        jsonl_sink().open(a_context(tmp_path))


def test_a_pipe_without_a_reader_refuses(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "events.jsonl")
    sink = jsonl_sink()
    with pytest.raises(SinkUnavailableError):
        sink.open(a_context(tmp_path))


@pytest.mark.parametrize("options", [{"keep": -1}, {"rotate": Size(0)}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        jsonl_sink(**options)


def test_options_come_from_a_query() -> None:
    from skerry.spec.units import decode_unit

    _, query = parse_address("jsonl://out/events.jsonl?rotate=10MB&keep=5&gzip=true")
    options = msgspec.convert(query, JsonlOptions, strict=False, dec_hook=decode_unit)
    assert (options.rotate, options.keep, options.gzip) == (10e6, 5, True)
