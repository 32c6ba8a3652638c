"""The live view: a run on one screen of a terminal, from 80×24 up."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from skerry.cli import figures
from skerry.spec.summary import LOSSES, RunSummary, StageSummary

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

HISTORY = 240
"""Rates that are kept for the curve: two minutes at two looks a second, and as wide as any terminal."""
EVENTS = 64
LAST_EVENTS = 10
"""Events that are printed again after the view, which takes them with it."""
WIDE = 108
"""From this width the table has room for every column."""
RATE_OVER_S = 2.0
"""The time over which a rate is taken: shorter ones flicker."""
USUAL_LIMIT_C = 85.0
"""Where boards that do not tell their own limit begin to slow down."""
NEAR_C = 5.0
LOSS_STYLES = {"dropped": "red", "expired": "red", "failed": "bold red", "filtered": "dim", "absorbed": "dim"}
STATUS_STYLES = {"running": "bold green", "asleep": "bold blue", "done": "bold", "failed": "bold red"}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the machine is: shares from 0 to 1, bytes, °C and watts; ``None`` where it does not tell."""

    cpu: float = 0.0
    memory: float = 0.0
    rss_bytes: int = 0
    temperature_c: float | None = None
    limit_c: float | None = None
    battery: float | None = None
    power_w: float | None = None


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that one screen shows."""

    summary: RunSummary
    rates: Sequence[float] = ()
    """Items that met their fate in a second, the newest last."""
    load: Load = Load()
    events: Sequence[str] = ()
    footer: str = ""


class LiveView:
    """A reporter that draws on the terminal's other screen and gives the first one back untouched.

    Parameters
    ----------
    stream:
        The terminal.
    capture_stdout:
        Whether what others print to stdout is shown as an event; wanted when that is the same terminal.
    footer:
        Returns the last line of the screen: what the next Ctrl-C does.
    """

    def __init__(
        self, stream: TextIO | None = None, *, capture_stdout: bool = True, footer: Callable[[], str] = str
    ) -> None:
        self._footer = footer
        self._stream = stream or sys.stderr
        self._capture_stdout = capture_stdout
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._past: deque[tuple[float, int, float | None]] = deque(maxlen=32)
        self._meter = LoadMeter()
        self._live: Live | None = None
        self._streams = contextlib.ExitStack()

    def start(self) -> None:
        """Take the terminal's other screen."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
            vertical_overflow="crop",
        )  # fmt: skip
        self._live.start()
        events: Any = EventStream(self.say)
        self._streams.enter_context(contextlib.redirect_stderr(events))
        if self._capture_stdout:
            self._streams.enter_context(contextlib.redirect_stdout(events))

    def show(self, summary: RunSummary) -> None:
        """Draw the run as it is now."""
        if self._live is None:
            return
        watts = self._note(summary)
        picture = Picture(
            summary=summary, rates=tuple(self._rates), load=self._meter.read(watts), events=tuple(self._events),
            footer=self._footer(),
        )  # fmt: skip
        size = self._live.console.size
        self._live.update(screen(picture, size.width, size.height), refresh=True)

    def say(self, line: str) -> None:
        """Add an event with the time of day."""
        self._events.append(f"{time.strftime('%H:%M:%S')} {line}")

    def stop(self) -> None:
        """Give the terminal back, and print there the last events, which went with the other screen."""
        live, self._live = self._live, None
        if live is None:
            return
        self._streams.close()
        live.stop()
        for line in list(self._events)[-LAST_EVENTS:]:
            print(line, file=self._stream)

    def _note(self, summary: RunSummary) -> float | None:
        """Keep what rates are made of; return the power in watts over the last seconds, if energy is counted."""
        self._past.append((summary.wall_s, summary.settled(), summary.energy_j))
        while len(self._past) > 2 and summary.wall_s - self._past[1][0] >= RATE_OVER_S:
            self._past.popleft()
        then, items, energy = self._past[0]
        passed = summary.wall_s - then
        if passed <= 0:
            return None
        self._rates.append((summary.settled() - items) / passed)
        return None if energy is None or summary.energy_j is None else (summary.energy_j - energy) / passed


