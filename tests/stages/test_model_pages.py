"""The pages of sinks, model stages and actions: every option stands in its table, with its true default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.spec.plugins import load_plugin
from skerry.spec.units import Quantity

DOCS = Path(__file__).parents[2] / "docs"
SINKS = ["http", "jsonl", "memory", "mqtt", "sqlite", "stdout"]
STAGES = ["classify", "command", "embed", "infer", "pool", "webhook"]
PLUGINS = [("skerry.sinks", name, "sinks.md") for name in SINKS] + [
    ("skerry.stages", name, "stages-models.md") for name in STAGES
]


def table(page: str, name: str) -> dict[str, str]:
    """Return the default of each option in the first table under a plugin's heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^## `{name}[:`].*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no heading for {name}"
    rows = [line.split(" |") for line in found[0].splitlines() if line.startswith("| `")]
    return {row[0].strip("| `"): row[2].strip().strip("`") for row in rows}


@pytest.mark.parametrize(("group", "name", "page"), PLUGINS, ids=[name for _, name, _ in PLUGINS])
def test_every_option_is_told(group: Any, name: str, page: str) -> None:
    options = load_plugin(group, name).Options
    assert set(table(page, name)) == set(options.__struct_fields__)


@pytest.mark.parametrize(("group", "name", "page"), PLUGINS, ids=[name for _, name, _ in PLUGINS])
def test_defaults_are_true(group: Any, name: str, page: str) -> None:
    told = table(page, name)
    for field in msgspec.structs.fields(load_plugin(group, name).Options):
        default, said = field.default, told[field.name]
        if isinstance(default, Quantity):
            assert float(type(default).parse(said)) == float(default), field.name
        elif isinstance(default, bool):
            assert said == str(default).lower(), field.name
        elif isinstance(default, int | str):
            assert said == str(default), field.name
        elif field.required:
            assert said == "required", field.name
