"""A hub with an authority and an enrolled device, in a folder that goes away: for rows about links and crashes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.server import Hub, HubSetup
from skerry.run.outbox.clock import SystemClock
from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.opening import Target, open_uplink
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.uplink import Uplink
from skerry.testing.broker import free_port
from skerry.trust.authority import Authority
from skerry.trust.enrolment import enrol
from skerry.trust.identity import Identity


class SyncWorld:
    """A fleet of this machine: real TLS, real certificates, a real hub.

    Parameters
    ----------
    folder:
        Where everything goes.
    port:
        Of the hub.
    authority:
        Of the fleet.
    """

    def __init__(self, folder: Path, port: int, authority: Authority) -> None:
        self.folder, self.port, self.authority = folder, port, authority

    @classmethod
    def open(cls, folder: Path) -> SyncWorld:
        """Make a world, or go on with the one that is in the folder: its port stays."""
        note = folder / "port"
        if note.exists():
            return cls(folder, int(note.read_text(encoding="ascii")), Authority.load(folder / "authority"))
        port = free_port()
        authority = Authority.init(folder / "authority", hub=f"https://127.0.0.1:{port}", now=time.time())
        note.write_text(str(port), encoding="ascii")
        return cls(folder, port, authority)

    def hub(self, options: HubOptions | None = None) -> Hub:
        """Start the hub."""
        setup = HubSetup(
            data=self.folder / "hub",
            port=self.port,
            authority=self.folder / "authority",
            options=options or HubOptions(),
        )
        hub = Hub(setup)
        hub.start()
        return hub

    def enrol(self, name: str) -> Identity:
        """Enrol a device; the hub has to run."""
        return enrol("", self.authority.issue_token(name, now=time.time()), self.folder / f"identity-{name}")

    def uplink(self, outbox: Outbox, identity: Identity, port: int, options: UplinkOptions) -> Uplink:
        """Start an uplink through a port of loopback."""
        state = self.folder / f"state-{identity.device}"
        state.mkdir(exist_ok=True)
        target = Target("https", "127.0.0.1", port)
        uplink = open_uplink(outbox, target, identity, options, state=state, clock=SystemClock())
        uplink.start()
        return uplink


@contextlib.contextmanager
def sync_world() -> Iterator[SyncWorld]:
    """Make a world that goes away with the block."""
    folder = Path(tempfile.mkdtemp(prefix="skerry-sync-"))
    try:
        yield SyncWorld.open(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
