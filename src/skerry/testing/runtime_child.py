"""The runtime child: a fresh process that loads a model, runs it, and reports what that took.

Threads, memory and sockets belong to a process, so that they can only be told where nothing else happens.
Started by :mod:`skerry.testing.runtimes` with one JSON argument; prints one JSON object.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.ports import Runtime
from skerry.testing import network_guard


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: ``cycles`` times load, warm up, run ``runs`` times and close; under the network guard or not."""

    runtime: str
    model: str
    inputs: str
    device: str
    threads: int = 1
    options: dict[str, Any] = {}
    cycles: int = 1
    runs: int = 3
    guard: bool = False


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What it took.

    Attributes
    ----------
    threads_before, threads_loaded:
        OS threads of the process once the engine is imported, and with the first model loaded and run.
    memory_bytes:
        What the first session says of itself.
    resident_bytes:
        RSS after each cycle's close.
    """

    threads_before: int
    threads_loaded: int
    memory_bytes: int
    resident_bytes: tuple[int, ...]


def carry_out(order: Order) -> Account:
    """Do what is ordered and count."""
    import numpy as np
    import psutil

    if order.guard:
        network_guard.install()
    process = psutil.Process()
    runtime = _runtime(order.runtime)
    runtime.availability()  # the engine is imported here, so that its own start is not counted
    with np.load(order.inputs, allow_pickle=False) as stored:
        inputs = dict(stored)
    before, loaded, memory, resident = process.num_threads(), 0, 0, []
    for cycle in range(order.cycles):
        session = runtime.load(Path(order.model), threads=order.threads, device=order.device, options=order.options)
        session.warm_up()
        for _ in range(order.runs):
            session.run(inputs)
        if cycle == 0:
            loaded, memory = process.num_threads(), session.describe().memory_bytes
        session.close()
        del session
        resident.append(process.memory_info().rss)
    return Account(threads_before=before, threads_loaded=loaded, memory_bytes=memory, resident_bytes=tuple(resident))


def _runtime(path: str) -> Runtime:
    """Import ``module:Class`` and make one."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    made: Runtime = found()
    return made


if __name__ == "__main__":
    account = carry_out(msgspec.convert(json.loads(sys.argv[1]), Order))
    sys.stdout.write(msgspec.json.encode(account).decode())
