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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skerry.build import exchange
from skerry.build.exchange import (
    Answer,
    Answers,
    Asked,
    Batch,
    Broken,
    Load,
    Loaded,
    Reply,
    Request,
    Tensor,
    Times,
    Turn,
)
from skerry.build.items import Row
from skerry.run.encoder import Encoder, load_encoder
from skerry.run.tensors import TensorModel, load_tensor_model
from skerry.spec.errors import ModelKindError
from skerry.spec.ports import Array

_DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of ``prctl(2)``."""

OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "bad allocation", "Cannot allocate memory", "failed to allocate memory")
"""How Python, C++, the C library and runtimes say that there was no memory to be had."""


class TextContender:
    """A model of texts, which answers with a vector for each."""

    def __init__(self, request: Load) -> None:
        self._encoder: Encoder = load_encoder(Path(request.folder), request.manifest, request.variant)

    def prepared(self, items: Sequence[Asked]) -> list[str]:
        """Return the texts as they are."""
        return [item for item in items if isinstance(item, str)]

    def answers(self, texts: list[str]) -> Array:
        """Return one vector for each text, float32 of shape (texts, dimension)."""
        return self._encoder.embed(texts)

    def warm_up(self) -> None:
        """Answer texts of its own."""
        self._encoder.warm_up()


class TensorContender:
    """A model of tensors, which answers with one of its outputs for each row."""

    def __init__(self, request: Load) -> None:
        self._model: TensorModel = load_tensor_model(Path(request.folder), request.manifest, request.variant)
        outputs = [spec.name for spec in self._model.outputs]
        if request.output >= len(outputs):
            raise ModelKindError(
                f"the model has {len(outputs)} outputs", expected=f"more than {request.output}, as the original has"
            )
        self._output = outputs[request.output]

    def prepared(self, items: Sequence[Asked]) -> list[Row]:
        """Return the rows with their arrays made, which is not to be timed."""
        return [exchange.row_of(item) for item in items if not isinstance(item, str)]

    def answers(self, rows: list[Row]) -> list[Array]:
        """Return the judged output for each row; numbers of 16 bits and of 64 become float32."""
        found = self._model.infer(rows)[self._output]
        if found and found[0].dtype.kind in "OUS":
            raise ModelKindError(f"the output {self._output!r} is text", expected="an output of numbers")
        return [array.astype("float32", copy=False) if array.dtype.kind in "fV" else array for array in found]

    def warm_up(self) -> None:
        """Run on made-up input."""
        self._model.warm_up()


Model = TextContender | TensorContender


def main() -> None:
    """Answer requests until the pipe ends. The argument is the process that started this one."""
    _die_with(int(sys.argv[1]))
    read, write = _take_pipes()
    model: Model | None = None
    while True:
        try:
            request = exchange.requests.decode(exchange.read_frame(read))
        except EOFError:
            return
        reply: Reply
        try:
            if isinstance(request, Load):
                model, reply = _load(request)
            else:
                assert model is not None, "the first request is to load"
                reply = _answered(model, request)
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


def _load(request: Load) -> tuple[Model, Loaded]:
    request.confinement.apply()
    start = time.perf_counter()
    model: Any = (TensorContender if request.manifest.task == "tensors" else TextContender)(request)
    model.answers(model.prepared([request.item]))
    load_ms = (time.perf_counter() - start) * 1e3
    model.warm_up()
    return model, Loaded(load_ms=load_ms)


def _answered(model: Any, request: Request) -> Reply:
    match request:
        case Turn():
            lead, items = model.prepared(request.lead), model.prepared(request.items)
            return _timed(model, [[item] for item in lead], [[item] for item in items])
        case Batch():
            return _timed(model, [], [model.prepared(request.items)])
        case Answer():
            rows = [model.answers([item])[0] for item in model.prepared(request.items)]
            return Answers(arrays=[Tensor.of(row) for row in rows], peak_bytes=peak_bytes())
        case Load():
            raise AssertionError("a child loads one variant")


def _timed(model: Any, lead: list[list[Any]], asked: list[list[Any]]) -> Times:
    times = []
    before, taken = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    for items in lead:
        model.answers(items)
    for items in asked:
        start = time.perf_counter()
        model.answers(items)
        times.append((time.perf_counter() - start) * 1e3)
    cpu_ms = (time.process_time() - before) * 1e3
    return Times(
        milliseconds=times, cpu_ms=cpu_ms, preempted=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - taken
    )


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
