"""The memory sink: a box that outlives it, and failures on demand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.run.encoding import Encoder
from skerry.run.sinks.memory import MemoryOptions, MemorySink
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkFullError, SinkUnavailableError
from skerry.testing.sinks import SinkCase, SinkContract, a_context, some_records


@pytest.fixture(autouse=True)
def _fresh_boxes() -> Iterator[None]:
    MemorySink.clear()
    yield
    MemorySink.clear()


def memory_sink(**options: Any) -> MemorySink:
    return MemorySink(parse_address("memory:answers")[0], MemoryOptions(**options))


class TestContract(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> SinkCase:
        box, encoder = MemorySink.box("answers"), Encoder()
        return SinkCase(
            make=memory_sink,
            read=lambda: [encoder.plain(fields) for fields in box.fields],
            home=tmp_path,
            break_=lambda: box.fail(SinkUnavailableError("told to fail")),
            mend=lambda: box.fail(None),
        )


def test_capacity_is_all_or_none(tmp_path: Path) -> None:
    sink = memory_sink(capacity=3)
    sink.open(a_context(tmp_path))
    sink.write(some_records(2))
    with pytest.raises(SinkFullError):
        sink.write(some_records(2, start=3))
    assert [fields["n"] for fields in MemorySink.box("answers").fields] == [1, 2]


def test_a_failing_flush_is_not_durable(tmp_path: Path) -> None:
    sink, box = memory_sink(), MemorySink.box("answers")
    sink.open(a_context(tmp_path))
    sink.write(some_records(2))
    box.flush_failure = SinkUnavailableError("told to fail")
    with pytest.raises(SinkUnavailableError):
        sink.flush()
    assert box.durable == 0
    box.flush_failure = None
    sink.flush()
    assert box.durable == 2


def test_a_later_change_of_a_record_does_not_reach_the_box(tmp_path: Path) -> None:
    sink = memory_sink()
    sink.open(a_context(tmp_path))
    records = some_records(1)
    sink.write(records)
    records[0].fields["n"] = 99
    assert MemorySink.box("answers").fields[0]["n"] == 1
