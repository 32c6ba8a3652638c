"""The conductor: the one thread that steps the degrade ladder and sends the pipeline to sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from skerry.run.duty import DutyState, next_duty
from skerry.run.ladder import LadderState, Signals, decide
from skerry.spec.pipeline import Duty, Ladder
from skerry.spec.ports import Log
from skerry.spec.profile import Vitals
from skerry.spec.record import Merged, Record
from skerry.spec.summary import ModelState

_GLANCE_S = 0.05  # how often a duty cycle is looked at, and so how late it can sleep or wake


class ModelSet(Protocol):
    """The models of a run, as far as the conductor moves them."""

    @property
    def last_rung(self) -> int:
        """The cheapest rung of the model with the longest ladder."""

    def step_to(self, rung: int) -> None:
        """Let every model answer with the variant on this rung, or with its last one."""

    def load(self) -> None:
        """Bring unloaded models back."""

    def unload(self) -> None:
        """Free the models until they are loaded or needed again."""

    def states(self) -> dict[str, ModelState]:
        """Return which variant answers, for each model."""


class Conductor:
    """Carries out what :mod:`skerry.run.ladder` and :mod:`skerry.run.duty` decide.

    Parameters
    ----------
    vitals:
        How the machine feels now.
    joules:
        Energy in joules that the machine has used since the start of the run; ``None`` where no counter exists.
    """

    def __init__(
        self,
        log: Log,
        *,
        ladder: Ladder | None = None,
        duty: Duty | None = None,
        models: ModelSet | None = None,
        vitals: Callable[[], Vitals] | None = None,
        joules: Callable[[], float | None] | None = None,
        home: Path = Path(),
    ) -> None:
        self._log = log
        self._ladder = ladder
        self._duty = duty
        self._models = models
        self._vitals = vitals
        self._joules = joules
        self._event = home / duty.event if duty and duty.event else None
        self._event_mark = self._mark()
        self._rung = LadderState()
        self._missed = (0, 0)
        self._deadlines: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._state = DutyState(since=time.monotonic())
        self._last_item = time.monotonic()
        self._awake = threading.Event()
        self._awake.set()
        self._change = threading.Lock()
        self._ended = threading.Event()
        self._over: float | None = None
        self._thread: threading.Thread | None = None

    def start(self, deadlines: Callable[[], tuple[int, int]]) -> None:
        """Begin; ``deadlines`` returns how many records missed their deadline and how many came in, so far."""
        self._deadlines = deadlines
        self._state = DutyState(since=time.monotonic())
        self._last_item = time.monotonic()
        if self._ladder is not None or self._duty is not None:
            self._thread = threading.Thread(target=self._run, name="skerry-conductor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, and let everything that waits for waking go on."""
        self._ended.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join()
            self._awake.set()  # it may have been on its way to sleep
        self._over = self._over or time.monotonic()

    def admit(self, wait: bool) -> bool:
        """Tell whether an item may come in, waiting while the pipeline sleeps. With a gate, items always may."""
        if self._duty is None:
            return True
        if self._duty.gate is None:
            self._last_item = time.monotonic()
            if not self._awake.is_set():
                if not wait:
                    return False
                self._awake.wait()
            self._last_item = time.monotonic()
        return not self._ended.is_set()

    def watched(self, name: str, process: Callable[[Record], Any]) -> Callable[[Record], Any]:
        """Wrap the gate stage so that what it lets through wakes the pipeline."""
        if self._duty is None or self._duty.gate != name:
            return process

        def gate(record: Record) -> Any:
            answer = process(record)
            if isinstance(answer, Record | Merged) or (isinstance(answer, list) and answer):
                self._last_item = time.monotonic()
                if not self._awake.is_set():
                    self._move(called=True)
            return answer

        return gate

    @property
    def has_duty(self) -> bool:
        """Whether there is a duty cycle, and items have to wait at the door."""
        return self._duty is not None

    @property
    def rung(self) -> int:
        """The rung of the ladder that we stand on; 0 is the best variant."""
        return self._rung.rung

    @property
    def is_asleep(self) -> bool:
        """Whether the pipeline sleeps now."""
        return not self._awake.is_set()

    def awake_s(self) -> float:
        """Return the seconds awake so far, or up to the end."""
        return self._state.total_awake(self._over or time.monotonic())

    def joules(self) -> float | None:
        """Return the energy used so far."""
        return self._joules() if self._joules else None

    def model_states(self) -> dict[str, ModelState]:
        """Return which variant answers, for each model."""
        return self._models.states() if self._models else {}

    def _run(self) -> None:
        step_at = time.monotonic()
        pause = _GLANCE_S if self._duty is not None else float(self._ladder.every) if self._ladder else _GLANCE_S
        while not self._ended.wait(pause):
            if self._duty is not None:
                self._move(called=self._called())
            if self._ladder is not None and time.monotonic() >= step_at:
                step_at = time.monotonic() + float(self._ladder.every)
                try:
                    self._step(self._ladder)
                except Exception as error:  # noqa: BLE001 -- a sensor that fails once must not end the ladder
                    self._log.warning("the ladder was not looked at: %s: %s", type(error).__name__, error)

    def _step(self, ladder: Ladder) -> None:
        """Read the signals and go where the ladder says."""
        last = self._models.last_rung if self._models else 0
        before = self._rung
        after = decide(before, self._signals(), ladder, last, time.monotonic())
        if after.rung != before.rung and self._models is not None:
            try:
                self._models.step_to(after.rung)
            except Exception as error:  # noqa: BLE001 -- a runtime may raise anything; the variant in use goes on
                self._log.warning("the ladder stays on rung %d: %s", before.rung, error)
                return
            self._log.info("ladder: rung %d → %d (%s)", before.rung, after.rung, after.reason)
        self._rung = after

    def _signals(self) -> Signals:
        missed, seen = self._deadlines()
        before_missed, before_seen = self._missed
        self._missed = (missed, seen)
        late, came = missed - before_missed, seen - before_seen
        # Nothing may come in because everything that waits is late.
        share = min(1.0, late / max(came, 1)) if late or came else None
        vitals = self._vitals() if self._vitals else Vitals()
        return Signals(
            missed_deadlines=share,
            memory_pressure=vitals.memory_pressure,
            memory_stall=vitals.memory_stall,
            temperature=vitals.hottest_c,
            battery=None if vitals.on_mains else vitals.battery_share,
        )

    def _called(self) -> bool:
        """Tell whether the event file was touched since we last looked."""
        mark = self._mark()
        called = mark is not None and mark != self._event_mark
        self._event_mark = mark
        return called

    def _mark(self) -> int | None:
        try:
            return self._event.stat().st_mtime_ns if self._event else None
        except OSError:
            return None

    def _move(self, *, called: bool) -> None:
        """Sleep or wake as the duty cycle says; models are back before anything goes on."""
        assert self._duty is not None
        with self._change:
            before = self._state
            after = next_duty(
                before, self._duty, now_s=time.monotonic(), last_item_s=self._last_item, called=called
            )  # fmt: skip
            self._state = after
            if after.awake == before.awake:
                return
            self._log.info("the pipeline %s", "wakes" if after.awake else "sleeps")
            try:
                self._carry_out(after.awake)
            except Exception as error:  # noqa: BLE001 -- a runtime may raise anything; stages load what they need
                self._log.warning("models could not be %s: %s", "loaded" if after.awake else "unloaded", error)
            if after.awake:
                self._awake.set()
            else:
                self._awake.clear()

    def _carry_out(self, awake: bool) -> None:
        if self._models is None:
            return
        if awake:
            self._models.load()
        else:
            self._models.unload()
