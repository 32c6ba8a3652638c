"""The graph of a pipeline: which node takes from which, checked for cycles and loose ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from skerry.spec.errors import GraphError
from skerry.spec.words import did_you_mean


class Graph(msgspec.Struct, frozen=True):
    """Nodes in an order in which every node comes after all that it takes from.

    ``takes`` and ``feeds`` map every id to the ids before and after it.
    """

    order: tuple[str, ...]
    takes: dict[str, tuple[str, ...]]
    feeds: dict[str, tuple[str, ...]]


def connect(
    sources: Sequence[str],
    stages: Sequence[tuple[str, tuple[str, ...] | None]],
    sinks: Sequence[tuple[str, tuple[str, ...] | None]],
    place: Callable[[str], str],
) -> Graph:
    """Connect nodes by their ``after``; by default a stage follows the one above it, the first takes every source.

    A sink without ``after`` takes every source and stage that no stage takes. ``place`` tells where an
    id stands in the file. Raises ``GraphError`` for an unknown name, a cycle, a node that leads nowhere and one that
    is taken twice.
    """
    takes: dict[str, tuple[str, ...]] = dict.fromkeys(sources, ())
    previous = tuple(sources)
    for stage, after in stages:
        takes[stage] = previous if after is None else after
        previous = (stage,)
    explicit = {sink: after for sink, after in sinks if after is not None}
    inner = [*sources, *(stage for stage, _ in stages)]
    _check_names({**takes, **explicit}, inner, place)
    leaves = tuple(name for name in inner if not any(name in befores for befores in takes.values()))
    for sink, after in sinks:
        takes[sink] = leaves if after is None else after
        if not takes[sink]:
            raise GraphError(
                f"nothing leads to {sink}", where=place(sink), expected="`after:` with a stage or a source"
            )
    loose = [name for name in leaves if not any(name in befores for befores in explicit.values())]
    if sinks and loose and len(explicit) == len(sinks):
        raise GraphError(
            f"{loose[0]} leads nowhere",
            where=place(loose[0]),
            expected="a stage or sink with `after: " + loose[0] + "`",
        )
    return _ordered(takes, place)


def _check_names(takes: Mapping[str, tuple[str, ...]], known: Sequence[str], place: Callable[[str], str]) -> None:
    for name, befores in takes.items():
        for before in befores:
            if before not in known:
                raise GraphError(
                    f"{name} comes after {before!r}, which does not exist",
                    where=place(name),
                    expected=f"one of {', '.join(known)}",
                    hint=did_you_mean(before, known),
                )
        if len(set(befores)) < len(befores):
            raise GraphError(
                f"{name} takes the same node twice", where=place(name), expected="each name once in `after`"
            )


def _ordered(takes: dict[str, tuple[str, ...]], place: Callable[[str], str]) -> Graph:
    """Sort topologically (Kahn 1962), keeping the order of the file where it is free."""
    order: list[str] = []
    left = dict(takes)
    while left:
        ready = [name for name, befores in left.items() if all(before in order for before in befores)]
        if not ready:
            circle = " → ".join(_circle(left))
            raise GraphError(f"the stages form a cycle: {circle}", where=place(next(iter(left))), expected="no cycle")
        order.append(ready[0])
        del left[ready[0]]
    feeds = {name: tuple(other for other in order if name in takes[other]) for name in order}
    return Graph(tuple(order), takes, feeds)


def _circle(left: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Follow the inputs of nodes that are never ready until one comes up again."""
    path = [next(iter(left))]
    while True:
        name = next(before for before in left[path[-1]] if before in left)
        if name in path:
            return [*reversed(path[path.index(name) :]), path[-1]]
        path.append(name)
