"""The contract of a sink: tests that every sink has to pass, built-in or third-party.

Needs no test framework of its own: pytest collects the methods of a subclass::

    class TestMySink(SinkContract):
        @pytest.fixture
        def case(self, tmp_path):
            return SinkCase(make=lambda: MySink(address, MySink.Options()), read=lambda: ..., home=tmp_path)
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import unittest
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.errors import SinkError, SkerryError
from skerry.spec.ports import Context, Sink
from skerry.spec.record import Record


def a_context(home: Path, name: str = "under-test", *, insecure: bool = False) -> Context:
    """Return a context as the engine makes it, with a state folder below ``home``."""
    state = home / ".state" / name
    state.mkdir(parents=True, exist_ok=True)
    return Context(
        name=name, home=home, state=state, stop=threading.Event(), log=logging.getLogger(name), insecure=insecure
    )


@dataclass
class SinkCase:
    """A sink under test and the other side of it.

    Parameters
    ----------
    make:
        Makes a closed sink; each one writes to the same place.
    read:
        Returns the fields of every record that has arrived there, oldest first, as plain JSON values.
    home:
        The folder of the pipeline; the default is a fresh one.
    break_:
        Makes the place refuse from now on; ``None`` where nothing can make it refuse.
    mend:
        Ends that.
    """

    make: Callable[[], Sink]
    read: Callable[[], list[dict[str, Any]]]
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="skerry-sink-")))
    break_: Callable[[], None] | None = None
    mend: Callable[[], None] | None = None

    def opened(self) -> Sink:
        """Return an open sink."""
        sink = self.make()
        sink.open(a_context(self.home))
        return sink


def some_records(count: int, start: int = 1) -> list[Record]:
    """Return ``count`` records with plain fields, numbered from ``start``."""
    return [
        Record({"n": number, "text": f"line {number} ✓", "ok": True}, "contract", number)
        for number in range(start, start + count)
    ]


class _Odd:
    def __str__(self) -> str:
        return "odd"


def awkward_fields() -> list[dict[str, Any]]:
    """Return fields as stages and binary garbage leave them; a sink has to take every one."""
    import numpy

    inside: list[Any] = []
    inside.append(inside)
    return [
        {"n": 1, "value": float("nan"), "more": float("-inf")},
        {"n": 2, "value": b"\x00\xff", "more": bytearray(b"x")},
        {"n": 3, "value": numpy.zeros((480, 640, 3), numpy.uint8), "more": numpy.float32(0.5)},
        {"n": 4, "value": numpy.array([1.0, float("nan")], numpy.float32), "more": numpy.bool_(True)},
        {"n": 5, "value": "a\nb\x00c\udcff\u2028", "more": ""},
        {"n": 6, "value": {"deep": [1, {"a": None}], 7: "seven", None: "none"}, "more": 2**70},
        {"n": 7, "value": _Odd(), "more": {1, 2}},
        {"n": 8, "value": None, 'quo"te; DROP TABLE': 1, "": 0, "N": "upper", "dü": "ü", "a.b": 1},
        {"n": 9, "value": inside, "more": 1},
    ]


class SinkContract:
    """Subclass it in a test file and give it a fixture ``case``."""

    def test_declares_itself(self, case: SinkCase) -> None:
        """``Options`` is strict and frozen, ``blocking`` is said, and the methods are there."""
        kind: Any = type(case.make())
        assert isinstance(kind.blocking, bool)
        assert issubclass(kind.Options, msgspec.Struct)
        assert kind.Options.__struct_config__.frozen
        assert kind.Options.__struct_config__.forbid_unknown_fields
        assert all(callable(getattr(kind, name)) for name in ("open", "write", "flush", "close"))

    def test_every_record_arrives_in_order(self, case: SinkCase) -> None:
        """What was written and flushed can be read on the other side, once and in order."""
        sink = case.opened()
        try:
            sink.write(some_records(3))
            sink.write(some_records(40, start=4))
            sink.flush()
            assert _numbers(case) == list(range(1, 44))
        finally:
            sink.close()

    def test_values_arrive(self, case: SinkCase) -> None:
        """Text (beyond ASCII too), numbers and flags are what they were."""
        sink = case.opened()
        try:
            sink.write([Record({"n": 1, "text": "Übung ✓ \\ \" ' , ;", "score": 0.25, "ok": True})])
            sink.flush()
            found = case.read()
            assert [(row["n"], row["text"], row["score"], bool(row["ok"])) for row in found] == [
                (1, "Übung ✓ \\ \" ' , ;", 0.25, True)
            ]
        finally:
            sink.close()

    def test_nothing_is_fine(self, case: SinkCase) -> None:
        """An empty write and a flush without a write change nothing."""
        sink = case.opened()
        try:
            sink.flush()
            sink.write([])
            sink.flush()
            assert case.read() == []
        finally:
            sink.close()

    def test_takes_awkward_values(self, case: SinkCase) -> None:
        """NaN, bytes, frames, broken text, odd keys and objects: no record is lost over what is in it."""
        fields = awkward_fields()
        sink = case.opened()
        try:
            for content in fields:
                sink.write([Record(content, "contract", content["n"])])
            sink.write([Record(content, "contract", content["n"]) for content in fields])
            sink.flush()
            assert _numbers(case) == [content["n"] for content in fields] * 2
        finally:
            sink.close()

    def test_leaves_records_alone(self, case: SinkCase) -> None:
        """A record that went to several sinks must be the same for the next one."""
        records = some_records(2)
        before = [dict(record.fields) for record in records]
        sink = case.opened()
        try:
            sink.write(records)
            sink.flush()
            assert [record.fields for record in records] == before
        finally:
            sink.close()

    def test_close_is_safe(self, case: SinkCase) -> None:
        """Closing works twice, and on a sink that was never opened."""
        case.make().close()
        sink = case.opened()
        sink.close()
        sink.close()

    def test_refuses_when_closed(self, case: SinkCase) -> None:
        """A closed sink says so with a ``SinkError``."""
        sink = case.opened()
        sink.close()
        assert _refusal(sink, some_records(1)) is not None
        assert case.read() == []

    def test_reopens(self, case: SinkCase) -> None:
        """A sink that was closed can be opened again, and another one goes on where it ended."""
        sink = case.opened()
        sink.write(some_records(2))
        sink.flush()
        sink.close()
        sink.open(a_context(case.home))
        sink.write(some_records(2, start=3))
        sink.flush()
        sink.close()
        another = case.opened()
        try:
            another.write(some_records(1, start=5))
            another.flush()
            assert _numbers(case) == [1, 2, 3, 4, 5]
        finally:
            another.close()

    def test_takes_all_or_none(self, case: SinkCase) -> None:
        """What a failed write, or a failed flush, left behind is nothing: written again, each record arrives once."""
        if case.break_ is None or case.mend is None:
            raise unittest.SkipTest("nothing can make this sink refuse")
        sink = case.opened()
        try:
            sink.write(some_records(2))
            sink.flush()
            case.break_()
            assert _refusal(sink, some_records(500, start=3)) is not None
            case.mend()
            assert _write_patiently(case, sink, some_records(500, start=3)) == list(range(1, 503))
        finally:
            sink.close()

    def test_errors_are_of_the_tree(self, case: SinkCase) -> None:
        """Opening at a place that refuses raises an error of the tree, and closing works afterwards."""
        if case.break_ is None or case.mend is None:
            raise unittest.SkipTest("nothing can make this sink refuse")
        case.break_()
        sink = case.make()
        try:
            sink.open(a_context(case.home))
            sink.write(some_records(500))
            sink.flush()
        except SkerryError as error:
            assert error.message
            assert 60 <= error.exit_code <= 69
        else:
            raise AssertionError("a place that refuses took the records")
        finally:
            sink.close()
            case.mend()


def _numbers(case: SinkCase) -> list[int]:
    rows = case.read()
    json.dumps(rows)  # plain JSON values, as promised
    return [row["n"] for row in rows]


def _refusal(sink: Sink, records: Sequence[Record]) -> SinkError | None:
    """Return what writing or making durable raises: a sink over a network may learn only then that it is alone."""
    try:
        sink.write(records)
        sink.flush()
    except SinkError as error:
        return error
    return None


def _write_patiently(case: SinkCase, sink: Sink, records: Sequence[Record]) -> list[int]:
    """Write as the engine does: again after a pause when the sink is not back yet; it has to come back by itself."""
    pause = threading.Event()
    for _ in range(100):
        try:
            sink.write(records)
            sink.flush()
            break
        except SinkError:
            pause.wait(0.1)
    return _numbers(case)
