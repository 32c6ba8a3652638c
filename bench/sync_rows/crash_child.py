"""Processes that are made to be killed: a hub, and devices that record for as long as they live.

``python -m bench.sync_rows.crash_child`` is their mother: it has everything imported and forks a child for each line of
its standard input, so that a process that was killed is back in some milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skerry.fleet.hub.application import HubApp
from skerry.fleet.hub.server import Hub, HubSetup
from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.run.outbox.clock import SystemClock
from skerry.run.outbox.item import Item
from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.opening import Target, open_uplink
from skerry.run.uplink.options import UplinkOptions
from skerry.spec.errors import SkerryError
from skerry.spec.units import Duration
from skerry.trust.identity import load_identity

_IMPORTED = (HubApp, SqliteStore)  # what a hub imports late is here early
_PAUSE_S = 0.02
QUICK = UplinkOptions(
    linger=Duration(0.02), first_pause=Duration(0.05), longest_pause=Duration(0.4),
    timeout=Duration(3.0), connect_timeout=Duration(2.0), silence=Duration(2.0),
)  # fmt: skip


def run_hub(folder: str, port: int) -> None:
    """Be a hub until killed."""
    setup = HubSetup(data=Path(folder) / "hub", port=port, authority=Path(folder) / "authority")
    for _ in range(200):  # the one that was killed may still hold the port for a moment
        try:
            Hub(setup).start()
            break
        except SkerryError:
            time.sleep(0.01)
    while True:
        time.sleep(3600)


def run_device(folder: str, name: str, port: int, first: int, seconds: float) -> None:
    """Be a device until killed, or until ``seconds`` of recording are over and everything is sent.

    Every number whose record the outbox acknowledged is written to ``acknowledged-NAME``: what this process knows
    there to be safe, as a producer would.
    """
    home = Path(folder)
    identity = load_identity(home / f"identity-{name}")
    outbox = Outbox(home / f"outbox-{name}", device=name)
    state = home / f"state-{name}"
    state.mkdir(exist_ok=True)
    uplink = open_uplink(outbox, Target("https", "127.0.0.1", port), identity, QUICK, state=state, clock=SystemClock())
    uplink.start()
    ledger = os.open(home / f"acknowledged-{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number, end = first, time.monotonic() + seconds
    while time.monotonic() < end:
        numbers = list(range(number, number + random.choice((1, 1, 3, 10))))
        number = numbers[-1] + 1
        priority: Any = random.choice(("normal", "normal", "high", "critical"))
        outbox.put([Item(stream="s", fields={"id": f"{name}-{each}"}, priority=priority) for each in numbers])
        os.write(ledger, "".join(f"{each}\n" for each in numbers).encode())
        uplink.wake()
        time.sleep(random.random() * _PAUSE_S)
    while not uplink.wait_until_sent(1.0):
        pass
    uplink.close()
    outbox.close()


def main() -> None:
    """Fork a child for each order, and tell its number; tell when one that was waited for is gone."""
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(json.dumps({"status": status}), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _be(order)
        print(json.dumps({"pid": child}), flush=True)


_ROLES: dict[str, Callable[..., None]] = {"hub": run_hub, "device": run_device}


def _be(order: dict[str, Any]) -> None:
    """Be what was ordered, and never come back."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        _ROLES[order.pop("be")](**order)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
