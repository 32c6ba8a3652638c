"""The tail source against what happens to real logs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.sources.follow import FollowedLog
from skerry.run.sources.lines import LineSplitter
from skerry.spec.errors import SourceLostError, SourceUnavailableError, SpecError
from skerry.testing.sources import Collector, Item, Run, build_source, make_context

QUICK = "poll=10ms&linger=0s"


def open_tail(folder: Path, query: str = f"from=start&{QUICK}", *, name: str = "x", position: Any = None) -> Any:
    source = build_source(f"tail://{name}?{query}")
    source.open(make_context(folder), position)
    return source


def read_all(folder: Path, query: str = "from=start", *, name: str = "x", position: Any = None) -> list[Item]:
    """Read what is there now, up to its end."""
    source = open_tail(folder, f"{query}&follow=false", name=name, position=position)
    emit = Collector()
    source.run(emit, threading.Event())
    source.close()
    return emit.items


def texts(items: list[Item]) -> list[str]:
    return [item.fields["text"] for item in items]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def await_size(path: Path, limit: int) -> None:
    deadline = time.monotonic() + 20
    while (not path.exists() or path.stat().st_size < limit) and time.monotonic() < deadline:
        time.sleep(0.005)


class TestReading:
    def test_follows_a_growing_log(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\n")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(2)
            append(log, "three\n")
            assert texts(run.wait(3)) == ["one", "two", "three"]
        run.source.close()
        assert run.emit.items[0].fields["path"] == str(log)
        assert run.emit.items[2].position[str(log)]["offset"] == len("one\ntwo\nthree\n")

    def test_holds_a_partial_line_until_its_end(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "whole\nhal")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(1)
            append(log, "f\n")
            assert texts(run.wait(2)) == ["whole", "half"]
        run.source.close()

    def test_begins_at_the_end_by_default(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "old\nolder and unfin")
        with Run(open_tail(tmp_path, QUICK), Collector()) as run:
            append(log, "ished\nnew\n")
            assert texts(run.wait(2)) == ["older and unfinished", "new"]
        run.source.close()

    def test_from_end_ignores_the_position_and_replay_begins_anew(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\nthree\n")
        position = read_all(tmp_path)[0].position
        assert texts(read_all(tmp_path, position=position)) == ["two", "three"]
        assert texts(read_all(tmp_path, "replay=true", position=position)) == ["one", "two", "three"]
        with Run(open_tail(tmp_path, f"from=end&{QUICK}", position=position), Collector()) as run:
            append(log, "four\n")
            assert texts(run.wait(1)) == ["four"]
        run.source.close()

    def test_replay_goes_on_when_it_is_brought_up_again_in_the_same_run(self, tmp_path: Path) -> None:
        append(tmp_path / "x", "one\ntwo\n")
        source = open_tail(tmp_path, "replay=true&follow=false")
        emit = Collector()
        source.run(emit, threading.Event())
        source.open(make_context(tmp_path), emit.items[0].position)
        source.run(emit, threading.Event())
        source.close()
        assert texts(emit.items) == ["one", "two", "two"]

    def test_the_last_line_needs_no_newline_when_not_following(self, tmp_path: Path) -> None:
        append(tmp_path / "x", "one\ntwo")
        assert texts(read_all(tmp_path)) == ["one", "two"]

    def test_stopping_in_the_middle_of_a_chunk_loses_nothing(self, tmp_path: Path) -> None:
        append(tmp_path / "x", "".join(f"{number}\n" for number in range(1000)))
        with Run(open_tail(tmp_path), Collector(limit=300)) as run:
            first = run.wait(300)
        run.source.close()
        rest = read_all(tmp_path, position=first[-1].position)
        assert texts(first + rest) == [str(number) for number in range(1000)]


class TestBadInput:
    def test_invalid_utf8_is_replaced_and_marked(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"good \xc3\xa9\nbad \xff\xfe end\n")
        good, bad = read_all(tmp_path)
        assert good.fields["text"] == "good é"
        assert "invalid_utf8" not in good.fields
        assert bad.fields["text"] == "bad \ufffd\ufffd end"
        assert bad.fields["invalid_utf8"] is True

    def test_a_line_of_ten_megabytes_is_cut_and_marked(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"before\n" + b"y" * 10_000_000 + b"\nafter\n")
        items = read_all(tmp_path)
        assert [len(text) for text in texts(items)] == [6, 2**20, 5]
        assert [item.fields.get("truncated", False) for item in items] == [False, True, False]
        assert texts(read_all(tmp_path, position=items[1].position)) == ["after"]

    def test_a_long_line_is_held_in_bounded_memory(self) -> None:
        lines = LineSplitter(0, 1000, "x")
        for _ in range(1000):
            assert list(lines.feed(b"z" * 10_000)) == []
        assert len(lines._held) == 1000
        [(fields, size, end)] = lines.feed(b"\n")
        assert (len(fields["text"]), size, end) == (1000, 1000, 10_000_001)

    def test_a_character_cut_in_two_by_the_limit_is_not_invalid(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("aé" * 10 + "\n")
        [item] = read_all(tmp_path, "from=start&max_line=5B")
        assert item.fields == {"text": "aéa", "path": str(tmp_path / "x"), "truncated": True}

    def test_the_hole_of_a_truncated_log_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"\0" * 3_000_000 + b"line\r\nother\n")
        items = read_all(tmp_path)
        assert texts(items) == ["line", "other"]
        assert "truncated" not in items[0].fields

    def test_binary_garbage_gives_lines_and_never_an_error(self, tmp_path: Path) -> None:
        garbage = bytes(range(256)) * 500
        (tmp_path / "x").write_bytes(garbage)
        assert len(read_all(tmp_path)) == 501
        json.dumps([item.fields for item in read_all(tmp_path)]).encode()

    def test_a_folder_is_no_log(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        with pytest.raises(SpecError, match="not a regular file"):
            open_tail(tmp_path)

    def test_a_pipe_is_no_log_and_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x")
        with pytest.raises(SpecError, match="not a regular file"):
            open_tail(tmp_path)

    def test_a_missing_log_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailableError, match="No such file"):
            open_tail(tmp_path)

    def test_a_source_that_is_pointed_elsewhere_begins_there(self, tmp_path: Path) -> None:
        for name in "xy":
            append(tmp_path / name, "one\ntwo\n")
        position = read_all(tmp_path)[0].position
        assert texts(read_all(tmp_path, name="y", position=position)) == ["one", "two"]
        assert texts(read_all(tmp_path, name="*", position=position)) == ["two", "one", "two"]

    def test_an_empty_path_is_refused(self) -> None:
        with pytest.raises(SpecError, match="names no file"):
            build_source("tail:")


class TestRotation:
    def test_rename_and_create(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\n")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(1)
            append(log, "two\nunfinished")
            log.rename(tmp_path / "x.1")
            append(log, "three\n")
            assert texts(run.wait(4)) == ["one", "two", "unfinished", "three"]
        run.source.close()

    def test_a_writer_that_lets_go_late_is_still_read(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\n")
        with Run(open_tail(tmp_path, "from=start&poll=10ms&linger=1s"), Collector()) as run:
            run.wait(1)
            log.rename(tmp_path / "x.1")
            append(log, "three\n")
            append(tmp_path / "x.1", "two\n")
            assert texts(run.wait(3)) == ["one", "two", "three"]
        run.source.close()

    def test_copy_and_truncate(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\n")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(1)
            append(log, "two\n")
            shutil.copyfile(log, tmp_path / "x.1")
            os.truncate(log, 0)
            append(log, "a longer three\n")
            assert texts(run.wait(3)) == ["one", "two", "a longer three"]
        run.source.close()

    def test_truncated_without_a_copy(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\n")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(2)
            log.write_text("new\n")
            assert texts(run.wait(3)) == ["one", "two", "new"]
        run.source.close()
        assert "cut to nothing" in caplog.text

    def test_a_log_that_is_gone_comes_back(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\n")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(1)
            log.unlink()
            time.sleep(0.05)
            append(log, "two\n")
            assert texts(run.wait(2)) == ["one", "two"]
        run.source.close()

    def test_a_log_that_is_moved_away_and_back_is_not_read_twice(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\n")
        with Run(open_tail(tmp_path), Collector()) as run:
            run.wait(1)
            log.rename(tmp_path / "elsewhere")
            append(tmp_path / "elsewhere", "two\n")
            run.wait(2)
            (tmp_path / "elsewhere").rename(log)
            append(log, "three\n")
            assert texts(run.wait(3)) == ["one", "two", "three"]
        run.source.close()

    def test_rotated_twice_between_two_looks(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\n")
        with Run(open_tail(tmp_path, "from=start&poll=500ms&linger=0s"), Collector()) as run:
            run.wait(1)
            log.rename(tmp_path / "x.2")
            append(tmp_path / "x.1", "two\n")
            append(log, "three\n")
            assert texts(run.wait(3)) == ["one", "two", "three"]
        run.source.close()

    def test_a_log_that_stays_away_is_lost(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\nlast words")
        run = Run(open_tail(tmp_path, f"from=start&{QUICK}&lost_after=50ms"), Collector())
        run.wait(1)
        log.unlink()
        with pytest.raises(SourceLostError, match=r"gone for 0\.05s"):
            run.join()
        assert texts(run.emit.items) == ["one", "last words"]
        run.source.close()


class TestResume:
    def test_after_a_rename_the_old_file_is_finished_first(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\nthree\n")
        position = read_all(tmp_path)[0].position
        log.rename(tmp_path / "x.1")
        append(log, "four\n")
        assert texts(read_all(tmp_path, position=position)) == ["two", "three", "four"]

    @pytest.mark.parametrize(("oldest", "middle"), [("x.2", "x.1"), ("x-20261120", "x-20261121")])
    def test_after_two_renames_every_generation_is_read(self, tmp_path: Path, oldest: str, middle: str) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\n")
        position = read_all(tmp_path)[0].position
        log.rename(tmp_path / oldest)
        append(log, "three\n")
        log.rename(tmp_path / middle)
        append(log, "four\n")
        assert texts(read_all(tmp_path, position=position)) == ["two", "three", "four"]

    def test_after_copy_and_truncate_the_copy_is_finished_first(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\n")
        position = read_all(tmp_path)[0].position
        shutil.copyfile(log, tmp_path / "x.1")
        os.truncate(log, 0)
        append(log, "three, which is longer than what was there\n")
        assert texts(read_all(tmp_path, position=position)) == [
            "two",
            "three, which is longer than what was there",
        ]

    def test_within_a_rotated_file_that_was_rotated_again(self, tmp_path: Path) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\n")
        first = read_all(tmp_path)[0].position
        log.rename(tmp_path / "x.1")
        append(log, "three\n")
        items = read_all(tmp_path, position=first)
        assert texts(items) == ["two", "three"]
        (tmp_path / "x.1").rename(tmp_path / "x.2")
        log.rename(tmp_path / "x.1")
        append(log, "four\n")
        assert texts(read_all(tmp_path, position=items[0].position)) == ["three", "four"]
        assert texts(read_all(tmp_path, position=items[1].position)) == ["four"]

    def test_when_the_old_file_is_gone_the_new_one_is_read_from_its_start(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = tmp_path / "x"
        append(log, "one\ntwo\n")
        position = read_all(tmp_path)[0].position
        log.unlink()
        append(tmp_path / "y", "so that the inode is another one")
        append(log, "three\n")
        assert texts(read_all(tmp_path, position=position)) == ["three"]
        assert "not found beside it" in caplog.text


class TestGlob:
    def test_several_files_have_a_position_each(self, tmp_path: Path) -> None:
        for name in "ab":
            append(tmp_path / f"{name}.log", f"{name}1\n{name}2\n")
        items = read_all(tmp_path, name="*.log")
        assert texts(items) == ["a1", "a2", "b1", "b2"]
        assert set(items[2].position) == {str(tmp_path / "a.log"), str(tmp_path / "b.log")}
        assert texts(read_all(tmp_path, name="*.log", position=items[2].position)) == ["b2"]
        assert texts(read_all(tmp_path, name="*.log", position=items[0].position)) == ["a2", "b1", "b2"]

    def test_older_generations_and_compressed_files_are_no_logs_of_their_own(self, tmp_path: Path) -> None:
        for name in ("x", "x.1", "x-20261122", "x.2.gz"):
            append(tmp_path / name, f"{name}\n")
        assert texts(read_all(tmp_path, name="x*")) == ["x"]

    def test_a_new_file_is_found_and_a_deleted_one_let_go(self, tmp_path: Path) -> None:
        append(tmp_path / "a.log", "a1\n")
        source = open_tail(tmp_path, f"from=start&{QUICK}&rescan=10ms", name="*.log")
        with Run(source, Collector()) as run:
            run.wait(1)
            append(tmp_path / "b.log", "b1\n")
            run.wait(2)
            (tmp_path / "a.log").unlink()
            time.sleep(0.3)
            append(tmp_path / "b.log", "b2\n")
            items = run.wait(3)
        source.close()
        assert texts(items) == ["a1", "b1", "b2"]
        assert set(items[-1].position) == {str(tmp_path / "b.log")}

    def test_a_folder_with_magic_characters_is_taken_as_it_is(self, tmp_path: Path) -> None:
        folder = tmp_path / "a[b]"
        folder.mkdir()
        append(folder / "x.log", "one\n")
        assert texts(read_all(folder, name="*.log")) == ["one"]


CHILD = """
import json, sys, threading
from pathlib import Path
from skerry.testing.sources import build_source, make_context
folder, out, position = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
source = build_source("tail://x?from=start&poll=10ms&linger=0s")
source.open(make_context(folder), position)
with out.open("a") as file:
    def emit(fields, /, *, size=0, position=None, wait=True):
        file.write(json.dumps([fields["text"], position]) + "\\n")
        file.flush()
        return True
    source.run(emit, threading.Event())
