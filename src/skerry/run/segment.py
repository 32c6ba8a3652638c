"""A segment at work: the thread that takes records from a channel and runs them through its chains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from skerry.run.chain import Chain
from skerry.run.channel import Channel
from skerry.run.tally import Ledger
from skerry.spec.ports import TickingStage

_GRAB = 64  # records taken from a channel at once: what is in hand is beyond the reach of its policy


class SegmentWorker:
    """One thread of a segment.

    Parameters
    ----------
    chains:
        The segment's chains, each after the one that feeds it.
    channel:
        Where records come from; ``None`` when a source is pulled inline.
    leave:
        Called at the end, to tell the channels behind that nothing more comes.
    """

    def __init__(
        self,
        name: str,
        chains: Sequence[Chain],
        channel: Channel | None,
        ledger: Ledger,
        leave: Callable[[], None],
    ) -> None:
        self.id = name
        self.chains = tuple(chains)
        self.ledger = ledger
        self._channel = channel
        self._leave = leave
        self._push = chains[0].push
        self.is_done = False
        self._clocks = [
            _Clock(chain, index, step.stage)
            for chain in chains
            for index, step in enumerate(chain.steps)
            if isinstance(step.stage, TickingStage)
        ]

    def run(self) -> None:
        """Work until the channel is closed and empty, then send on what stages still hold."""
        assert self._channel is not None
        channel, chain = self._channel, self.chains[0]
        first = chain.steps[0] if chain.steps else None
        batched = first is not None and first.process_batch is not None
        limit = first.batch if first is not None and batched else _GRAB
        while (batch := channel.take(limit, self._patience())) is not None:
            if batched:
                if batch:
                    chain.push_batch(batch)
            else:
                for record in batch:
                    self._push(record)
                    if self._clocks:
                        self._tick()
            if self._clocks:
                self._tick()
        self.finish()

    def abort(self) -> None:
        """Drop what is in hand: the time for draining is over. Called from another thread."""
        self._push = self.chains[0].drop

    def _patience(self) -> float | None:
        """Seconds until the next tick is due."""
        due = [clock.due for clock in self._clocks if clock.due is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _tick(self) -> None:
        now = time.monotonic()
        for clock in self._clocks:
            if clock.due is not None and clock.due <= now:
                clock.due = now + clock.stage.tick_s
                clock.chain.emit_due(clock.index, partial(clock.stage.tick, time.monotonic_ns()))

    def finish(self) -> None:
        """Send on what stages still hold, settle the rest, and tell the channels behind."""
        try:
            for clock in self._clocks:
                clock.chain.emit_due(clock.index, clock.stage.flush)
        finally:
            for chain in self.chains:
                chain.settle_held()
            self.ledger.absorb_rest()
            self.is_done = True
            self._leave()


class _Clock:
    """When a ticking stage is due next."""

    def __init__(self, chain: Chain, index: int, stage: TickingStage) -> None:
        self.chain = chain
        self.index = index
        self.stage = stage
        self.due = time.monotonic() + stage.tick_s if stage.tick_s else None
