"""Access: who asks, by the certificate of the connection, and whose signature counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from skerry.fleet.hub.connection import connection_of
from skerry.fleet.hub.store import KnownKey, Transaction
from skerry.spec.address import is_loopback
from skerry.spec.errors import CertificateRefusedError
from skerry.spec.ports import Verify
from skerry.wire.batch import Batch, decode
from skerry.wire.limits import Limits

if TYPE_CHECKING:
    from skerry.trust.authority import Authority

Role = Literal["local", "device", "operator", "carrier", "nobody"]
"""``local``: a process of this machine, over plain loopback; ``carrier``: a broker that only carries what is signed."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks; devices and operators have the name of their certificate."""

    role: Role
    name: str = ""

    @property
    def operates(self) -> bool:
        """Whether the caller may read and do everything: an operator, or whoever is on this machine already."""
        return self.role in {"operator", "local"}


_OF_PROXIES = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
"""Headers by which a proxy tells that it asks for somebody else."""
NOBODY, LOCAL, CARRIER = Caller("nobody"), Caller("local"), Caller("carrier")


class Access:
    """Tells who asks and which keys vouch for a device.

    Parameters
    ----------
    authority:
        The fleet's certificate authority; ``None`` for a hub on loopback without one, where the first key of a device
        is trusted and pinned.
    clock:
        Seconds since 1970.
    """

    def __init__(self, authority: Authority | None, clock: Callable[[], float]) -> None:
        self.authority, self._clock = authority, clock

    def caller(self, scope: Mapping[str, Any]) -> Caller:
        """Return who makes a request; asked at every request, so that a revocation counts at the next one.

        Raises ``CertificateRefusedError`` for a certificate that is revoked, expired by now, or not of this fleet.
        """
        connection = connection_of(scope)
        if not connection.tls:
            return LOCAL if connection.local and not _from_elsewhere(scope) else NOBODY
        if connection.certificate is None:
            return NOBODY
        if self.authority is None:
            raise CertificateRefusedError("this hub has no authority that could vouch for a certificate")
        peer = self.authority.verify_peer(connection.certificate, self._clock())
        if not peer.operator:
            return Caller("device", peer.device)
        if _of_another_site(scope):
            raise CertificateRefusedError("a page of another site asks, by the certificate in an operator's browser")
        return Caller("operator", peer.operator)

    def read(
        self, body: bytes, device: str, caller: Caller, transaction: Transaction, now_ms: int, limits: Limits
    ) -> Batch:
        """Read a batch of a device and check its signature.

        Where there is an authority, a key counts that it certified for this device and did not revoke: so a batch that
        was signed before a rotation, or that a relay carries, is still known to be the device's. Without one, the first
        key of a device is trusted and pinned; as long as there is none, unsigned batches are taken from this machine.

        Raises ``WireError``, ``WireVersionError`` and ``SignatureError`` as ``decode`` does.
        """
        if self.authority is not None:
            return decode(body, _certified(self.authority, device), limits)
        if keys := transaction.keys(device):
            return decode(body, _pinned(keys), limits)
        batch = decode(body, None, limits)
        if batch.signed or caller.role != "local":
            batch = decode(body, _first(device, transaction, now_ms), limits)
        return batch


def _of_another_site(scope: Mapping[str, Any]) -> bool:
    """Tell whether a browser asks on behalf of a page that is not the hub's: it shows certificates for any page."""
    found = {name: value.decode("latin-1").lower() for name, value in scope["headers"] if name in {b"origin", b"host"}}
    return b"origin" in found and urlsplit(found[b"origin"]).netloc != found.get(b"host")


def _from_elsewhere(scope: Mapping[str, Any]) -> bool:
    """Tell whether somebody on this machine asks for others: a browser for a page from elsewhere, or a proxy."""
    for name, value in scope["headers"]:
        if name in _OF_PROXIES:
            return True
        if name in {b"origin", b"host"}:
            text = value.decode("latin-1")
            host = urlsplit(text if name == b"origin" else f"//{text}").hostname
            if host is None or not is_loopback(host):
                return True
    return False


def _certified(authority: Authority, device: str) -> Verify:
    def check(key_id: bytes, message: bytes, signature: bytes, /) -> bool:
        return authority.device_of(key_id) == device and authority.verify(key_id, message, signature)

    return check


def _pinned(keys: list[KnownKey]) -> Verify:
    from skerry.trust.keys import vouches

    known = {key.key_id: key.public_key for key in keys}

    def check(key_id: bytes, message: bytes, signature: bytes, /) -> bool:
        return key_id in known and vouches(known[key_id], message, signature)

    return check


def _first(device: str, transaction: Transaction, now_ms: int) -> Verify:
    """Return a check that finds the signer's key from the signature, and pins it."""
    from skerry.fleet.hub.first_use import recover_key

    def check(key_id: bytes, message: bytes, signature: bytes, /) -> bool:
        public = recover_key(key_id, message, signature)
        if public is not None:
            transaction.add_key(KnownKey(device, key_id, public, now_ms))
        return public is not None

    return check
