"""The keeper: what an uplink looks after beside the records: the link, its certificate, and the clock."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from typing import Protocol

from skerry.run.uplink.conductor import Conductor
from skerry.run.uplink.job import Clock, Store
from skerry.run.uplink.link import LinkState, find_link, source_address
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.transport import Transport
from skerry.run.uplink.trouble import TroubleNote
from skerry.spec.errors import SkerryError

_LOOK_S = 5.0  # how often the way to the hub is asked for: one system call
_LOOK_CLOSELY_S = 300.0  # how often an interface is looked at as a whole: NetworkManager is a process
_RENEW_S = 60.0  # how long a new certificate that could not be had is waited for
_FORCE_S = 300.0  # how often a new certificate is asked for because the hub refuses the old one


class Renew(Protocol):
    """Gets a new certificate when that is due, or ``by_force``, and tells whether there is one."""

    def __call__(self, *, by_force: bool = False) -> bool:
        """Raise ``SkerryError`` or ``OSError`` when it is due and cannot be had."""


class Keeper:
    """Watches the link and renews the certificate.

    Parameters
    ----------
    conductor:
        Is told of the link.
    transport:
        Is told of a new certificate.
    options:
        What the user says of the links.
    clock:
        Whether it is synchronised decides which certificates can be believed.
    host:
        The hub's host; empty where there is no link to watch.
    renew:
        Renews the certificate if that is due, and tells whether it did.
    ring:
        Wakes the lanes.
    retire:
        Takes back stores of others that have nothing left to send.
    note:
        Where trouble is kept for people to see.
    """

    def __init__(
        self,
        conductor: Conductor,
        transport: Transport,
        options: UplinkOptions,
        *,
        clock: Clock,
        host: str,
        renew: Renew | None,
        ring: Callable[[], None],
        retire: Callable[[Store], None] | None,
        note: TroubleNote,
        log: logging.Logger,
    ) -> None:
        self._conductor, self._transport, self._options = conductor, transport, options
        self._clock, self._host, self._renew, self._ring, self._log = clock, host, renew, ring, log
        self._retire, self._note = retire, note
        self._bell = threading.Event()
        self._address: str | None = ""
        self._looked_at = float("-inf")
        self._renew_at = float("-inf")
        self._synced: bool | None = None
        self._by_force, self._force_at = False, float("-inf")
        self._told = ""

    def run(self, stop: threading.Event) -> None:
        """Look after everything until ``stop`` is set."""
        while not stop.is_set():
            self._bell.clear()
            for task in self._tasks():
                try:
                    task()
                except Exception:  # noqa: BLE001 -- whatever a system's files hold: the records go on
                    self._log.exception("the uplink's keeper failed; it goes on")
            self._bell.wait(_LOOK_S)
        self._look_at_trouble()

    def _tasks(self) -> tuple[Callable[[], None], ...]:
        return (
            self._look_at_link, self._look_at_clock, self._look_at_certificate, self._look_at_stores,
            self._look_at_trouble,
        )  # fmt: skip

    def wake(self) -> None:
        """Look at once."""
        self._bell.set()

    def broke(self, error: BaseException) -> None:
        """Take note of a failed exchange: where the hub says that our certificate is over, it is renewed."""
        if isinstance(error, ssl.SSLError) and "EXPIRED" in (error.reason or "").upper():
            self.refused()

    def refused(self) -> None:
        """Take note that the hub does not take our certificate: a clock that is behind cannot know that it is over."""
        if self._renew is not None and time.monotonic() >= self._force_at:
            self._force_at = time.monotonic() + _FORCE_S
            self._by_force, self._renew_at = True, float("-inf")
            self.wake()

    def _look_at_link(self) -> None:
        if not self._host:
            return
        address, now = source_address(self._host), time.monotonic()
        changed = address != self._address
        if not changed and now - self._looked_at < _LOOK_CLOSELY_S:
            return
        was_down = self._address is None
        self._address, self._looked_at = address, now
        state = find_link(self._host, self._options.links) if address is not None else LinkState(is_up=False)
        self._conductor.link_is(self._options.link or state.kind, came_up=was_down and address is not None)
        if changed:
            self._ring()

    def _look_at_clock(self) -> None:
        """Have TLS judge dates anew when the clock became right: until then it cannot tell what has expired."""
        synced = self._clock.synced()
        if self._synced is not None and synced != self._synced:
            self._transport.renewed()
        self._synced = synced

    def _look_at_certificate(self) -> None:
        if self._renew is None or time.monotonic() < self._renew_at:
            return
        by_force, self._by_force = self._by_force, False
        try:
            renewed = self._renew(by_force=by_force)
        except (SkerryError, OSError) as error:
            self._renew_at = time.monotonic() + _RENEW_S
            if self._told != str(error):
                self._told = str(error)
                self._log.warning("the certificate cannot be renewed yet: %s", error)
            return
        self._told = ""
        if renewed:
            self._conductor.note(renewals=1)
            self._transport.renewed()
            self._conductor.hasten()
            self._ring()

    def _look_at_trouble(self) -> None:
        """Write down what people have to mend."""
        self._note.follow(self._conductor.status())

    def _look_at_stores(self) -> None:
        for store in self._conductor.emptied():
            if self._retire is not None:
                self._retire(store)
