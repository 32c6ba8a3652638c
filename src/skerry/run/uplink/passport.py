"""The passport: the device's identity as it is now, renewed while the uplink runs."""

from __future__ import annotations

import contextlib
import ssl
import threading

from skerry.run.uplink.job import Clock
from skerry.spec.errors import TrustError
from skerry.spec.ports import Signer
from skerry.trust.identity import Identity, load_identity


class Passport:
    """Holds an identity whose key and certificate are replaced before they expire; safe for threads.

    Parameters
    ----------
    identity:
        As it was loaded.
    clock:
        Whether the wall clock is synchronised decides whose dates can be believed.
    """

    def __init__(self, identity: Identity, clock: Clock) -> None:
        self._identity, self._clock = identity, clock
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        """The device's name."""
        return self._identity.device

    def signer(self) -> Signer:
        """Return what signs batches now."""
        return self._identity.signer

    def context(self) -> ssl.SSLContext:
        """Return what TLS is done with now; raises ``TrustError`` when the files are gone or damaged."""
        return self._identity.client_context(clock_synced=self._clock.synced(), now=self._clock.wall_ms() / 1000)

    def renew(self, *, by_force: bool = False) -> bool:
        """Get a new certificate when that is due, or in any case, and tell whether there is one.

        One that was put into the folder meanwhile, by ``skerry enroll --again`` or another process, is taken first.
        Raises as :func:`skerry.trust.enrolment.renew` does.
        """
        from skerry.trust.enrolment import renew, renew_if_due

        with self._lock:
            if self._take(self._in_folder()):
                return True
            now, synced = self._clock.wall_ms() / 1000, self._clock.synced()
            take = renew if by_force else renew_if_due
            return self._take(take(self._identity, now, clock_synced=synced))

    def _in_folder(self) -> Identity:
        """Return the identity as it lies in its folder now; the one that we have where that is none of ours."""
        with contextlib.suppress(TrustError):  # what cannot be read is told by those who need it
            found = load_identity(self._identity.folder)
            if found.device == self._identity.device:
                return found
        return self._identity

    def _take(self, fresh: Identity) -> bool:
        """Be another generation of the identity from now on, and tell whether it is one."""
        is_new = fresh.files != self._identity.files
        self._identity = fresh
        return is_new