class EventStream:
    """A text stream that turns whole lines into events, so that a ``print`` cannot tear the picture."""

    encoding = "utf-8"

    def __init__(self, say: Any) -> None:
        self._say = say
        self._rest = ""

    def write(self, text: str) -> int:
        """Say each line that is complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._say(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is said when it is complete."""

    def isatty(self) -> bool:
        """Tell others not to draw here."""
        return False


class LoadMeter:
    """Reads how busy the machine is, by the vital signs that move the degrade ladder (they know of cgroup limits)."""

    def __init__(self) -> None:
        import psutil

        from skerry.device.pressure import VitalSigns

        self._psutil = psutil
        self._process = psutil.Process()
        self._vitals = VitalSigns()
        psutil.cpu_percent(None)  # the first call has nothing to compare with and returns 0

    def read(self, power_w: float | None = None) -> Load:
        """Return the load now; the share of the CPU is since the last call."""
        vitals = self._vitals.read()
        cpu, memory = vitals.cpu_load, vitals.memory_pressure
        return Load(  # psutil fills in where there is no /proc, as on macOS
            cpu=self._psutil.cpu_percent(None) / 100 if cpu is None else cpu,
            memory=self._psutil.virtual_memory().percent / 100 if memory is None else memory,
            rss_bytes=self._process.memory_info().rss,
            temperature_c=vitals.hottest_c,
            limit_c=vitals.limit_c,
            battery=vitals.battery_share,
            power_w=power_w,
        )


