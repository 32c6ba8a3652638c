"""Cost: what the engine takes for an item beyond a bare loop over the same three stages that do nothing."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bench.engine_rows.queues import QueuePipeline
from bench.engine_rows.rig import Call, PassOn, Tap, running
from bench.measuring import Samples, Timing, interleaved
from bench.report import Report

STAGES = 3
Candidate = Callable[[], Timing]


class Arrivals:
    """Counts what arrives at the end, and tells when everything has."""

    def __init__(self) -> None:
        self.everything = threading.Event()
        self._left = 0

    def expect(self, items: int) -> None:
        """Start over: so many will come."""
        self._left = items
        self.everything.clear()

    def take(self, item: Any) -> None:
        """Count one."""
        self._left -= 1
        if not self._left:
            self.everything.set()


def add_rows(report: Report, *, quick: bool) -> None:
    """Measure every way of running the stages and add the rows."""
    items, repeats = (10_000, 5) if quick else (50_000, 15)
    cpu, wall = _measured(items, repeats)
    put_get = cpu["put and get"]
    loop = cpu["bare loop"]
    named = {
        "inline, sampled": "inline, sampled timing",
        "inline, default": "inline, default instrumentation",
        "inline, every": "inline, every item timed",
        "inline, positions": "inline, default, with a position per item (resumable sources)",
        "channel": "behind one channel",
    }
    for name, words in named.items():
        cost = cpu[name].minus(loop)
        report.add(
            f"cost per item over a bare loop, 3 no-op stages: {words}", cost.over(put_get), "× SimpleQueue put+get"
        )
    report.add(
        "the same in µs: inline, default instrumentation", cpu["inline, default"].minus(loop).scaled(1e6), "µs CPU"
    )
    report.add("one SimpleQueue put+get", put_get.scaled(1e9), "ns CPU")
    for clock, taken in (("CPU", cpu), ("wall", wall)):
        mine, theirs = taken["channel"].minus(taken["bare loop"]), taken["queues"].minus(taken["bare loop"])
        figure = f"cost per item behind one channel vs queue.Queue threads ({clock} time)"
        peers = {"skerry µs": mine.scaled(1e6), "queue.Queue µs": theirs.scaled(1e6)}
        # Bound by processor time: on the wall, other work on the machine counts as much as ours.
        report.add(figure, mine.over(theirs), "×", must="<= 0.3" if clock == "CPU" else None, peers=peers)


def _measured(items: int, repeats: int) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Return seconds per item of every candidate, by processor time and by the clock on the wall."""
    stages = [PassOn() for _ in range(STAGES)]
    arrivals = Arrivals()
    live, pulled = Tap(live=True), {name: Tap(live=False) for name in ("sampled", "adaptive", "every", "positions")}
    by_hand = QueuePipeline([stage.process for stage in stages], arrivals.take)
    with (
        running(pulled["sampled"], stages, Call(arrivals.take), timing="sampled"),
        running(pulled["adaptive"], stages, Call(arrivals.take)),
        running(pulled["every"], stages, Call(arrivals.take), timing="every"),
        running(pulled["positions"], stages, Call(arrivals.take)),
        running(live, stages, Call(arrivals.take)),
    ):
        candidates: dict[str, Candidate] = {
            "bare loop": lambda: _loop(items, stages, arrivals),
            "put and get": lambda: _put_and_get(items),
            "inline, sampled": lambda: _fed(items, pulled["sampled"], arrivals),
            "inline, default": lambda: _fed(items, pulled["adaptive"], arrivals),
            "inline, every": lambda: _fed(items, pulled["every"], arrivals),
            "inline, positions": lambda: _fed_with_positions(items, pulled["positions"], arrivals),
            "channel": lambda: _fed(items, live, arrivals),
            "queues": lambda: _queued(items, by_hand, arrivals),
        }
        measured = both_clocks(candidates, repeats=repeats)
    by_hand.close()
    return measured


def both_clocks(
    candidates: Mapping[str, Candidate], *, repeats: int, collect: bool = True
) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Measure in turns; return processor time and wall time by name. ``collect`` clears garbage before each turn."""
    walls: dict[str, list[float]] = {name: [] for name in candidates}

    def measure(name: str) -> float:
        if collect:
            gc.collect()  # what the neighbour left behind is not ours to clear away
        timing = candidates[name]()
        walls[name].append(timing.wall_s)
        return timing.cpu_s

    cpu = interleaved({name: partial(measure, name) for name in candidates}, repeats=repeats, warm_up=1)
    return cpu, {name: Samples(tuple(values[1:])) for name, values in walls.items()}


class Stopwatch:
    """Both clocks, from its making on."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def per_item(self, items: int) -> Timing:
        """Return the time since then, divided by ``items``."""
        return Timing((time.perf_counter() - self._wall) / items, (time.process_time() - self._cpu) / items)


def _loop(items: int, stages: list[PassOn], arrivals: Arrivals) -> Timing:
    one, two, three = (stage.process for stage in stages)
    take = arrivals.take
    arrivals.expect(items)
    watch = Stopwatch()
    for number in range(items):
        take(three(two(one({"n": number}))))
    return watch.per_item(items)


def _put_and_get(items: int) -> Timing:
    channel: queue.SimpleQueue[int] = queue.SimpleQueue()
    put, get = channel.put, channel.get
    watch = Stopwatch()
    for number in range(items):
        put(number)
        get()
    return watch.per_item(items)


def _fed(items: int, tap: Tap, arrivals: Arrivals) -> Timing:
    emit = tap.emit
    arrivals.expect(items)
    watch = Stopwatch()
    for number in range(items):
        emit({"n": number})
    arrivals.everything.wait()
    return watch.per_item(items)


def _fed_with_positions(items: int, tap: Tap, arrivals: Arrivals) -> Timing:
    emit = tap.emit
    arrivals.expect(items)
    watch = Stopwatch()
    for number in range(items):
        emit({"n": number}, size=64, position=number)
    arrivals.everything.wait()
    return watch.per_item(items)


def _queued(items: int, pipeline: QueuePipeline, arrivals: Arrivals) -> Timing:
    put = pipeline.put
    arrivals.expect(items)
    watch = Stopwatch()
    for number in range(items):
        put({"n": number})
    arrivals.everything.wait()
    return watch.per_item(items)
