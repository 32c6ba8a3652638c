"""Ten million items: not one may be unaccounted for, whatever becomes of them (``SKERRY_SOAK_ITEMS`` for fewer)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.report import Report
from skerry.spec.summary import Counts
from tests.soak.shapes import SHAPES

ITEMS = int(float(os.environ.get("SKERRY_SOAK_ITEMS", "10e6")))


@pytest.mark.soak
@pytest.mark.parametrize("name", SHAPES)
def test_every_item_is_accounted_for(name: str, tmp_path: Path, report: Report) -> None:
    shape, share = SHAPES[name]
    items = int(ITEMS * share)
    engine, sources, sinks = shape(tmp_path, items)
    begin = time.monotonic()
    summary = engine.run()  # which raises when the law is broken
    seconds = time.monotonic() - begin
    unaccounted = abs(sum(source.emitted for source in sources) - items) + off(summary)
    unaccounted += sum(abs(stage.items_in - stage.settled()) for stage in summary.stages)
    written = {stage.id: stage.items_out for stage in summary.stages if stage.role == "sink"}
    received = sum(sink.count for sink in sinks)
    through = f"{items:,} through the shape {name!r}"
    report.add(f"records unaccounted for, of {through}", float(unaccounted), "records", must="<= 0")
    report.add(f"items per second, {through}", items / seconds, "1/s")
    assert unaccounted == 0
    assert summary.items_in == items
    assert received == sum(count for sink, count in written.items() if sink != "dead_letter")


def off(counts: Counts) -> int:
    """By how many records the law is broken for the whole."""
    return abs(counts.items_in + counts.emitted - counts.settled()) + abs(counts.in_flight)
