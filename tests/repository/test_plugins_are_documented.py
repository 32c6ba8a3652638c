"""Every plugin that pyproject.toml declares can be loaded, and stands on the page of its kind."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "skerry.runtimes": ("runtimes.md",),
    "skerry.sources": ("sources.md",),
    "skerry.stages": ("stages.md", "stages-models.md"),
    "skerry.sinks": ("sinks.md",),
    "skerry.techniques": ("techniques.md",),
}
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
PLUGINS = [(group, name, target) for group, plugins in GROUPS.items() for name, target in plugins.items()]


def text_of(group: str) -> str:
    """Return the pages on which a kind of plugin is documented."""
    return "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES[group])


def test_every_kind_has_its_pages() -> None:
    assert set(PAGES) == set(GROUPS)


@pytest.mark.parametrize(("group", "name", "target"), PLUGINS, ids=[f"{group}:{name}" for group, name, _ in PLUGINS])
def test_a_plugin_is_documented(group: str, name: str, target: str) -> None:
    word = re.escape(name)
    assert re.search(rf"^#+ .*(?<![\w+]){word}(?![\w+])|`{word}(?:://[^`]*|:[^`]*)?`", text_of(group), re.MULTILINE)


@pytest.mark.parametrize(("group", "name", "target"), PLUGINS, ids=[f"{group}:{name}" for group, name, _ in PLUGINS])
def test_a_plugin_can_be_loaded_and_says_what_it_is(group: str, name: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    assert getattr(importlib.import_module(module), attribute).__doc__
