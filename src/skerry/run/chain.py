"""A chain: stages that one thread calls one after the other, and what happens to their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from skerry.run.channel import SHUTDOWN
from skerry.run.fanout import Push
from skerry.run.histogram import bin_of
from skerry.run.settings import Timing
from skerry.run.step import REOPEN_EVERY_NS, Step
from skerry.run.tally import Ledger
from skerry.run.wording import told
from skerry.spec.errors import StageError
from skerry.spec.ports import Stop
from skerry.spec.record import HELD, Emission, Fate, Merged, Outcome, Record

_clock = time.monotonic_ns
_NEVER = (1 << 63) - 1
_TIMED_EVERY_NS = 50_000  # the adaptive rule: above 20,000 records a second, not all are timed
_SAMPLED = 16  # with sampled timing, one record of so many is timed
LETTERED = ("dead_letter", "retry")
"""The policies under which a record that has failed for good goes to the dead letter sink, where there is one."""

_FIRST_PAUSE_S = 0.05  # before the first retry; doubled for each one after
_LONGEST_PAUSE_S = 2.0
_REOPEN_AFTER = 8  # failures in a row after which a stage is opened anew


class Host(Protocol):
    """What a chain needs of the engine around it."""

    @property
    def stopping(self) -> Stop:
        """Set when the run is to end."""

    @property
    def aborting(self) -> Stop:
        """Set when the run is to end at once."""

    def dead_letter(self, record: Record, node: str, error: BaseException) -> Record:
        """Hand a failed record to the dead letter sink; return the record that is to be counted as failed."""

    def fail(self, error: BaseException) -> None:
        """End the whole run with an error."""

    def complain(self, node: str, error: BaseException) -> None:
        """Say that something went wrong which no single record is to blame for."""

    def reopen(self, step: Step) -> None:
        """Open a stage anew after it failed many times in a row."""


class Chain:
    """Runs records through its steps, depth first, and hands what is left to ``deliver``.

    Only what differs from "one in, one out" is counted per stage; see :class:`NodeTally`. ``delivered`` is counted
    separately at the end, so that a record that the steps lost or invented breaks the balance.
    """

    def __init__(
        self, steps: Sequence[Step], deliver: Push, ledger: Ledger, host: Host, *, timing: Timing = "adaptive"
    ) -> None:
        self.steps = tuple(steps)
        self.entered = 0
        self.delivered = 0
        self._calls = tuple((step.process, step.tally.bins, step) for step in steps)
        self._deliver = deliver
        self._ledger = ledger
        self._host = host
        self._timed_ns = 0
        ways = {"adaptive": self._push_adaptive, "every": self.push_timed, "sampled": self._push_sampled}
        self.push: Push = ways[timing]

    def push_timed(self, record: Record) -> None:
        """Run one record through every step, timing each."""
        self.entered += 1
        deadline = record.deadline_ns or _NEVER
        begin = _clock()
        index = 0
        for process, bins, step in self._calls:
            if begin > deadline:
                self._lose(step, record, Fate.EXPIRED, "deadline")
                return
            try:
                answer = process(record)
            except BaseException as error:  # noqa: BLE001 -- sys.exit() in a stage too is its on_error policy's business
                answer = self._handle(step, record, error)
                if answer is _ENDED:
                    return
            end = _clock()
            # The rule of histogram.bin_of, spelled out: a call would cost as much as a no-op stage.
            elapsed = (end - begin) | 8
            size = elapsed.bit_length()
            bins[(size << 3) | ((elapsed >> (size - 4)) & 7)] += 1
            begin = end
            index += 1
            if answer is record:
                continue
            if (
                answer.__class__ is Record
                and answer.lineage is record.lineage
                and answer.position is record.position
                and answer.fields.__class__ is dict
            ):
                record = answer
                continue
            self._branch(index, step, record, answer)
            return
        self._finish(record, begin, deadline)

    def _push_adaptive(self, record: Record) -> None:
        """Run one record through every step; time it unless one that was read just before it was timed."""
        if record.read_ns - self._timed_ns >= _TIMED_EVERY_NS:
            self._timed_ns = record.read_ns
            self.push_timed(record)
            return
        self.entered += 1
        if record.deadline_ns:
            self._travel(record, 0)
            return
        # As _travel does it, without a call and without an index that is hardly ever needed.
        for process, _, step in self._calls:
            try:
                answer = process(record)
            except BaseException as error:  # noqa: BLE001 -- sys.exit() in a stage too is its on_error policy's business
                answer = self._handle(step, record, error)
                if answer is _ENDED:
                    return
            if answer is record:
                continue
            if (
                answer.__class__ is Record
                and answer.lineage is record.lineage
                and answer.position is record.position
                and answer.fields.__class__ is dict
            ):
                record = answer
                continue
            self._branch(self.steps.index(step) + 1, step, record, answer)
            return
        self.delivered += 1
        self._deliver(record)

    def _push_sampled(self, record: Record) -> None:
        """Run one record through every step, timing one in sixteen."""
        if not self.entered % _SAMPLED:
            self.push_timed(record)
            return
        self.entered += 1
        self._travel(record, 0)

    def _travel(self, record: Record, start: int) -> None:
        """Run a record through the steps from ``start`` on, untimed."""
        calls = self._calls
        for index in range(start, len(calls)):
            process, _, step = calls[index]
            if record.deadline_ns and _clock() > record.deadline_ns:
                self._lose(step, record, Fate.EXPIRED, "deadline")
                return
            try:
                answer = process(record)
            except BaseException as error:  # noqa: BLE001 -- sys.exit() in a stage too is its on_error policy's business
                answer = self._handle(step, record, error)
                if answer is _ENDED:
                    return
            if answer is record:
                continue
            if (
                answer.__class__ is Record
                and answer.lineage is record.lineage
                and answer.position is record.position
                and answer.fields.__class__ is dict
            ):
                record = answer
                continue
            self._branch(index + 1, step, record, answer)
            return
        self.delivered += 1
        self._deliver(record)

    def _finish(self, record: Record, now: int, deadline: int) -> None:
        if now > deadline and self.steps:
            self._lose(self.steps[-1], record, Fate.EXPIRED, "deadline")
            return
        self.delivered += 1
        self._deliver(record)

    def drop(self, record: Record) -> None:
        """Take a record that there is no time for any more."""
        self.entered += 1
        if self.steps:
            self.steps[0].tally.lose(Fate.DROPPED, SHUTDOWN)
            self._ledger.abandon(record, Fate.DROPPED)
        else:
            self.delivered += 1
            self._deliver(record)

    def push_batch(self, records: Sequence[Record]) -> None:
        """Run records through a first step that takes several at once, then each through the rest."""
        step = self.steps[0]
        process_batch = step.process_batch
        if process_batch is None:
            for record in records:
                self.push(record)
            return
        self.entered += len(records)
        alive = [record for record in records if not self._expired(step, record)]
        if not alive:
            return
        begin = _clock()
        answers: Sequence[Outcome | BaseException]
        try:
            answers = process_batch(alive)
            if len(answers) != len(alive):
                raise StageError(f"{step.id} answered {len(answers)} times for {len(alive)} records")
        except BaseException:  # noqa: BLE001 -- one record may have spoilt the batch: each is tried alone, under its policy
            answers = [self._alone(step, record) for record in alive]
        answered = sum(1 for answer in answers if not isinstance(answer, BaseException))
        step.tally.bins[bin_of((_clock() - begin) // len(alive))] += answered
        for record, answer in zip(alive, answers, strict=True):
            self._go_on(step, record, answer)

    def _expired(self, step: Step, record: Record) -> bool:
        if record.deadline_ns and _clock() > record.deadline_ns:
            self._lose(step, record, Fate.EXPIRED, "deadline")
            return True
        return False

    def _alone(self, step: Step, record: Record) -> Outcome | BaseException:
        try:
            answer = step.process(record)
        except BaseException as error:  # noqa: BLE001 -- handled by the record's policy in _go_on
            return error
        return answer if _is_answer(answer) else _nonsense(step, answer)

    def _go_on(self, step: Step, record: Record, answer: Any) -> None:
        """Take one answer of the first step on through the rest."""
        if isinstance(answer, BaseException):
            answer = self._handle(step, record, answer)
            if answer is _ENDED:
                return
        step.tally.streak = 0
        if answer is record:
            self._travel(record, 1)
        else:
            self._branch(1, step, record, answer)

    def emit_due(self, index: int, due: Callable[[], Sequence[Emission]]) -> None:
        """Send on what the step at ``index`` sends by itself, from a tick or a flush."""
        step = self.steps[index]
        try:
            emissions = list(due())
        except BaseException as error:  # noqa: BLE001 -- whatever a stage raises is its on_error policy's business
            self._blame(step, error)
            return
        for emission in emissions:
            if _is_emission(emission):
                self._send(index + 1, step, emission)
            else:
                self._blame(step, _nonsense(step, emission))

    def _blame(self, step: Step, error: BaseException) -> None:
        """Deal with a failure that no single record is to blame for."""
        self._host.complain(step.id, error)
        if step.on_error == "stop":
            self._host.fail(_stopping(step, error))

    def _branch(self, following: int, step: Step, record: Record, answer: Outcome) -> None:
        """Deal with an answer that is not simply the record with its envelope."""
        if answer is None:
            self._lose(step, record, Fate.FILTERED, "filtered")
        elif answer is HELD:
            step.tally.held += 1
            self._ledger.hold(record)
        elif not _is_answer(answer):
            late = self._handle(step, record, _nonsense(step, answer))
            if late is not _ENDED:
                self._branch(following, step, record, late)
        elif isinstance(answer, Record):
            # Where it came from and who else stands for it is the engine's to say, also when the stage made it anew.
            self._travel(record.with_fields(answer.fields), following)
        elif isinstance(answer, Merged):
            step.tally.held += 1
            self._ledger.hold(record)
            self._send(following, step, answer)
        else:
            self._spread(following, step, record, answer)

    def _spread(self, following: int, step: Step, record: Record, answers: list[Emission]) -> None:
        """Send several records on in their order: the last goes on as the one that came in, the others are emitted.

        It is the last one so that the source moves on when the others are on their way already.
        """
        if not answers:
            self._lose(step, record, Fate.FILTERED, "filtered")
            return
        last = answers[-1]
        # Where the record itself comes last, only what was held before is merged.
        if last is not record and any(isinstance(answer, Merged) for answer in answers):
            step.tally.held += 1
            self._ledger.hold(record)
            self._send_all(following, step, answers)
            return
        self._send_all(following, step, answers[:-1])
        assert isinstance(last, Record)
        self._travel(record.with_fields(last.fields), following)

    def _send_all(self, following: int, step: Step, emissions: Sequence[Emission]) -> None:
        for emission in emissions:
            self._send(following, step, emission)

    def _send(self, following: int, step: Step, emission: Emission) -> None:
        """Send on a record that no record of its own came in for."""
        tally = step.tally
        if isinstance(emission, Merged) and emission.items > 0:
            merged = min(emission.items, tally.held)
            if merged:
                tally.held -= merged
                if merged > 1:
                    tally.lose(Fate.ABSORBED, "merged", merged - 1)
            else:
                tally.emitted += 1
            self._ledger.merge(merged)
        else:
            tally.emitted += 1
            self._ledger.merge(0)
        record = emission.record if isinstance(emission, Merged) else emission
        if record.lineage is not None or record.position is not None:
            # It stands for others, whose own ends are counted already.
            record = Record(record.fields, record.source, 0, record.read_ns, record.deadline_ns, record.size)
        self._travel(record, following)

    def settle_held(self) -> None:
        """At the end, count what stages still hold as absorbed."""
        for step in self.steps:
            if step.tally.held:
                step.tally.lose(Fate.ABSORBED, "still held at the end", step.tally.held)
                step.tally.held = 0

    def _lose(self, step: Step, record: Record, fate: Fate, reason: str) -> None:
        step.tally.lose(fate, reason)
        self._ledger.settle(record, fate)

    def _handle(self, step: Step, record: Record, error: BaseException) -> Any:
        """Follow the step's policy for a failure; return its late answer, or ``_ENDED``."""
        if step.on_error == "retry":
            answer = self._retry(step, record, error)
            if not isinstance(answer, BaseException):
                return answer
            error = answer
        if step.on_error in LETTERED:
            record = self._host.dead_letter(record, step.id, error)
        self._lose(step, record, Fate.FAILED, type(error).__name__)
        if step.on_error == "stop":
            self._host.fail(_stopping(step, error))
        if step.tally.failed_in_a_row(self._arrived(step)) >= _REOPEN_AFTER:
            step.tally.streak = 0
            self._reopen(step, error)
        return _ENDED

    def _reopen(self, step: Step, error: BaseException) -> None:
        """Open a stage anew, unless it says itself that its records are to blame, or this was tried just now."""
        now = _clock()
        if not isinstance(error, StageError) and now - step.reopened_ns >= REOPEN_EVERY_NS:
            step.reopened_ns = now
            self._host.reopen(step)

    def _arrived(self, step: Step) -> int:
        """How many records have come to a step; nothing where it takes batches, whose answers tell for themselves."""
        arrived = self.entered
        for earlier in self.steps:
            if earlier is step:
                break
            arrived += earlier.tally.emitted - earlier.tally.lost()
        return 0 if step is self.steps[0] and step.process_batch is not None else arrived

    def _retry(self, step: Step, record: Record, error: BaseException) -> Outcome | BaseException:
        """Try again with growing pauses; return the answer, or the last error."""
        answer: Outcome | BaseException = error
        pause = _FIRST_PAUSE_S
        for _ in range(step.retries):
            if self._host.stopping.wait(pause):
                pause = 0.0
            if self._host.aborting.is_set():
                return answer
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            if record.deadline_ns and _clock() > record.deadline_ns:
                return answer
            answer = self._alone(step, record)
            if not isinstance(answer, BaseException):
                return answer
        return answer