def screen(picture: Picture, width: int, height: int) -> RenderableType:
    """Draw a picture for a terminal of ``width`` × ``height`` characters; it fits from 60×18 up."""
    from rich.console import Group

    summary = picture.summary
    head = [_title(summary, width), *_totals(picture, width)]
    models = _models(summary, width)[: 3 if height >= 24 else 1]
    foot = [_rule("model and device", width), *models, _device(picture.load, width)]
    # The rules over stages and answers, the table's header and the footer are always there.
    left = height - len(head) - len(foot) - 4
    reasons = [] if width >= WIDE else _reasons(summary.stages, width)[: max(left // 8, 1)]
    stages = _worth_showing(summary.stages, max(left - len(reasons) - 5, 3))
    quiet = len(summary.stages) - len(stages)
    reasons += [_dim(f" … and {quiet} more, which are quiet", width)] if quiet else []
    left -= len(stages) + len(reasons)
    events = _events(picture.events, min(9 if height > 32 else 3, left // 2), width)
    answers = _answers(summary, max(left - len(events), 1), width)
    blank = [_dim("", width)] * (left - len(events) - len(answers))
    return Group(
        *head, _rule("stages", width), _table(stages, width), *reasons, *foot,
        _rule("last answers", width), *answers, *blank, *events, _footer(picture.footer, width),
    )  # fmt: skip


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _dim(words: str, width: int) -> Text:
    from rich.text import Text

    return _cut(Text(words, style="dim"), width)


def _title(summary: RunSummary, width: int) -> Text:
    from rich.text import Text

    left = Text.assemble(
        (f" {summary.pipeline} ", "bold reverse"), "  ",
        (f"● {summary.status}", STATUS_STYLES[summary.status]), f"  {figures.clock(summary.wall_s)}",
    )  # fmt: skip
    right = Text(f"{_release(summary.release)} ", style="dim")
    left.append(" " * max(width - left.cell_len - right.cell_len, 1))
    return _cut(left.append_text(right), width)


def _release(release: str | None) -> str:
    return f"release {release.removeprefix('sha256:')[:12]}" if release else "not built"


def _totals(picture: Picture, width: int) -> list[Text]:
    from rich.text import Text

    summary = picture.summary
    now = figures.rate(picture.rates[-1]) if picture.rates else "–"
    latency = summary.latency_ms
    speed = Text.assemble(
        " rate   ", (f"{now:>10}", "bold cyan"), "   p50 ", (figures.milliseconds(latency.p50), "bold"), "   p99 ",
        (figures.milliseconds(latency.p99), "bold"), "   ",
    )  # fmt: skip
    speed.append(figures.spark(picture.rates, width - speed.cell_len - 1), style="cyan")
    items = Text.assemble(" items  ", (f"{figures.count(summary.items_in):>10}", "bold"), " in   ")
    items.append_text(Text.assemble((figures.count(summary.items_out), "bold green"), " out"))
    shown = [(fate.value, getattr(summary, fate.value)) for fate in LOSSES]
    for word, number in [*shown, ("waiting", summary.in_flight)]:
        if number:
            style = LOSS_STYLES.get(word, "")
            items.append_text(Text.assemble("  ", (figures.short(number), style), " ", (word, style)))
    return [_cut(speed, width), _cut(items, width)]


def _rule(title: str, width: int) -> Text:
    from rich.text import Text

    line = Text.assemble(("─ ", "dim"), (title, "bold dim"), " ")
    return _cut(line.append("─" * max(width - line.cell_len, 0), style="dim"), width)


def _worth_showing(stages: Sequence[StageSummary], room: int) -> list[StageSummary]:
    """Return the stages that fit, in their order; when not all fit, those that lose, queue or take the longest."""
    if len(stages) <= room:
        return list(stages)

    def weight(stage: StageSummary) -> tuple[int, int, float]:
        return (stage.dropped + stage.expired + stage.failed, stage.in_flight, stage.latency_ms.p99 or 0.0)

    kept = {stage.id for stage in sorted(stages, key=weight, reverse=True)[:room]}
    return [stage for stage in stages if stage.id in kept]


def _table(stages: Iterable[StageSummary], width: int) -> Table:
    from rich.table import Table

    wide = width >= WIDE
    number = figures.count if wide else figures.short
    table = Table(box=None, width=width, padding=(0, 1), pad_edge=True, header_style="dim")
    table.add_column("", no_wrap=True, max_width=28 if wide else 18, overflow="ellipsis")
    for name in ("in", "out", *(("emitted",) if wide else ()), "p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("queue", no_wrap=True, min_width=17 if wide else 10)
    table.add_column("lost, and why" if wide else "lost", no_wrap=True, ratio=1, overflow="ellipsis")
    for stage in stages:
        counts = [stage.items_in, stage.items_out, *((stage.emitted,) if wide else ())]
        table.add_row(
            _name(stage), *map(number, counts), figures.milliseconds(stage.latency_ms.p50),
            figures.milliseconds(stage.latency_ms.p99), _queue(stage, wide), _losses(stage, wide),
        )  # fmt: skip
    return table


def _name(stage: StageSummary) -> Text:
    from rich.text import Text

    marks = {"source": "→ ", "sink": "← ", "stage": "  "}
    style = {"failed": "bold red", "waiting": "bold yellow", "done": "dim"}.get(stage.state, "")
    return Text(marks[stage.role] + stage.id, style=style)


def _queue(stage: StageSummary, wide: bool) -> Text:
    from rich.text import Text

    queue = stage.queue
    if queue is None:
        return Text("")
    share = max(queue.items / (queue.max_items or 1), queue.bytes / (queue.max_bytes or 1))
    style = "red" if share > 0.9 else "yellow" if share > 0.5 else "green"
    waiting = f"{figures.count(queue.items):>6}" if wide else f"{figures.short(queue.items):>4}"
    return Text.assemble((figures.bar(share, 10 if wide else 5), style), f" {waiting}")


def _losses(stage: StageSummary, wide: bool) -> Text:
    """Say what a stage lost, the worst first, because the end may be cut off; why, where there is room."""
    from rich.text import Text

    parts: list[tuple[str, str]] = []
    if stage.state in {"waiting", "failed"}:
        parts.append((stage.state, "bold yellow" if stage.state == "waiting" else "bold red"))
    parts += [(f"restarted {stage.restarts}×", "yellow")] if stage.restarts else []
    for fate in reversed(LOSSES):
        number = getattr(stage, fate.value)
        if number:
            why = _why(stage, fate.value) if wide else ""
            parts.append((f"{figures.short(number)} {fate.value}{why}", LOSS_STYLES[fate.value]))
    return Text("; ").join(Text(words, style=style) for words, style in parts)


def _why(stage: StageSummary, fate: str) -> str:
    # What was filtered as "filtered" needs no second word.
    reasons = [reason for reason in stage.reasons.get(fate, {}) if reason not in {"", fate, "merged"}]
    return f" ({', '.join(reasons)})" if reasons else ""


def _reasons(stages: Iterable[StageSummary], width: int) -> list[Text]:
    """Return a line for each stage that lost records against its will, with the reasons."""
    from rich.text import Text

    lines = []
    for stage in sorted(stages, key=lambda stage: -(stage.dropped + stage.expired + stage.failed)):
        lost = [
            f"{figures.short(number)} {fate}: {reason}"
            for fate in ("failed", "expired", "dropped")
            for reason, number in stage.reasons.get(fate, {}).items()
        ]
        if lost:
            lines.append(_cut(Text(f" ! {stage.id}  {'; '.join(lost)}", style="red"), width))
    return lines


def _models(summary: RunSummary, width: int) -> list[Text]:
    from rich.text import Text

    lines = []
    for name, model in summary.models.items():
        line = Text.assemble(" model  ", (name, "bold"), f"  {model.variant} on {model.runtime}")
        line.append(f"  rung {summary.rung}", style="yellow" if summary.rung else "green")
        line.append(f"  swapped {model.swaps}×" if model.swaps else "")
        if model.shadow is not None and model.shadow_agreement is not None:
            line.append(f"  shadow {model.shadow} agrees {model.shadow_agreement:.3f}", style="dim")
        lines.append(_cut(line, width))
    return lines


def _device(load: Load, width: int) -> Text:
    from rich.text import Text

    bars = 4 if width < WIDE else 16
    line = Text(" device ")
    for word, share in (("cpu", load.cpu), ("memory", load.memory)):
        style = "red" if share > 0.9 else "yellow" if share > 0.7 else "green"
        line.append_text(Text.assemble(f"{word} ", (figures.bar(share, bars), style), f" {share:4.0%}  "))
    line.append(f"rss {figures.size(load.rss_bytes)}")
    if load.temperature_c is not None:
        hot = load.temperature_c > (load.limit_c or USUAL_LIMIT_C) - NEAR_C
        line.append(f"  {load.temperature_c:.0f} °C", style="red" if hot else "")
    if load.power_w is not None:
        line.append(f"  {load.power_w:.1f} W")
    if load.battery is not None:
        line.append(f"  battery {load.battery:.0%}")
    return _cut(line, width)


def _answers(summary: RunSummary, room: int, width: int) -> list[Text]:
    if not summary.last:
        return [_dim(" none yet", width)]
    return _lines([figures.answer(fields) for fields in summary.last], room, width, "")


def _events(events: Sequence[str], room: int, width: int) -> list[Text]:
    if not events or room < 2:
        return []
    return [_rule("events", width), *_lines(events, room - 1, width, "yellow")]


def _lines(lines: Sequence[str], room: int, width: int, style: str) -> list[Text]:
    """Return the newest lines that fit, each cut to the width."""
    from rich.text import Text

    newest = list(lines)[-room:] if room > 0 else []
    return [_cut(Text(f" {line}", style=style), width) for line in newest]


def _footer(words: str, width: int) -> Text:
    from rich.text import Text

    return _cut(Text(f" {words}", style="dim italic"), width)


def print_picture(picture: Picture, console: Console) -> None:
    """Draw a picture once, where a console stands: for documentation and tests."""
    console.print(screen(picture, console.width, console.height))
