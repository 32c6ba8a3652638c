"""The tail source with several places, of which some are missing."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from skerry.spec.errors import SourceUnavailableError
from skerry.testing.sources import Collector, Run, build_source, make_context


def open_tail(folder: Path, uri: str, also: list[str], **options: Any) -> Any:
    source = build_source(uri, also=also, poll="10ms", rescan="10ms", linger="0s", **options)
    source.open(make_context(folder), None)
    return source


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def test_places_that_exist_are_read_and_missing_ones_are_taken_up_when_they_come(tmp_path: Path) -> None:
    write(tmp_path / "b.log", "b1\n")
    with Run(open_tail(tmp_path, "tail://a.log?from=start", ["b.log", "more/*.log"]), Collector()) as run:
        run.wait(1)
        write(tmp_path / "more" / "c.log", "c1\n")
        run.wait(2)
        write(tmp_path / "a.log", "a1\n")
        run.wait(3)
        write(tmp_path / "b.log", "b2\n")
        assert [item.fields["text"] for item in run.wait(4)] == ["b1", "c1", "a1", "b2"]


def test_a_name_that_is_meant_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "a.log", "a1\n")
    source = open_tail(tmp_path, "tail://a.log?from=start&follow=false", ["*.log", str(tmp_path / "a.log")])
    collector = Collector()
    source.run(collector, threading.Event())
    assert [item.fields["text"] for item in collector.items] == ["a1"]


@pytest.mark.parametrize(
    ("history", "expected"),
    [("0B", []), ("1B", []), ("5B", []), ("6B", ["three"]), ("11B", ["three"]), ("12B", ["three"]),
     ("13B", ["second", "three"]), ("1kB", ["1", "second", "three"])],
)  # fmt: skip
def test_history_begins_at_a_whole_line(tmp_path: Path, history: str, expected: list[str]) -> None:
    write(tmp_path / "a.log", "1\nsecond\nthree\n")
    source = open_tail(tmp_path, "tail://a.log?from=start&follow=false", [], history=history)
    collector = Collector()
    source.run(collector, threading.Event())
    assert [item.fields["text"] for item in collector.items] == expected


def test_history_is_of_the_files_that_are_there_at_the_start(tmp_path: Path) -> None:
    write(tmp_path / "a.log", "a1\na2\n")
    with Run(open_tail(tmp_path, "tail://a.log?from=start", ["b.log"], history="3B"), Collector()) as run:
        run.wait(1)
        write(tmp_path / "b.log", "b1\nb2\n")
        assert [item.fields["text"] for item in run.wait(3)] == ["a2", "b1", "b2"]


def test_without_any_of_them_the_source_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match=r"a\.log or .*b\.log"):
        open_tail(tmp_path, "tail://a.log", ["b.log"])


def test_one_that_may_not_be_read_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.log", "a1\n")
    (tmp_path / "b.log").symlink_to("b.log")  # a loop: even root cannot open it
    write(tmp_path / "c.log", "")
    (tmp_path / "c.log").chmod(0)
    readable = _is_readable(tmp_path / "c.log")
    with caplog.at_level(logging.WARNING), Run(open_tail(tmp_path, "tail://a.log?from=start", ["?.log"]), Collector()):
        threading.Event().wait(0.2)  # a dozen searches
    assert len(caplog.messages) == (0 if readable else 1)


def _is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True
