"""A frame: a camera's picture through stages in one thread, and to a stage in another process."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from bench.engine_rows.cost import Arrivals
from bench.engine_rows.rig import Call, PassOn, Tap, running
from bench.measuring import interleaved
from bench.report import Report
from skerry.run.process import ProcessStage
from skerry.run.ring import Ring
from skerry.spec.ports import Options
from skerry.spec.record import Record

SHAPE = (480, 640, 3)
"""640×480 pixels of three bytes: 0.92 MB."""
STAGES = 5


class Brightness(PassOn):
    """Adds one number to a record and leaves its frame alone, as a detector does."""

    def __init__(self, options: Options | None = None) -> None:
        pass

    def process(self, record: Record) -> Record:
        """Look at one pixel: what is measured is the way there and back."""
        record.fields["brightness"] = int(record.fields["frame"][0, 0, 0])
        return record


def add_rows(report: Report, *, quick: bool) -> None:
    """Count copies within the process, and measure the way to another one."""
    frames = 50 if quick else 200
    for live, words in ((False, "pulled inline"), (True, "behind a channel")):
        report.add(f"copies of a 640×480×3 frame through {STAGES} stages, {frames} frames, {words}",
                   float(_copies(frames, live=live)), "copies", must="<= 0")  # fmt: skip
    _add_process_rows(report, repeats=10 if quick else 40)


def _copies(frames: int, *, live: bool) -> int:
    """Count the frames that arrive as another object, or with their pixels at another place."""
    sent = [np.full(SHAPE, number % 256, dtype=np.uint8) for number in range(8)]
    places = [frame.__array_interface__["data"][0] for frame in sent]
    copied: list[int] = []
    arrivals = Arrivals()

    def look(record: Record) -> None:
        frame, number = record.fields["frame"], record.fields["number"]
        if frame is not sent[number] or frame.__array_interface__["data"][0] != places[number]:
            copied.append(number)
        arrivals.take(record)

    tap = Tap(live=live)
    with running(tap, [PassOn() for _ in range(STAGES)], Call(look)):
        arrivals.expect(frames)
        for number in range(frames):
            tap.emit({"frame": sent[number % len(sent)], "number": number % len(sent)})
        arrivals.everything.wait()
    return len(copied)


def _add_process_rows(report: Report, repeats: int) -> None:
    frame = np.zeros(SHAPE, dtype=np.uint8)
    arrived = threading.Semaphore(0)
    tap = Tap(live=True)
    stage: Any = ProcessStage(Brightness, Options())
    with running(tap, [stage], Call(lambda record: arrived.release())), _Echo() as echo, _OpenRing() as ring:

        def through_engine() -> None:
            tap.emit({"frame": frame})
            arrived.acquire()

        samples = interleaved(
            {
                "engine": lambda: _seconds(through_engine),
                "queue": lambda: _seconds(lambda: echo.ask(frame)),
                "ring": lambda: _seconds(lambda: ring.read(0, 0, ring.write(0, 0, {"frame": frame}))),
                "pickle": lambda: _seconds(lambda: pickle.loads(bytes(ForkingPickler.dumps({"frame": frame})))),
            },
            repeats=repeats,
            warm_up=3,
        )
    rows = (
        ("a frame to a stage with process: true and its answer back, vs mp.Queue both ways", "engine", "queue"),
        ("a frame into the ring and out, vs pickled and read back in one process", "ring", "pickle"),
    )
    for words, mine, theirs in rows:
        peers = {"skerry µs": samples[mine].scaled(1e6), f"{theirs} µs": samples[theirs].scaled(1e6)}
        report.add(words, samples[mine].over(samples[theirs]), "×", peers=peers)


def _seconds(call: Callable[[], object]) -> float:
    """Return what one call takes, over five in a row."""
    begin = time.perf_counter()
    for _ in range(5):
        call()
    return (time.perf_counter() - begin) / 5


class _OpenRing:
    """A ring that is closed at the end of the block."""

    def __enter__(self) -> Ring:
        self._ring = Ring()
        return self._ring

    def __exit__(self, *_: object) -> None:
        self._ring.close()


class _Echo:
    """The yardstick: a process that takes a frame from one queue and puts its answer into another."""

    def __enter__(self) -> _Echo:
        context = multiprocessing.get_context("spawn")
        self._there: Queue[Any] = context.Queue()
        self._back: Queue[Any] = context.Queue()
        self._process = context.Process(target=_answer, args=(self._there, self._back), daemon=True)
        self._process.start()
        return self

    def ask(self, frame: Any) -> Any:
        """Have one frame answered: it stays here, only the number comes back."""
        self._there.put({"frame": frame})
        return self._back.get()

    def __exit__(self, *_: object) -> None:
        self._there.put(None)
        self._process.join()


def _answer(there: Queue[Any], back: Queue[Any]) -> None:
    while (fields := there.get()) is not None:
        back.put({"brightness": int(fields["frame"][0, 0, 0])})
