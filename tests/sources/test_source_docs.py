"""Every option of every built-in source is documented with its default."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from skerry.run.sources.file import FileOptions
from skerry.run.sources.http import HttpOptions
from skerry.run.sources.memory import MemoryOptions
from skerry.run.sources.mqtt import MqttOptions
from skerry.run.sources.sys import Meter, SysOptions
from skerry.run.sources.tail import TailOptions
from skerry.run.sources.timer import TimerOptions

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
OPTIONS = {
    "tail": TailOptions, "file": FileOptions, "sys": SysOptions, "timer": TimerOptions, "http": HttpOptions,
    "mqtt": MqttOptions, "memory": MemoryOptions,
}  # fmt: skip


def section(name: str) -> str:
    return re.split(r"^## ", PAGE.read_text(encoding="utf-8").split(f"\n## {name}:")[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_documented(name: str) -> None:
    told = {
        option
        for line in section(name).splitlines()
        if line.startswith("| `")
        for option in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    options = {field.encode_name for field in msgspec.structs.fields(OPTIONS[name])}
    assert options <= told, options - told
    if name not in {"sys", "http"}:  # these have further tables
        assert told == options


def test_fields_of_sys_are_documented() -> None:
    text = section("sys")
    assert [name for name in Meter("/").read() if f"`{name}`" not in text] == []
