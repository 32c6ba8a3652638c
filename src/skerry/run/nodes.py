"""Nodes: the sources, stages and sinks of one pipeline, made but not opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from skerry.run.expression import Expression
from skerry.run.plan import Trait
from skerry.spec.errors import SpecError
from skerry.spec.pipeline import Common, Endpoint, Queue
from skerry.spec.ports import BatchStage, Sink, Source, Stage, TickingStage


class SourceNode(msgspec.Struct, frozen=True, kw_only=True):
    """A source with the keys that the file gives it."""

    id: str
    kind: str
    source: Source
    settings: Endpoint = Endpoint()

    def trait(self) -> Trait:
        """Return what the plan has to know."""
        return Trait(role="source", live=self.source.live or self.settings.queue is not None)


class StageNode(msgspec.Struct, frozen=True, kw_only=True):
    """A stage with the keys that the file gives it; ``make`` returns a new instance for every worker."""

    id: str
    kind: str
    make: Callable[[], Stage]
    settings: Common = Common()
    when: Expression | None = None
    probe: Any = None
    """An instance that is never opened, to see what kind of stage it is."""
    route: Any = None
    """What all workers of a stage with a cloud share (:class:`skerry.run.route.route.Route`)."""

    def trait(self) -> Trait:
        """Return what the plan has to know."""
        workers = self.settings.workers
        cut = self.batch() > 1 or self.settings.process or workers > 1 or self.settings.queue is not None
        return Trait(role="stage", cut=cut, workers=workers, ticking=isinstance(self.probe, TickingStage))

    def batch(self) -> int:
        """How many records the stage takes at once."""
        if not isinstance(self.probe, BatchStage):
            return 1
        return self.settings.batch or self.probe.max_batch


class SinkNode(msgspec.Struct, frozen=True, kw_only=True):
    """A sink with the keys that the file gives it."""

    id: str
    kind: str
    sink: Sink
    settings: Endpoint = Endpoint()

    def trait(self) -> Trait:
        """Return what the plan has to know."""
        return Trait(role="sink", cut=self.sink.blocking or self.settings.queue is not None)


Node = SourceNode | StageNode | SinkNode


def queue_before(head: str, takes: Sequence[str], nodes: Mapping[str, Node]) -> Queue:
    """Return the bounds of the channel before ``head``: its own, else those of the source that it takes from.

    Raises ``SpecError`` when it has none and takes from sources that ask for different ones: there is one channel.
    """
    own = nodes[head].settings.queue
    if own is not None:
        return own
    wanted = {name: queue for name in takes if (queue := _behind(nodes[name])) is not None}
    if len(set(wanted.values())) > 1:
        raise SpecError(
            f"{' and '.join(wanted)} flow into one queue, and ask for different ones",
            where=head,
            hint=f"write `queue` at {head}, which they flow into",
        )
    return next(iter(wanted.values()), Queue())


def _behind(node: Node) -> Queue | None:
    return node.settings.queue if isinstance(node, SourceNode) else None
