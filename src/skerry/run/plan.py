"""A plan: which stages are fused into one thread, and where the graph is cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from skerry.spec.graph import Graph


class Trait(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan has to know of a node.

    ``cut`` says that the node needs a queue before it: it is batched, runs in processes, or is a sink that may block.
    """

    role: Literal["source", "stage", "sink"]
    live: bool = False
    cut: bool = False
    ticking: bool = False
    workers: int = 1


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that one thread runs one after the other, ``workers`` threads side by side.

    ``source`` is the source that is pulled inline, or ``None`` when records come through a channel before ``head``.
    """

    head: str
    nodes: tuple[str, ...]
    source: str | None = None
    workers: int = 1


class Plan(msgspec.Struct, frozen=True):
    """Segments in topological order, and the sources that have a thread of their own."""

    segments: tuple[Segment, ...]
    live_sources: tuple[str, ...]

    def segment_of(self, node: str) -> Segment:
        """Return the segment that runs a node."""
        return next(segment for segment in self.segments if node in segment.nodes)


def make_plan(graph: Graph, traits: Mapping[str, Trait]) -> Plan:
    """Fuse what can be fused.

    A cut is made only at the edge of a live source, before a batched, multi-worker or blocking node, where the number
    of workers changes, and at a fan-in. A source that feeds stages with a clock of their own counts as live, because
    their ticks must not wait for its next item.
    """
    clocked = any(trait.ticking for trait in traits.values())
    live = [name for name in graph.order if traits[name].role == "source" and (traits[name].live or clocked)]
    members: dict[str, list[str]] = {}
    head_of: dict[str, str] = {}
    for name in graph.order:
        if name in live:
            continue
        before = graph.takes[name]
        head = None if _needs_cut(name, before, traits, live, head_of) else head_of[before[0]]
        head_of[name] = head or name
        members.setdefault(head_of[name], []).append(name)
    segments = tuple(_segment(head, nodes, traits) for head, nodes in members.items())
    return Plan(segments, tuple(live))


def _needs_cut(
    name: str, before: tuple[str, ...], traits: Mapping[str, Trait], live: list[str], head_of: Mapping[str, str]
) -> bool:
    trait = traits[name]
    if trait.role == "source" or len(before) != 1 or before[0] in live or trait.cut:
        return True
    head = traits[head_of[before[0]]]
    upstream = 1 if head.role == "source" else head.workers
    return trait.workers != upstream


def _segment(head: str, nodes: list[str], traits: Mapping[str, Trait]) -> Segment:
    if traits[head].role == "source":
        return Segment(head=head, nodes=tuple(nodes), source=head)
    return Segment(head=head, nodes=tuple(nodes), workers=traits[head].workers)