def _is_emission(thing: object) -> bool:
    """Tell whether this is a record with fields, or a merged one."""
    record = thing.record if isinstance(thing, Merged) else thing
    return isinstance(record, Record) and isinstance(record.fields, dict)


def _is_answer(thing: object) -> bool:
    """Tell whether a stage may answer this (see :data:`skerry.spec.record.Outcome`)."""
    if isinstance(thing, list):
        return all(_is_emission(part) for part in thing)
    return thing is None or thing is HELD or _is_emission(thing)


def _nonsense(step: Step, answer: object) -> StageError:
    """Say that an answer is none."""
    parts = answer if isinstance(answer, list) else [answer]
    wrong: object = next((part for part in parts if not _is_emission(part)), answer)
    if isinstance(wrong, Merged):
        wrong = wrong.record
    what = f"a {type(wrong).__name__}"
    if isinstance(wrong, Record):
        what = f"a record whose fields are a {type(wrong.fields).__name__}"
        return StageError(f"{step.id} answered {what}", expected="a mapping of fields by name")
    return StageError(f"{step.id} answered {what}, which is no record")


def _stopping(step: Step, error: BaseException) -> StageError:
    """Wrap what a stage raised, saying which stage it was."""
    if isinstance(error, StageError) and error.where:
        return error
    return StageError(f"the stage failed: {told(error)}", where=step.id, expected="an answer")


_ENDED = object()
"""In the place of an answer: the record met its fate already."""
