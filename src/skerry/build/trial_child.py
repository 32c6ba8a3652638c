"""The program in a trial's child process: one variant of a model, confined, that answers and is timed.

It reads requests from its standard input and writes answers to its standard output (:mod:`skerry.build.exchange`); it
knows nothing of builds, so that its memory is that of a process with only this variant.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from skerry.build import exchange
from skerry.build.exchange import Answer, Batch, Broken, Load, Loaded, Reply, Request, Times, Turn, Vectors
from skerry.run.encoder import Encoder, load_encoder

_DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of ``prctl(2)``."""

OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "bad allocation", "Cannot allocate memory", "failed to allocate memory")
"""How Python, C++, the C library and runtimes say that there was no memory to be had."""


def main() -> None:
    """Answer requests until the pipe ends. The argument is the process that started this one."""
    _die_with(int(sys.argv[1]))
    read, write = _take_pipes()
    encoder: Encoder | None = None
    while True:
        try:
            request = exchange.requests.decode(exchange.read_frame(read))
        except EOFError:
            return
        reply: Reply
        try:
            if isinstance(request, Load):
                encoder, reply = _load(request)
            else:
                assert encoder is not None, "the first request is to load"
                reply = _answered(encoder, request)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is this candidate's result
            reply = _broken(error)
        write(exchange.frame(reply))


def _take_pipes() -> tuple[Callable[[int], bytes], Callable[[bytes], None]]:
    """Keep the pipes to ourselves: what a library prints goes to standard error and is not taken for an answer."""
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(outgoing, view) :]

    return (lambda count: os.read(incoming, count)), write


def _load(request: Load) -> tuple[Encoder, Loaded]:
    request.confinement.apply()
    start = time.perf_counter()
    encoder = load_encoder(Path(request.folder), request.manifest, request.variant)
    encoder.embed([request.text])
    load_ms = (time.perf_counter() - start) * 1e3
    encoder.warm_up()
    return encoder, Loaded(load_ms=load_ms, dimension=encoder.dimension)


def _answered(encoder: Encoder, request: Request) -> Reply:
    match request:
        case Turn():
            return _timed(encoder, [[text] for text in request.lead], [[text] for text in request.texts])
        case Batch():
            return _timed(encoder, [], [request.texts])
        case Answer():
            return _vectors(encoder, request.texts)
        case Load():
            raise AssertionError("a child loads one variant")


def _timed(encoder: Encoder, lead: list[list[str]], asked: list[list[str]]) -> Times:
    times = []
    before, taken = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    for texts in lead:
        encoder.embed(texts)
    for texts in asked:
        start = time.perf_counter()
        encoder.embed(texts)
        times.append((time.perf_counter() - start) * 1e3)
    cpu_ms = (time.process_time() - before) * 1e3
    return Times(
        milliseconds=times, cpu_ms=cpu_ms, preempted=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - taken
    )


def _vectors(encoder: Encoder, texts: list[str]) -> Vectors:
    rows = [encoder.embed([text])[0].astype("<f4", copy=False).tobytes() for text in texts]
    return Vectors(rows=len(rows), dimension=encoder.dimension, data=b"".join(rows), peak_bytes=peak_bytes())


def _broken(error: Exception) -> Broken:
    reason = f"{type(error).__name__}: {error}"
    wanting = isinstance(error, MemoryError) or any(sign in reason for sign in OUT_OF_MEMORY)
    return Broken(kind="out-of-memory" if wanting else "error", reason=reason)


def peak_bytes() -> int:
    """Return the most resident memory that this process had since it began to run its own program."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        # In bytes on macOS, the one system without /proc that is supported.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _die_with(parent: int) -> None:
    """End when the parent does, even inside a run that never returns; where there is no ``prctl``, with the pipe."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        raise SystemExit(1)


if __name__ == "__main__":
    main()
