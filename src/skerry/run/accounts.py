"""Accounts: the counters of all threads of a run, added up to a summary that balances."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from skerry.run.chain import Chain
from skerry.run.histogram import merged, percentiles
from skerry.run.nodes import SinkNode, SourceNode, StageNode
from skerry.run.step import Step
from skerry.run.tally import NodeTally
from skerry.run.wiring import DEAD_LETTER, Wiring
from skerry.spec.ports import CountingSink
from skerry.spec.record import Fate
from skerry.spec.summary import LOSSES, StageSummary


class NodeCounts:
    """Counts of one node while they are added up."""

    def __init__(self) -> None:
        self.items_in = 0
        self.out = 0
        self.in_flight = 0
        self.emitted = 0
        self.reasons: dict[Fate, dict[str, int]] = {}
        self.bins: list[list[int]] = []
        self.restarts = 0

    def lost(self) -> int:
        """How many records met a fate here other than going out."""
        return sum(number for reasons in self.reasons.values() for number in reasons.values())

    def add(self, tally: NodeTally) -> None:
        """Add what one thread counted."""
        for fate, reasons in list(tally.losses.items()):
            mine = self.reasons.setdefault(fate, {})
            for reason, number in list(reasons.items()):
                mine[reason] = mine.get(reason, 0) + number
        self.emitted += tally.emitted
        self.bins.append(tally.bins)


def node_summaries(wiring: Wiring) -> list[StageSummary]:
    """Return the counts of every node, in the order of the flow, the dead letter sink last."""
    counts = {name: NodeCounts() for name in wiring.nodes}
    for segment, worker in wiring.segments:
        queued = segment.source is None
        for chain in worker.chains:
            _count_chain(chain, counts)
        if queued and worker is _first_worker(wiring, segment.head):
            _count_queue(wiring, segment.head, counts[segment.head])
    for name, sink in wiring.sinks.items():
        if name not in counts:
            counts[name] = NodeCounts()
        _count_sink(wiring, name, counts[name], sink.tally, sink.written)
        counts[name].restarts = sink.restarts
    for name, source in wiring.sources.items():
        counts[name].items_in = counts[name].out = source.accepted
        counts[name].restarts = source.restarts
    order = [*wiring.graph.order, *([DEAD_LETTER] if DEAD_LETTER in wiring.sinks else [])]
    return [_summary(wiring, name, counts[name]) for name in order]


def _first_worker(wiring: Wiring, head: str) -> Any:
    return next(worker for segment, worker in wiring.segments if segment.head == head)


def _count_chain(chain: Chain, counts: Mapping[str, NodeCounts]) -> None:
    """Follow the records of one thread through its steps.

    Each step's "in" is the "out" of the one before; what was really delivered is counted apart, and the difference is
    what is on its way. At rest it must be nothing. Counters are read against the flow, so that nothing has gone out
    that did not come in.
    """
    delivered = chain.delivered
    found = [_step_counts(step, counts[step.id]) for step in reversed(chain.steps)]
    flow = chain.entered
    for step, (lost, held, emitted) in zip(chain.steps, reversed(found), strict=True):
        node = counts[step.id]
        out = flow - lost - held
        node.restarts += step.restarts + getattr(step.stage, "restarts", 0)
        node.items_in += flow
        node.out += out
        node.in_flight += held
        flow = out + emitted
    if chain.steps:
        last = counts[chain.steps[-1].id]
        # What a step emitted since `delivered` was read may be more than all that went out of it.
        moving = min(flow - delivered, last.out)
        last.out -= moving
        last.in_flight += moving


def _step_counts(step: Step, node: NodeCounts) -> tuple[int, int, int]:
    """Add what a step counted; return how many it lost, holds and emitted."""
    lost = node.lost()
    node.add(step.tally)
    return node.lost() - lost, step.tally.held, step.tally.emitted


def _count_queue(wiring: Wiring, head: str, node: NodeCounts) -> None:
    """Add what the channel before a segment took in, lost, and still holds."""
    channel, tally = wiring.channels[head], wiring.queue_tallies[head]
    entered = sum(worker.chains[0].entered for segment, worker in wiring.segments if segment.head == head)
    lost = node.lost()
    node.add(tally)
    lost = node.lost() - lost
    offered = channel.offered  # last: see _count_chain
    node.items_in += offered - entered
    node.in_flight += offered - entered - lost


def _count_sink(wiring: Wiring, name: str, node: NodeCounts, tally: NodeTally, written: int) -> None:
    node.add(tally)
    node.add(wiring.queue_tallies[name])
    node.items_in = offered = wiring.channels[name].offered  # last: see _count_chain
    node.out = written
    node.in_flight = offered - written - node.lost()


def _summary(wiring: Wiring, name: str, counts: NodeCounts) -> StageSummary:
    node = wiring.nodes.get(name)
    role: Literal["source", "stage", "sink"]
    role = "source" if isinstance(node, SourceNode) else "stage" if isinstance(node, StageNode) else "sink"
    by_fate = {fate: sum(counts.reasons.get(fate, {}).values()) for fate in LOSSES}
    channel = wiring.channels.get(name)
    return StageSummary(
        id=name,
        kind=node.kind if node is not None else name,
        role=role,
        items_in=counts.items_in,
        items_out=counts.out,
        filtered=by_fate[Fate.FILTERED],
        absorbed=by_fate[Fate.ABSORBED],
        emitted=counts.emitted,
        dropped=by_fate[Fate.DROPPED],
        expired=by_fate[Fate.EXPIRED],
        failed=by_fate[Fate.FAILED],
        in_flight=counts.in_flight,
        reasons={fate.value: dict(reasons) for fate, reasons in counts.reasons.items() if reasons},
        latency_ms=percentiles(merged(counts.bins)),
        queue=channel.state() if channel is not None else None,
        restarts=counts.restarts,
        route=node.route.state() if isinstance(node, StageNode) and node.route is not None else None,
        counters=node.sink.counters() if isinstance(node, SinkNode) and isinstance(node.sink, CountingSink) else {},
        state=_state(wiring, name),
    )


def _state(wiring: Wiring, name: str) -> str:
    worker = wiring.sources.get(name) or wiring.sinks.get(name)
    if worker is not None:
        return worker.state
    segments = [segment for segment in wiring.segments if name in segment[0].nodes]
    return "done" if all(worker.is_done for _, worker in segments) else "running"


def whole(wiring: Wiring) -> dict[str, Any]:
    """Return the counts of the whole run, as keyword arguments of a summary."""
    losses = {fate: sum(ledger.losses.get(fate, 0) for ledger in wiring.ledgers) for fate in LOSSES}
    items_out = sum(ledger.out for ledger in wiring.ledgers)
    # Last: what went out meanwhile must not be more than came in.
    emitted = sum(ledger.emitted for ledger in wiring.ledgers)
    items_in = sum(source.accepted for source in wiring.sources.values())
    return {
        "items_in": items_in,
        "items_out": items_out,
        "emitted": emitted,
        "filtered": losses[Fate.FILTERED],
        "absorbed": losses[Fate.ABSORBED],
        "dropped": losses[Fate.DROPPED],
        "expired": losses[Fate.EXPIRED],
        "failed": losses[Fate.FAILED],
        "in_flight": items_in + emitted - items_out - sum(losses.values()),
        "latency_ms": percentiles(merged(ledger.latency for ledger in wiring.ledgers)),
    }


def deadline_counts(wiring: Wiring) -> tuple[int, int]:
    """Return how many records missed their deadline and how many came in, so far."""
    missed = sum(ledger.losses.get(Fate.EXPIRED, 0) for ledger in wiring.ledgers)
    return missed, sum(source.accepted for source in wiring.sources.values())


def imbalances(stages: Iterable[StageSummary], total: Mapping[str, Any]) -> dict[str, int]:
    """Return by how many records each place is off at rest; empty when every record is accounted for."""
    gaps = {stage.id: stage.items_in - stage.settled() for stage in stages}
    gaps["pipeline"] = total["in_flight"]
    return {place: gap for place, gap in gaps.items() if gap}


def peak_rss_bytes() -> int:
    """Return the most memory that this process held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_s() -> float:
    """Return the processor time of this process so far, its worker processes not included."""
    return time.process_time()
