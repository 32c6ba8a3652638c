"""Devices for tests of the hub: what they record, sign and post."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.spec.ports import Signer
from skerry.trust.keys import KeySigner, new_key
from skerry.wire.batch import Batch, Header, decode, encode
from skerry.wire.record import Moment, WireRecord

BOOT, EARLIER_BOOT = "ab" * 16, "cd" * 16
EPOCH = "0123456789abcdef"


def record(seq: int, fields: dict[str, Any] | None = None, **changes: Any) -> WireRecord:
    """Return a record made ``seq`` seconds after the boot."""
    made = WireRecord(
        seq, "events", {"value": seq} if fields is None else fields, seq * 1_000_000, Moment(BOOT, 0, False)
    )
    return msgspec.structs.replace(made, **changes)


def records(first: int, last: int) -> list[WireRecord]:
    """Return records with the numbers from ``first`` to ``last``."""
    return [record(seq) for seq in range(first, last + 1)]


class Device:
    """A device with a key and an epoch."""

    def __init__(self, name: str = "pump-1", *, signer: Signer | None = None, epoch: str = EPOCH) -> None:
        self.name, self.epoch = name, epoch
        self.signer = KeySigner(new_key()) if signer is None else signer

    def header(self, **changes: Any) -> Header:
        """Return the header of a batch sent 1,000 s after the boot."""
        plain = Header(
            device=self.name, epoch=self.epoch, boot=BOOT, sent_mono_us=1_000_000_000, sent_wall_ms=0, synced=False
        )
        return msgspec.structs.replace(plain, **changes)

    def pack(self, sent: Sequence[WireRecord], *, signed: bool = True, **changes: Any) -> bytes:
        """Return a batch."""
        return encode(self.header(**changes), sent, self.signer if signed else None)

    def batch(self, sent: Sequence[WireRecord], **changes: Any) -> Batch:
        """Return a batch as a hub has read it."""
        return decode(self.pack(sent, **changes))


class Reply(msgspec.Struct):
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return msgspec.json.decode(self.body)


def request(port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
    """Make one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        return ask(connection, method, path, body, headers)
    finally:
        connection.close()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Reply:
    """Make one request on a connection."""
    connection.request(method, path, body or None, headers or {})
    response = connection.getresponse()
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
