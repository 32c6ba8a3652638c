"""What a sink counts of its own, and the release that it is told of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from skerry.cli.typeschema import TypeSchemas
from skerry.run.openmetrics import render
from skerry.run.sinks.hub import HubOptions
from skerry.spec.ports import Context, Options
from skerry.spec.record import Record
from tests.run.parts import Items, engine, numbered, sink, source


class Carrier:
    """A sink that sends on later, and counts it."""

    Options: ClassVar[type[Options]] = Options
    blocking: ClassVar[bool] = True

    def __init__(self) -> None:
        self.sent = 0
        self.release: str | None = None

    def open(self, context: Context) -> None:
        self.release = context.release

    def write(self, records: Sequence[Record]) -> None:
        self.sent += len(records)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {"acknowledged": self.sent}


def test_counts_of_a_sink_are_in_the_summary_and_the_metrics(tmp_path: Path) -> None:
    carrier: Any = Carrier()
    made = engine(tmp_path, source("in", Items(numbered(7))), sink("out", carrier))
    summary = made.run()
    counters = {stage.id: stage.counters for stage in summary.stages}
    assert counters == {"in": {}, "out": {"acknowledged": 7}}
    assert 'skerry_sink_counts{sink="out",name="acknowledged"} 7' in render(summary)
    assert carrier.release == ""


def test_a_sink_is_told_the_release_that_runs(tmp_path: Path) -> None:
    carrier: Any = Carrier()
    made = engine(tmp_path, source("in", Items(numbered(1))), sink("out", carrier))
    made.settings = msgspec.structs.replace(made.settings, release="sha256:" + "0" * 64)
    made.run()
    assert carrier.release == "sha256:" + "0" * 64


def test_the_schema_explains_inherited_options() -> None:
    properties, _ = TypeSchemas().properties(HubOptions)
    assert not [name for name, schema in properties.items() if "description" not in schema and "$ref" not in schema]
