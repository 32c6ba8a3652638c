"""The queue of a source: it bounds what waits behind it, whatever kind of source it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.spec.errors import SpecError
from skerry.spec.pipeline import Queue
from skerry.spec.record import Record
from tests.run.parts import Call, Collect, Items, engine, numbered, sink, source, stage


def same(record: Record) -> Record:
    return record


@pytest.mark.parametrize("live", [True, False])
def test_it_is_the_queue_before_the_stage_that_takes_from_it(tmp_path: Path, live: bool) -> None:
    made = engine(
        tmp_path,
        source("in", Items(numbered(200), live=live), queue=Queue(items=7)),
        stage("a", Call(same)),
        sink("out", Collect()),
    )
    summary = made.run()
    first = next(entry for entry in summary.stages if entry.id == "a")
    assert first.queue is not None and first.queue.max_items == 7
    assert summary.items_out == 200


def test_a_stage_s_own_queue_comes_first(tmp_path: Path) -> None:
    made = engine(
        tmp_path,
        source("in", Items(numbered(20)), queue=Queue(items=7)),
        stage("a", Call(same), queue=Queue(items=9)),
        sink("out", Collect()),
    )
    first = next(entry for entry in made.run().stages if entry.id == "a")
    assert first.queue is not None and first.queue.max_items == 9


def test_two_sources_of_one_stage_cannot_ask_for_different_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="x and y flow into one queue"):
        engine(
            tmp_path,
            source("x", Items(numbered(2)), queue=Queue(items=7)),
            source("y", Items(numbered(2)), queue=Queue(items=8)),
            stage("a", Call(same)),
            sink("out", Collect()),
        ).run()
