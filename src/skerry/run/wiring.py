"""Wiring: the channels, chains and workers of a plan, connected from the sinks up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from skerry.run.chain import Chain, Host
from skerry.run.channel import SHUTDOWN, Channel
from skerry.run.fanout import FanOut, Push
from skerry.run.nodes import Node, SinkNode, SourceNode, StageNode, queue_before
from skerry.run.plan import Plan, Segment
from skerry.run.progress import Progress
from skerry.run.segment import SegmentWorker
from skerry.run.settings import Settings
from skerry.run.sinking import SinkHost, SinkWorker
from skerry.run.sourcing import SourceHost, SourceWorker
from skerry.run.step import Step
from skerry.run.tally import Ledger, LetterLedger, NodeTally, SinkLedger
from skerry.spec.graph import Graph
from skerry.spec.pipeline import Endpoint, Queue
from skerry.spec.ports import BatchStage, Context, Sink
from skerry.spec.record import Fate, Record

DEAD_LETTER = "dead_letter"


L = TypeVar("L", bound=Ledger)


class WiringHost(Host, SinkHost, SourceHost, Protocol):
    """What the workers need of the engine around them."""

    def context(self, name: str) -> Context:
        """Return what the plugin of a node gets when it is opened."""

    def watched(self, name: str, process: Callable[[Record], Any]) -> Callable[[Record], Any]:
        """Return ``process`` as it is, or wrapped when the node is the gate of a duty cycle."""


class Wiring:
    """Everything that works in one run. Stages and inline sinks are opened while it is made."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        graph: Graph,
        plan: Plan,
        settings: Settings,
        host: WiringHost,
        positions: Callable[[str], Any],
        last: deque[dict[str, Any]],
        closers: list[Callable[[], None]],
        dead_letter: Sink | None,
    ) -> None:
        self.nodes = nodes
        self.graph = graph
        self.channels: dict[str, Channel] = {}
        self.queue_tallies: dict[str, NodeTally] = {}
        self.segments: list[tuple[Segment, SegmentWorker]] = []
        self.sinks: dict[str, SinkWorker] = {}
        self.ledgers: list[Ledger] = []
        sources = [node for node in nodes.values() if isinstance(node, SourceNode)]
        self.progress = {node.id: Progress(positions(node.id)) for node in sources}
        self._settings = settings
        self._host = host
        self._last = last
        self._closers = closers
        for segment in plan.segments:
            if segment.source is None:
                self.channels[segment.head] = self._channel(
                    segment.head, queue_before(segment.head, graph.takes[segment.head], nodes)
                )
        if dead_letter is not None:
            self._wire_dead_letter(dead_letter)
        for segment in plan.segments:
            self._wire(segment)
        self.sources = {node.id: self._source_worker(node) for node in sources}

    def _wire(self, segment: Segment) -> None:
        head = self.nodes[segment.head]
        if isinstance(head, SinkNode):
            self.sinks[head.id] = self._sink_worker(head)
            return
        for number in range(segment.workers):
            self.segments.append((segment, self._segment_worker(segment, number)))

    def _channel(self, head: str, queue: Queue) -> Channel:
        """Make the channel before a segment, with a tally of its own for what ends in it."""
        tally = self.queue_tallies[head] = NodeTally()
        ledger = self.ledger(Ledger)

        def lose(record: Record, fate: Fate, reason: str) -> None:
            tally.lose(fate, reason)
            (ledger.abandon if reason == SHUTDOWN else ledger.settle)(record, fate)

        return Channel(queue, lose)

    def ledger(self, kind: type[L]) -> L:
        """Return a new ledger, which is added up with the others."""
        ledger = kind(self.progress, self._last)
        self.ledgers.append(ledger)
        return ledger

    def _wire_dead_letter(self, sink: Sink) -> None:
        channel = self.channels[DEAD_LETTER] = self._channel(DEAD_LETTER, Queue())
        channel.join()
        ledger = self.ledger(LetterLedger)
        self.sinks[DEAD_LETTER] = SinkWorker(
            DEAD_LETTER, sink, Endpoint(), channel, ledger, self._host, self._host.context(DEAD_LETTER),
            self._settings.sync_s, self._settings.drain_s,
        )  # fmt: skip

    def _sink_worker(self, node: SinkNode) -> SinkWorker:
        return SinkWorker(
            node.id, node.sink, node.settings, self.channels[node.id], self.ledger(SinkLedger), self._host,
            self._host.context(node.id), self._settings.sync_s, self._settings.drain_s,
        )  # fmt: skip

    def _source_worker(self, node: SourceNode) -> SourceWorker:
        return SourceWorker(
            node.id, node.source, node.settings, self._host.context(node.id), self.progress[node.id],
            self._host, self._settings.deadline_ns,
        )  # fmt: skip

    def _segment_worker(self, segment: Segment, number: int) -> SegmentWorker:
        ledger = self.ledger(Ledger)
        chains: list[Chain] = []
        left: list[Channel] = []
        start = self.graph.feeds[segment.head] if segment.source else (segment.head,)
        if segment.source and len(start) != 1:
            push = self._targets(start, segment, ledger, chains, left)
            chains.insert(0, Chain([], push, ledger, self._host, timing=self._settings.timing))
        else:
            self._grow(start[0], segment, ledger, chains, left)
        name = segment.head if segment.workers == 1 else f"{segment.head}#{number + 1}"

        def leave() -> None:
            for channel in left:
                channel.leave()

        return SegmentWorker(name, chains, self.channels.get(segment.head), ledger, leave)

    def _grow(self, first: str, segment: Segment, ledger: Ledger, chains: list[Chain], left: list[Channel]) -> Chain:
        """Make the chain that starts at ``first``, and those behind it; chains come out in the order of the flow."""
        if first not in segment.nodes:  # a source that is pulled straight into a channel
            chain = Chain([], self._edge(first, left), ledger, self._host)
            chains.append(chain)
            return chain
        names = [first]
        while (feeds := self.graph.feeds[names[-1]]) and len(feeds) == 1 and feeds[0] in segment.nodes:
            names.append(feeds[0])
        place = len(chains)
        deliver = self._targets(self.graph.feeds[names[-1]], segment, ledger, chains, left)
        steps = [self._step(self.nodes[name]) for name in names]
        chain = Chain(steps, deliver, ledger, self._host, timing=self._settings.timing)
        chains.insert(place, chain)
        return chain

    def _targets(
        self, feeds: Sequence[str], segment: Segment, ledger: Ledger, chains: list[Chain], left: list[Channel]
    ) -> Push:
        """Return where a chain delivers to: a settled end, one branch, or copies to several."""
        if not feeds:
            return ledger.settle_out
        branches: list[Push] = []
        for name in feeds:
            if name in segment.nodes:
                branches.append(self._grow(name, segment, ledger, chains, left).push)
            else:
                branches.append(self._edge(name, left))
        return branches[0] if len(branches) == 1 else FanOut(branches)

    def _edge(self, head: str, left: list[Channel]) -> Push:
        channel = self.channels[head]
        channel.join()
        left.append(channel)
        return channel.give

    def _step(self, node: Node) -> Step:
        """Open a stage, or a sink that is written inline, and make it callable."""
        if isinstance(node, SinkNode):
            return self._inline_sink(node)
        assert isinstance(node, StageNode)
        stage = node.make()
        self._closers.append(stage.close)
        stage.open(self._host.context(node.id))
        own: Any = stage.process
        process: Any = self._host.watched(node.id, own)
        batched: Any = stage.process_batch if isinstance(stage, BatchStage) and node.batch() > 1 else None
        if process is not own:
            batched = None  # a gate looks at every record
        if node.when is not None:
            process, batched = _guarded(node.when.test, process), _guarded_batch(node.when.test, batched)
        common = node.settings
        return Step(
            node.id, process, on_error=common.on_error, retries=common.retries,
            process_batch=batched, batch=node.batch(), stage=stage,
        )  # fmt: skip

    def _inline_sink(self, node: SinkNode) -> Step:
        """A sink that never waits is a stage that answers with the record itself."""
        sink, chosen = node.sink, node.settings.fields
        self._closers += [sink.close, sink.flush]  # called from the last to the first
        sink.open(self._host.context(node.id))
        write = sink.write

        def process(record: Record) -> Record:
            if chosen is None:
                write((record,))
            else:
                write((record.with_fields({name: record.fields[name] for name in chosen if name in record.fields}),))
            return record

        policy = node.settings.on_error
        return Step(node.id, process, on_error="dead_letter" if policy == "retry" else policy, stage=sink)


def _guarded(test: Callable[[Mapping[str, Any]], bool], process: Callable[[Record], Any]) -> Callable[[Record], Any]:
    """Let records through unchanged for which ``when`` does not hold."""

    def guarded(record: Record) -> Any:
        return process(record) if test(record.fields) else record

    return guarded


def _guarded_batch(test: Callable[[Mapping[str, Any]], bool], process_batch: Any) -> Any:
    if process_batch is None:
        return None

    def guarded(records: Sequence[Record]) -> list[Any]:
        chosen = [index for index, record in enumerate(records) if test(record.fields)]
        answers: list[Any] = list(records)
        if chosen:
            for index, answer in zip(chosen, process_batch([records[index] for index in chosen]), strict=True):
                answers[index] = answer
        return answers

    return guarded
