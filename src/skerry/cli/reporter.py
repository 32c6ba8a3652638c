"""A reporter: who tells a person how a run goes, and the thread that keeps it informed."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Protocol, TextIO

from skerry.cli import figures
from skerry.cli.changes import changes
from skerry.spec.summary import LOSSES, RunSummary

TICK_S = 0.5
"""Between two looks at the run: often enough to feel live, rare enough to cost next to nothing."""
SAME_EVERY_S = 10.0
"""Before the same line of a log is said again."""
KEPT_LINES = 256
"""Lines of a log that are remembered for that."""
PLAIN_EVERY_S = 5.0
"""Between two plain lines."""


class Reporter(Protocol):
    """Shows a run. ``show`` comes from one thread, ``say`` from any."""

    def start(self) -> None:
        """Get ready to show; called once, before anything else."""

    def show(self, summary: RunSummary) -> None:
        """Show the run as it is now; called about every :data:`TICK_S` seconds."""

    def say(self, line: str) -> None:
        """Tell of an event."""

    def stop(self) -> None:
        """Leave the terminal as it was; safe to call twice."""


class SilentReporter:
    """Says nothing."""

    def start(self) -> None:
        """Do nothing."""

    def show(self, summary: RunSummary) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class PlainReporter:
    """Prints one line now and then, and one for each event: for logs, pipes and people without a terminal.

    Parameters
    ----------
    stream:
        Where to print.
    every_s:
        Seconds of the run between two lines.
    """

    def __init__(self, stream: TextIO | None = None, *, every_s: float = PLAIN_EVERY_S) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s
        self._shown = (0.0, 0)
        """The run's time and the items settled at the last line."""
        self._clock = 0.0

    def start(self) -> None:
        """Do nothing: a line needs no preparation."""

    def show(self, summary: RunSummary) -> None:
        """Print a line when it is time for the next one."""
        self._clock = summary.wall_s
        then, items = self._shown
        passed = summary.wall_s - then
        if passed >= self._every_s:
            self._shown = (summary.wall_s, summary.settled())
            self.say(plain_line(summary, (summary.settled() - items) / passed))

    def say(self, line: str) -> None:
        """Print one line with the time of the run."""
        print(f"[{figures.clock(self._clock)}] {line}", file=self._stream, flush=True)

    def stop(self) -> None:
        """Do nothing: every line is already out."""


def plain_line(summary: RunSummary, per_second: float) -> str:
    """Write how a run goes on one line; ``per_second`` is how many items met their fate."""
    lost = [(fate.value, getattr(summary, fate.value)) for fate in LOSSES]
    parts = [figures.rate(per_second), f"in {figures.count(summary.items_in)}"]
    parts.append(f"out {figures.count(summary.items_out)}")
    parts += [f"{fate} {figures.count(number)}" for fate, number in lost if number]
    parts += [f"waiting {figures.count(summary.in_flight)}"] if summary.in_flight else []
    if summary.latency_ms.p50 is not None:
        parts.append(f"p50 {figures.milliseconds(summary.latency_ms.p50)}")
        parts.append(f"p99 {figures.milliseconds(summary.latency_ms.p99)}")
    parts += [f"rung {summary.rung}"] if summary.rung else []
    parts += [summary.status] if summary.status != "running" else []
    return ", ".join(parts)


class EventLog(logging.Handler):
    """A logging handler that hands what the engine and its parts say to a reporter.

    A line that was said less than :data:`SAME_EVERY_S` ago is not said again, but counted: what fails at every record
    must not drown the rest.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say
        self._said: dict[str, tuple[float, int]] = {}
        """When a line was last said, and how often it was held back since."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record on one line, with its level when it is bad."""
        try:
            head = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            line = head + " ".join(record.getMessage().split())
            then, held_back = self._said.pop(line, (-SAME_EVERY_S, 0))
            if record.created - then < SAME_EVERY_S:
                self._said[line] = (then, held_back + 1)
                return
            self._said[line] = (record.created, 0)
            while len(self._said) > KEPT_LINES:
                del self._said[next(iter(self._said))]
            self._say(line + (f" (and {held_back} times before)" if held_back else ""))
        except Exception:  # noqa: BLE001 - a message that cannot be written must not stop the run
            self.handleError(record)


class Watch:
    """A thread that looks at a run now and then and tells a reporter.

    Parameters
    ----------
    summary:
        Returns the run so far; called from the thread.
    reporter:
        Who is told.
    news:
        Returns further lines to say, such as that a signal came; called from the thread.
    """

    def __init__(
        self, summary: Callable[[], RunSummary], reporter: Reporter, news: Callable[[], list[str]] = list
    ) -> None:
        self._summary = summary
        self._reporter = reporter
        self._news = news
        self._over = threading.Event()
        self._last: RunSummary | None = None
        self._thread = threading.Thread(target=self._run, name="skerry-watch", daemon=True)

    def start(self) -> None:
        """Start to look."""
        self._reporter.start()
        self._thread.start()

    def stop(self) -> None:
        """Look a last time, so that no event is missed, and leave the terminal as it was."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._reporter.stop()

    def _run(self) -> None:
        try:
            while not self._over.wait(TICK_S):
                self._look()
            self._look()
        except OSError:
            # The terminal or the pipe has gone. The run matters more than being seen.
            return

    def _look(self) -> None:
        now = self._summary()
        for line in [*self._news(), *changes(self._last, now)]:
            self._reporter.say(line)
        self._reporter.show(now)
        self._last = now
