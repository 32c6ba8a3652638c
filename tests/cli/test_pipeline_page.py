"""The page on the pipeline file names every key, with the default that the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.typeschema import plain_value
from skerry.spec.budget import Budget, Quality
from skerry.spec.cloud import Breaker, Cloud, Cost
from skerry.spec.pipeline import Common, Data, Duty, Endpoint, Ladder, Model, Pipeline, Queue

PAGE = Path(__file__).parents[2] / "docs" / "pipeline.md"
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "The file": Pipeline, "Models": Model, "Data": Data, "Budget": Budget, "Quality": Quality, "Stages": Common,
    "Cloud": Cloud, "Cost": Cost, "Breaker": Breaker, "Queue": Queue, "Sources and sinks": Endpoint, "Ladder": Ladder,
    "Duty": Duty,
}  # fmt: skip


def documented(section: str) -> dict[str, str]:
    """Return key and default of each row of a section's table."""
    text = re.search(rf"^##+ {section}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert text is not None, f"the page has no section {section}"
    rows = [re.split(r"(?<!\\) *\| *", line.strip("| ")) for line in text[1].splitlines() if line.startswith("| `")]
    assert all(len(row) == 5 and row[4] for row in rows), "a row lacks a column"
    return {row[0].strip("`"): row[2].strip("`") for row in rows}


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    default: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if default is None or isinstance(default, msgspec.Struct):
        return ""
    return msgspec.json.encode(plain_value(default)).decode().strip('"')


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_default(section: str) -> None:
    fields = msgspec.structs.fields(SECTIONS[section])
    assert documented(section) == {field.encode_name: default_of(field) for field in fields}
