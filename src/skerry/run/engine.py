"""The engine: a pipeline at work, from opening its parts to the balance at the end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from skerry.run.accounts import cpu_s, deadline_counts, imbalances, node_summaries, peak_rss_bytes, whole
from skerry.run.checkpoint import Checkpoint
from skerry.run.conductor import Conductor
from skerry.run.fanout import FanOut
from skerry.run.lineage import Copies
from skerry.run.nodes import Node
from skerry.run.plan import Plan, make_plan
from skerry.run.request import Request
from skerry.run.segment import SegmentWorker
from skerry.run.settings import Settings
from skerry.run.sourcing import Door, SourceWorker
from skerry.run.step import Step
from skerry.run.tally import Ledger
from skerry.run.wiring import DEAD_LETTER, Wiring
from skerry.run.wording import told
from skerry.spec.errors import ConservationError, DrainTimeoutError, EngineError, SkerryError
from skerry.spec.graph import Graph
from skerry.spec.ports import Context, Sink, TextModel
from skerry.spec.record import Record
from skerry.spec.summary import RunSummary

_LAST = 8  # answers kept to be shown
_GLANCE_S = 0.05  # how often the end of the work is looked for
_GRACE_S = 2.0  # for threads to end after their work was taken away


class Engine:
    """Runs the nodes of one pipeline.

    The graph is compiled to segments (see :mod:`skerry.run.plan`); every segment, live source and blocking sink has a
    thread. Threads count alone, and are added up by :meth:`summary`. An engine runs once.

    Parameters
    ----------
    models:
        Finds a model by name, for the stages.
    conductor:
        Moves the degrade ladder and the duty cycle.
    dead_letter:
        Takes the records that failed in a node whose policy is ``dead_letter``.
    closers:
        Called last when the run is over, also when it failed.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        graph: Graph,
        settings: Settings,
        *,
        models: Callable[[str], TextModel] | None = None,
        conductor: Conductor | None = None,
        dead_letter: Sink | None = None,
        closers: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.settings = settings
        self.stopping = Request()
        self.aborting = Request()
        self.plan: Plan = make_plan(graph, {node.id: node.trait() for node in nodes})
        self._nodes = {node.id: node for node in nodes}
        self._graph = graph
        self._models = models
        self._conductor = conductor or Conductor(settings.log)
        self._dead_letter_sink = dead_letter
        self._log = settings.log
        self._checkpoint = Checkpoint(settings.state / "positions.json", settings.log)
        self._committed: dict[str, Any] = {}
        self._last: deque[dict[str, Any]] = deque(maxlen=_LAST)
        self._closers = list(closers)
        self._threads: list[threading.Thread] = []
        self._wiring: Wiring | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._save_at = 0.0
        self._quota: int | None = None
        self._admitted = 0
        self._entered = 0
        self._is_cut_short = False
        self._began = time.monotonic()
        self._ended: float | None = None
        self._status: Literal["running", "asleep", "done", "failed"] = "running"

    @property
    def is_up(self) -> bool:
        """Tell whether everything was opened, so that there may be work to be drained. Safe in a signal handler."""
        return self._wiring is not None

    def stop(self) -> None:
        """Ask for a graceful end: sources stop, what was read is worked off. Safe in a signal handler."""
        self.stopping.set()

    def abort(self) -> None:
        """Ask for an end now: what still waits is dropped, and counted so. Safe in a signal handler."""
        self.aborting.set()
        self.stopping.set()

    def run(self, duration_s: float | None = None, max_items: int | None = None) -> RunSummary:
        """Run until every source is exhausted, ``duration_s`` is over, ``max_items`` were read, or a stop is requested.

        Returns the final summary.

        Raises
        ------
        SkerryError
            What failed the run; what was done up to there is in :meth:`summary`.
        ConservationError
            The counts at the end do not balance.
        """
        self._began = time.monotonic()
        self._quota = max_items
        if max_items == 0:
            self.stopping.set()
        try:
            self._wiring = Wiring(
                self._nodes, self._graph, self.plan, self.settings, self, self._checkpoint.position, self._last,
                self._closers, self._dead_letter_sink,
            )  # fmt: skip
            self._start(self._wiring)
            self._wait(duration_s)
            self._drain(self._wiring)
        except BaseException:
            self._status = "failed"
            self.abort()
            if self._wiring is not None:
                self._take_away(self._wiring)
            raise
        finally:
            self._end()
        return self._verdict(self._wiring)

    # What the workers need of us

    def context(self, name: str) -> Context:
        """Return what the plugin of a node gets when it is opened."""
        state = self.settings.state / "nodes" / name
        state.mkdir(parents=True, exist_ok=True)
        return Context(
            name=name, home=self.settings.home, state=state, stop=self.stopping, log=self._log.getChild(name),
            insecure=self.settings.insecure, models=self._models, release=self.settings.release or "",
        )  # fmt: skip

    def watched(self, name: str, process: Callable[[Record], Any]) -> Callable[[Record], Any]:
        """Return ``process`` as it is, or wrapped when the node is the gate of a duty cycle."""
        return self._conductor.watched(name, process)

    def door(self) -> Door | None:
        """Return what every item has to pass when there is a quota or a duty cycle."""
        return self if self._quota is not None or self._conductor.has_duty else None

    def admit(self, wait: bool) -> bool:
        """Wait while the pipeline sleeps; tell whether one more item may come in."""
        if not self._conductor.admit(wait):
            return False
        with self._lock:
            if self._quota is not None and self._admitted >= self._quota:
                return False
            self._admitted += 1
            return True

    def entered(self) -> None:
        """Count an item that came in; the last one of the quota ends the run."""
        with self._lock:
            self._entered += 1
            if self._entered == self._quota:
                self.stopping.set()

    def turned_away(self) -> None:
        """Give the place of an item that was refused to another one."""
        with self._lock:
            self._admitted -= 1

    def fail(self, error: BaseException) -> None:
        """End the run with an error; the first one is kept."""
        with self._lock:
            if self._error is None:
                self._error = error
        self.stopping.set()

    def complain(self, node: str, error: BaseException) -> None:
        """Say what went wrong in a node, for which no single record is to blame."""
        self._log.warning("%s: %s", node, told(error))

    def dead_letter(self, record: Record, node: str, error: BaseException) -> Record:
        """Hand a copy of a failed record to the dead letter sink, with what failed and where.

        Returns the record that is to be counted as failed: it is settled when its letter is, too.
        """
        channel = self._wiring.channels.get(DEAD_LETTER) if self._wiring else None
        if channel is None:
            return record
        lineage = record.lineage
        if lineage is None:
            lineage = Copies(2)
            record = record.copy(lineage)
        else:
            lineage.add(1)
        fields = {**record.fields, "_stage": node, "_error": told(error)}
        position, size = record.position, record.size
        channel.give(Record(fields, record.source, record.sequence, record.read_ns, 0, size, position, lineage))
        return record

    def reopen(self, step: Step) -> None:
        """Close and open a stage that failed many times in a row."""
        step.restarts += 1
        self._log.warning("%s failed many times in a row and is opened anew", step.id)
        try:
            step.stage.close()
            step.stage.open(self.context(step.id))
        except Exception as error:  # noqa: BLE001 -- it goes on failing record by record, which is counted
            self.complain(step.id, error)

    # Running

    def _start(self, wiring: Wiring) -> None:
        """Start the threads, those at the end of the flow first."""
        for sink in wiring.sinks.values():
            self._thread(sink.id, sink.run)
        for segment, worker in reversed(wiring.segments):
            if segment.source is None:
                self._thread(worker.id, worker.run)
        live = [(wiring.sources[name], self._live(wiring, name)) for name in self.plan.live_sources]
        self._conductor.start(lambda: deadline_counts(wiring))
        for segment, worker in wiring.segments:
            if segment.source is not None:
                self._thread(segment.source, self._run_inline, wiring.sources[segment.source], worker)
        for source, run in live:
            self._thread(source.id, run)

    def _thread(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001 -- a thread that dies silently would hang the run
                self._fall(name, error)

        thread = threading.Thread(target=guarded, name=f"skerry-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fall(self, name: str, error: BaseException) -> None:
        """End the run because one of its threads died."""
        self._is_cut_short = True
        if not isinstance(error, SkerryError):
            fault = EngineError(f"the thread of {name} died: {told(error)}")
            fault.__cause__ = error
            error = fault
        self.fail(error)
        self.abort()

    def _run_inline(self, source: SourceWorker, worker: SegmentWorker) -> None:
        """Run a pull source and the stages behind it in one thread."""
        push = worker.chains[0].push

        def offer(record: Record, wait: bool) -> bool:
            push(record)
            return True

        try:
            source.run(offer)
        finally:
            worker.finish()

    def _live(self, wiring: Wiring, name: str) -> Callable[[], None]:
        """Join a live source to its channels; return what its thread has to do."""
        channels = [wiring.channels[head] for head in self._graph.feeds[name]]
        for channel in channels:
            channel.join()
        source, ledger = wiring.sources[name], wiring.ledger(Ledger)
        spread = FanOut([channel.give for channel in channels]) if channels else ledger.settle_out

        def offer(record: Record, wait: bool) -> bool:
            if not wait and any(channel.would_wait(record) for channel in channels):
                return False
            spread(record)
            return True

        def run() -> None:
            try:
                source.run(channels[0].put if len(channels) == 1 else offer)
            finally:
                for channel in channels:
                    channel.leave()

        return run

    def _wait(self, duration_s: float | None) -> None:
        """Wait for the end of the work, of the time, or for a request; save positions meanwhile."""
        ends = None if duration_s is None else self._began + duration_s
        while not self.stopping.is_set() and self._is_at_work():
            left = self.settings.sync_s if ends is None else min(self.settings.sync_s, ends - time.monotonic())
            if left <= 0:
                break
            self.stopping.wait(min(left, _GLANCE_S))
            self._save_positions()
        self.stopping.set()

    def _is_at_work(self) -> bool:
        """Tell whether a thread is left other than the dead letter's, which waits for all the others."""
        return any(thread.is_alive() for thread in self._threads if thread.name != f"skerry-{DEAD_LETTER}")

    def _save_positions(self, *, now: bool = False) -> None:
        """Tell the sources up to where everything is settled, and write it down when that is due."""
        if self._wiring is None:
            return
        found = {name: progress.position() for name, progress in self._wiring.progress.items()}
        positions = {name: position for name, position in found.items() if position is not None}
        for name, position in positions.items():
            if position != self._committed.get(name) and self._wiring.sources[name].commit(position):
                self._committed[name] = position
        if positions and (now or time.monotonic() >= self._save_at):
            self._save_at = time.monotonic() + self.settings.sync_s
            self._checkpoint.write(positions)

    # Ending

    def _drain(self, wiring: Wiring) -> None:
        """Let the threads finish within the time limit; then take their work away."""
        self._conductor.stop()
        self._join(wiring, time.monotonic() + self.settings.drain_s)
        if self._stuck():
            self._take_away(wiring)
        if stuck := self._stuck():
            self._is_cut_short = True
            self.fail(
                DrainTimeoutError(
                    f"after {self.settings.drain_s:g} s of draining, still at work: {', '.join(stuck)}",
                    expected="an end within `drain`",
                    hint="raise `drain`, or give the stage a time limit of its own",
                )
            )

    def _take_away(self, wiring: Wiring) -> None:
        """Drop what still waits, and give the threads a moment to end."""
        self.aborting.set()
        for _, worker in wiring.segments:
            worker.abort()
        for channel in wiring.channels.values():
            channel.abort()
        self._join(wiring, time.monotonic() + _GRACE_S, to_the_end=True)

    def _join(self, wiring: Wiring, ends: float, *, to_the_end: bool = False) -> None:
        """Wait for the threads until ``ends``; the dead letter's channel is closed when all the others are done."""
        while time.monotonic() < ends and (to_the_end or not self.aborting.is_set()):
            if (
                not self._is_at_work()
                and DEAD_LETTER in wiring.channels
                and not wiring.channels[DEAD_LETTER].is_closed()
            ):
                wiring.channels[DEAD_LETTER].leave()
            alive = [thread for thread in self._threads if thread.is_alive()]
            if not alive:
                return
            alive[0].join(_GLANCE_S)
            self._save_positions()

    def _stuck(self) -> list[str]:
        return [thread.name.removeprefix("skerry-") for thread in self._threads if thread.is_alive()]

    def _end(self) -> None:
        """Save positions, close everything, and stop the conductor."""
        self._save_positions(now=True)
        self._conductor.stop()
        sources = self._wiring.sources.values() if self._wiring else ()
        for close in [*(source.close for source in sources), *reversed(self._closers)]:
            try:
                close()
            except Exception as error:  # noqa: BLE001 -- the others still have to be closed
                self.complain("closing", error)
        self._ended = time.monotonic()

    def _verdict(self, wiring: Wiring) -> RunSummary:
        """Raise what failed the run, or check the balance and return the summary."""
        missing = next((error for source in wiring.sources.values() if (error := source.never_came_up())), None)
        self._error = self._error or missing
        self._status = "failed" if self._error else "done"
        gaps = imbalances(node_summaries(wiring), whole(wiring))
        if gaps and not self._is_cut_short:  # what a thread held that died or hangs is known to be missing
            self._status = "failed"
            listed = ", ".join(f"{place} {gap:+d}" for place, gap in gaps.items())
            raise ConservationError(
                f"records are unaccounted for: {listed}",
                expected="in = out + filtered + absorbed + dropped + expired + failed",
                hint="this is a fault of Skerry; please report it with the pipeline file",
            ) from self._error
        if self._error is not None:
            raise self._error
        return self.summary()

    def summary(self) -> RunSummary:
        """Return what was done so far; safe from any thread at any time."""
        now = self._ended or time.monotonic()
        wiring, conductor = self._wiring, self._conductor
        models = conductor.model_states()
        first = next(iter(models.values()), None)
        asleep = self._status == "running" and conductor.is_asleep
        return RunSummary(
            pipeline=self.settings.name,
            status="asleep" if asleep else self._status,
            error=None if self._error is None else str(self._error),
            release=self.settings.release,
            model=first.variant if first else None,
            runtime=first.runtime if first else None,
            models=models,
            rung=conductor.rung,
            wall_s=now - self._began,
            awake_s=conductor.awake_s(),
            cpu_s=cpu_s(),
            energy_j=conductor.joules(),
            peak_rss_bytes=peak_rss_bytes(),
            stages=node_summaries(wiring) if wiring else [],
            last=list(self._last),
            **(whole(wiring) if wiring else {}),
        )
