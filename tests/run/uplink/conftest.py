"""Hubs and devices for the tests of the uplink: the real ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.server import Hub, HubSetup
from skerry.run.outbox.clock import SystemClock
from skerry.run.outbox.item import Item
from skerry.run.outbox.options import OutboxOptions
from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.job import Clock
from skerry.run.uplink.opening import Target, open_uplink
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.uplink import Uplink
from skerry.spec.units import Duration, Size
from skerry.testing.broker import free_port
from skerry.trust.authority import Authority
from skerry.trust.enrolment import enrol
from skerry.trust.identity import Identity, loopback_identity

SMALL = OutboxOptions(ballast=Size(0.0), reserve=Size(0.0))
QUICK = UplinkOptions(
    linger=Duration(0.01),
    first_pause=Duration(0.05),
    longest_pause=Duration(0.2),
    connect_timeout=Duration(3.0),
    timeout=Duration(5.0),
)


class ClockAhead(SystemClock):
    """A clock that is some hours ahead."""

    hours = 0.0

    def wall_ms(self) -> int:
        return super().wall_ms() + int(self.hours * 3.6e6)

    def synced(self) -> bool:
        return True


class World:
    """A folder with a hub, devices that send to it, and everything that has to be closed in the end."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.port = free_port()
        self.authority: Authority | None = None
        self.hub: Hub | None = None

    def start_hub(self, *, tls: bool = False, clock: Callable[[], float] = time.time, **settings: Any) -> Hub:
        if tls and self.authority is None:
            self.authority = Authority.init(
                self.folder / "authority", hub=f"https://127.0.0.1:{self.port}", now=time.time()
            )
        setup = HubSetup(
            data=self.folder / "hub", port=self.port, authority=self.folder / "authority" if tls else None, **settings
        )
        hub = self.hub = Hub(setup, clock=clock)
        hub.start()
        self.stack.callback(hub.close)
        return hub

    def identity(self, name: str = "pump-1", now: float | None = None) -> Identity:
        folder = self.folder / f"identity-{name}"
        if self.authority is None:
            return loopback_identity(folder, name)
        token = self.authority.issue_token(name, now=now or time.time())
        return enrol("", token, folder)

    def outbox(self, name: str = "pump-1") -> Outbox:
        outbox = Outbox(self.folder / f"outbox-{name}", device=name, options=SMALL)
        self.stack.callback(outbox.close)
        return outbox

    def uplink(
        self,
        outbox: Outbox,
        identity: Identity,
        port: int = 0,
        options: UplinkOptions = QUICK,
        carrier: str = "",
        clock: Clock | None = None,
    ) -> Uplink:
        chosen = carrier or ("http" if self.authority is None else "https")
        target = Target(chosen, "127.0.0.1", port or self.port)
        state = self.folder / f"state-{identity.device}"
        state.mkdir(exist_ok=True)
        uplink = open_uplink(outbox, target, identity, options, state=state, clock=clock or SystemClock())
        self.stack.callback(uplink.close)
        uplink.start()
        return uplink

    def kept(self) -> list[tuple[str, int]]:
        """Return (epoch, number) of everything that the hub holds, in the order of its arrival."""
        from skerry.fleet.hub.sqlite_store import SqliteStore

        if self.hub is not None:
            self.hub.close()
        store = SqliteStore(self.folder / "hub" / "hub.db")
        try:
            return [(record.epoch, record.seq) for record in store.records(limit=1_000_000)]
        finally:
            store.close()


def items(count: int, priority: Any = "normal") -> list[Item]:
    """Return items with telling fields."""
    return [Item(stream="events", fields={"n": n, "text": f"value {n}"}, priority=priority) for n in range(count)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an empty world."""
    with contextlib.ExitStack() as stack:
        yield World(tmp_path, stack)


def eventually(true: Callable[[], Any], timeout_s: float = 15.0) -> bool:
    """Wait until something is so; tell whether it came about."""
    limit = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True
