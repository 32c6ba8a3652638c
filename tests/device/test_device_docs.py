"""The page on devices: it names every field, every kind and every device of the catalogue."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from skerry.device.catalogue import catalogue, load_entry
from skerry.spec import profile

PAGE = (Path(__file__).parents[2] / "docs" / "device.md").read_text("utf-8")
PARTS = [
    part
    for part in vars(profile).values()
    if isinstance(part, type) and issubclass(part, msgspec.Struct) and part is not profile.Part
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_is_on_the_page(part: type[msgspec.Struct]) -> None:
    missing = [name for name in part.__struct_fields__ if f"`{name}`" not in PAGE]
    assert missing == []


@pytest.mark.parametrize("kinds", [profile.AcceleratorKind, profile.PowerKind, profile.LinkKind])
def test_every_kind_is_on_the_page(kinds: object) -> None:
    assert [kind for kind in get_args(kinds) if f"`{kind}`" not in PAGE] == []


def test_the_table_of_devices_is_the_catalogue() -> None:
    section = PAGE.partition("## The catalogue")[2]
    table = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section, re.MULTILINE))
    assert table == {name: load_entry(name).title for name in catalogue()}
