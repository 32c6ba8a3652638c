"""Plugins: runtimes, sources, stages and sinks, found by entry point; the built-in ones use the same door."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from skerry.spec.errors import DependencyError, SpecError
from skerry.spec.words import did_you_mean

Group = Literal["skerry.runtimes", "skerry.sources", "skerry.stages", "skerry.sinks"]


@functools.cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, sorted."""
    return {entry.name: entry for entry in sorted(entry_points(group=group))}


def load_plugin(group: Group, name: str, *, where: str = "") -> Any:
    """Import the class behind a name.

    Raises
    ------
    SpecError
        No plugin has that name; the nearest one is named.
    DependencyError
        The plugin's own module cannot be imported.
    """
    found = plugins(group)
    if name not in found:
        noun = group.removeprefix("skerry.").removesuffix("s")
        raise SpecError(
            f"unknown {noun} {name!r}",
            where=where,
            expected=f"one of {', '.join(found)}",
            hint=did_you_mean(name, found),
        )
    try:
        return found[name].load()
    except ImportError as error:
        raise DependencyError(f"{group} {name!r} cannot be imported: {error}", where=where) from error
