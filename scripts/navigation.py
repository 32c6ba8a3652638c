"""The navigation of the documentation: the pages that are there, in the order of the journey.

A hook of mkdocs. A page that is in no chapter below still gets its place, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHAPTERS: dict[str, tuple[str, ...]] = {
    "Start": ("index.md", "install.md", "examples.md"),
    "Write": ("pipeline.md", "sources.md", "stages.md", "stages-models.md", "sinks.md"),
    "Use": (
        "device.md",
        "build.md",
        "planning.md",
        "importing.md",
        "running.md",
        "hybrid.md",
        "serve.md",
        "models.md",
        "toolchains.md",
        "identity.md",
        "uplink.md",
        "outbox.md",
        "hub.md",
        "cli.md",
        "exit-codes.md",
        "errors.md",
    ),
    "Understand": ("architecture.md", "engine.md", "runtimes.md", "wire.md"),
    "Judge": ("benchmarks.md", "experiments.md"),
}
Entry = dict[str, list[str]]


def on_config(config: Any) -> Any:
    """Set the navigation from the files of the folder of documents."""
    folder = Path(config["docs_dir"])
    config["nav"] = navigation(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    return config


def navigation(pages: Iterable[str]) -> list[Entry]:
    """Return the chapters with those of their pages that exist, then the folders, then what is left."""
    left = set(pages)
    chapters: list[Entry] = []
    for title, wanted in CHAPTERS.items():
        found = [page for page in wanted if page in left]
        left.difference_update(found)
        if found:
            chapters.append({title: found})
    for folder in sorted({page.partition("/")[0] for page in left if "/" in page}):
        inside = sorted(page for page in left if page.startswith(f"{folder}/"))
        left.difference_update(inside)
        chapters.append({folder.capitalize(): inside})
    return [*chapters, {"More": sorted(left)}] if left else chapters
