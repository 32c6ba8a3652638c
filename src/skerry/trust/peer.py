"""A peer: who is at the other end of a connection."""

from __future__ import annotations

import msgspec

from skerry.trust.names import Role


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end of a connection, as its certificate proves.

    ``serial`` are hex digits, ``key_id`` 8 bytes, ``not_after`` seconds since 1970.
    """

    role: Role
    name: str
    serial: str
    key_id: bytes
    not_after: float

    @property
    def device(self) -> str:
        """The device id; empty for an operator."""
        return self.name if self.role == "device" else ""

    @property
    def operator(self) -> str:
        """The operator's name; empty for a device."""
        return self.name if self.role == "operator" else ""
