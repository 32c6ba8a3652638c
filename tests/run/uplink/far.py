"""A hub and a device as processes of their own, for machines (network namespaces) whose link is cut between them."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from skerry.fleet.hub.server import Hub, HubSetup
from skerry.run.outbox.clock import SystemClock
from skerry.run.outbox.item import Item
from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.opening import Target, open_uplink
from skerry.run.uplink.options import UplinkOptions
from skerry.spec.units import Duration
from skerry.trust.enrolment import enrol

_EVERY_S = 0.01


def say(**what: Any) -> None:
    """Tell the test something, with the moment."""
    sys.stdout.write(json.dumps({"at": time.monotonic(), **what}) + "\n")
    sys.stdout.flush()


def be_hub(folder: Path, host: str, port: int) -> None:
    """Be a hub until killed."""
    hub = Hub(HubSetup(data=folder / "hub", host=host, port=port, authority=folder / "authority"))
    hub.start()
    say(ready=True)
    while True:
        time.sleep(3600)


def be_device(folder: Path, host: str, port: int, token: str, options: UplinkOptions) -> None:
    """Record and send until somebody closes our standard input, then send what is left; tell of every failure.

    Begins when a line comes in: the hub is there by then.
    """
    sys.stdin.readline()
    identity = enrol("", token, folder / "identity")
    outbox = Outbox(folder / "outbox", device=identity.device)
    target = Target("https", host, port)
    uplink = open_uplink(outbox, target, identity, options, state=folder, clock=SystemClock())
    uplink.start()
    stop = _ending()
    number, lost, acknowledged = 0, 0, 0
    while not stop():
        outbox.put([Item(stream="s", fields={"n": number}, priority="critical")])
        uplink.wake()
        number += 1
        status = uplink.status()
        if status.lost > lost or (status.acknowledged and not acknowledged):
            lost, acknowledged = status.lost, status.acknowledged
            say(lost=lost, why=status.why, acknowledged=acknowledged)
        time.sleep(_EVERY_S)
    sent = uplink.wait_until_sent(20.0)
    say(recorded=number, sent=sent, status=msgspec.to_builtins(uplink.status()))
    uplink.close()
    outbox.close()


def _ending() -> Callable[[], bool]:
    """Return what tells whether our standard input was closed."""
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    return ended.is_set


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    place = (Path(order["folder"]), order["host"], order["port"])
    if order["be"] == "hub":
        be_hub(*place)
    else:
        options: dict[str, Any] = {
            name: Duration(value) if isinstance(value, float) else value for name, value in order["options"].items()
        }
        be_device(*place, order["token"], UplinkOptions(**options))