"""


class TestKilled:
    def test_sigkill_and_rotation_lose_and_double_nothing(self, tmp_path: Path) -> None:
        log, out = tmp_path / "x", tmp_path / "out.jsonl"
        written = 0
        for _round in range(4):
            done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
            position = done[-1][1] if done else None
            append(log, "".join(f"line {number:08d}\n" for number in range(written, written + 20_000)))
            written += 20_000
            command = [sys.executable, "-c", CHILD, str(tmp_path), str(out), json.dumps(position)]
            child = subprocess.Popen(command)
            await_size(out, (out.stat().st_size if out.exists() else 0) + 500_000)
            if _round % 2:
                log.rename(tmp_path / f"x.{9 - _round}")
                append(log, "".join(f"line {number:08d}\n" for number in range(written, written + 5_000)))
                written += 5_000
            child.send_signal(signal.SIGKILL)
            child.wait()
            whole = out.read_bytes()
            out.write_bytes(whole[: whole.rfind(b"\n") + 1])
        done = [json.loads(line) for line in out.read_text().splitlines()]
        rest = texts(read_all(tmp_path, position=done[-1][1]))
        assert [text for text, _ in done] + rest == [f"line {number:08d}" for number in range(written)]


def model(stream: bytes, max_line: int) -> list[tuple[str, bool, bool]]:
    """What the lines of a stream are, said as plainly as possible."""
    pieces = stream.split(b"\n")
    result = []
    for number, raw in enumerate(pieces):
        piece = raw.lstrip(b"\0")
        last = number == len(pieces) - 1
        if last and not piece:
            continue
        truncated = len(piece) > max_line
        kept = piece[:max_line] if truncated else piece.removesuffix(b"\r")
        try:
            text, invalid = (kept.decode(), False) if not truncated else (kept.decode(errors="strict"), False)
        except UnicodeDecodeError as error:
            if truncated and error.reason == "unexpected end of data":
                text, invalid = kept[: error.start].decode(), False
            else:
                text, invalid = "", True
        result.append((text, invalid, truncated))
    return result


def seen(fields: dict[str, Any]) -> tuple[str, bool, bool]:
    invalid = fields.get("invalid_utf8", False)
    return "" if invalid else fields["text"], invalid, fields.get("truncated", False)


PIECES = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"\n", b"\r\n", b"\0", b"\0\0x\n", "é\n".encode(), b"\xc3"])
)


class TestAnyStream:
    @given(st.lists(PIECES, max_size=30), st.integers(1, 12))
    def test_any_chunking_gives_the_same_lines(self, chunks: list[bytes], max_line: int) -> None:
        lines = LineSplitter(0, max_line, "x")
        got = [line for chunk in chunks for line in lines.feed(chunk)]
        got += lines.flush()
        stream = b"".join(chunks)
        assert [seen(fields) for fields, _, _ in got] == model(stream, max_line)
        for _, _, end in got[:-1]:
            assert stream[end - 1 : end] == b"\n"

    @given(
        actions=st.lists(st.one_of(PIECES, st.sampled_from(["rename", "look"])), max_size=40),
        max_line=st.integers(1, 12),
    )
    def test_any_bytes_and_renames_at_any_point_give_the_same_lines(
        self, actions: list[bytes | str], max_line: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        log = tmp_path_factory.mktemp("bytes") / "x"
        log.touch()
        contents = [b""]
        followed = FollowedLog(log, "x", max_line=max_line, linger_s=0.0, log=logging.getLogger("x"))
        followed.open(None, at_end=False)
        got: list[dict[str, Any]] = []
        for action in actions:
            if isinstance(action, bytes):
                with log.open("ab") as file:
                    file.write(action)
                contents[-1] += action
            elif action == "look":
                got += [fields for fields, _, _ in followed.step()]
            else:
                shift(log)
                log.rename(log.with_name("x.1"))
                log.touch()
                contents.append(b"")
        got += [fields for fields, _, _ in followed.drain()]
        followed.close()
        assert list(map(seen, got)) == [line for content in contents for line in model(content, max_line)]

    @given(data=st.data())
    def test_any_writes_and_rotations_give_the_same_lines(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Between any two looks: appends of any size, renames, copies with truncation, and restarts at the position."""
        folder = tmp_path_factory.mktemp("any")
        log = folder / "x"
        log.touch()
        written: list[str] = []
        got: list[Item] = []
        source = open_tail(folder, "from=start&follow=false")
        looked = False
        begun_anew = False

        def look() -> None:
            emit = Collector()
            source.run(emit, threading.Event())
            got.extend(emit.items)

        for _ in range(data.draw(st.integers(1, 12))):
            action = data.draw(st.sampled_from(["write", "write", "rename", "copy", "look", "look", "restart"]))
            if action == "write":
                new = [
                    f"{len(written) + number}:" + "abc" * (number % 3) for number in range(data.draw(st.integers(1, 4)))
                ]
                written += new
                append(log, "".join(f"{line}\n" for line in new))
                looked = False
            elif action == "rename":
                shift(log)
                log.rename(folder / "x.1")
                log.touch()
                looked = True
            elif action == "copy" and looked and log.stat().st_size:
                # Of a log that is copied and cut before anything of it was read, nobody can know.
                shift(log)
                shutil.copyfile(log, folder / "x.1")
                os.truncate(log, 0)
            elif action == "look":
                look()
                looked = True
            elif action == "restart":
                position = got[-1].position if got else None
                source.close()
                source = open_tail(folder, "from=start&follow=false", position=position)
                begun_anew = begun_anew or not got
                looked = False
        look()
        source.close()
        # Without a position, a restart begins with what the log holds by then.
        start = written.index(got[0].fields["text"]) if begun_anew and got else 0
        assert texts(got) == (written[start:] if got or not begun_anew else [])


def shift(log: Path) -> None:
    """Make room for x.1, as logrotate does."""
    for number in range(30, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
