"""The receipt: a hub's answer to a batch, which alone lets a device forget what it sent."""

from __future__ import annotations

from typing import Final

import msgspec

from skerry.spec.errors import WireError, WireVersionError
from skerry.wire.ranges import Range

VERSION: Final = 1
LARGEST: Final = 1 << 20
"""Bytes of a receipt that are looked at: ranges of a whole batch in the worst order fit several times."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub has made durable, and what it will not take.

    Parameters
    ----------
    epoch:
        The epoch of the batch that this answers: 16 hex digits.
    committed:
        What is durable at the hub now, duplicates included.
    dead:
        What cannot be applied, with the reason; the hub keeps it among its dead letters.
    forked:
        Numbers under which the hub holds other content: the device must take a new epoch and send these again.
    count:
        Over every committed record of this device and epoch: how many there are.
    checksum:
        Over the same records: the sum of their digests modulo 2^64.
    hub_ms:
        The hub's wall clock, milliseconds since 1970.
    desired:
        The version of what the hub wants of the device; empty when it wants nothing.
    """

    epoch: str
    committed: list[Range] = []
    dead: list[tuple[int, str]] = []
    forked: list[Range] = []
    count: int
    checksum: int
    hub_ms: int
    desired: str = ""


class _Form(msgspec.Struct, frozen=True, array_like=True):
    """A receipt on the wire: numbers of ranges as distances, which are small."""

    version: int
    epoch: bytes
    committed: list[int]
    dead: list[tuple[int, str]]
    forked: list[int]
    count: int
    checksum: int
    hub_ms: int
    desired: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Form)


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the receipt as bytes; raises ``WireError`` when it does not hold what a receipt must."""
    try:
        form = _Form(
            VERSION,
            bytes.fromhex(receipt.epoch),
            _distances(receipt.committed),
            receipt.dead,
            _distances(receipt.forked),
            receipt.count,
            receipt.checksum,
            receipt.hub_ms,
            receipt.desired,
        )
        data = _encoder.encode(form)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"this is no receipt: {error}") from error
    _check(form)
    return data


def decode_receipt(data: bytes) -> Receipt:
    """Read a receipt.

    Raises
    ------
    WireError
        The bytes are no receipt, or a damaged one.
    WireVersionError
        It is of another version.
    """
    if len(data) > LARGEST:
        raise WireError(f"a receipt of {len(data):,} bytes", expected=f"at most {LARGEST:,}")
    _check_version(data)
    try:
        form = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError(f"this is no receipt: {error}") from error
    _check(form)
    return Receipt(
        epoch=form.epoch.hex(),
        committed=_ranges(form.committed),
        dead=form.dead,
        forked=_ranges(form.forked),
        count=form.count,
        checksum=form.checksum,
        hub_ms=form.hub_ms,
        desired=form.desired,
    )


def _check_version(data: bytes) -> None:
    """Look at the version alone, before anything that another version may have changed."""
    if len(data) < 2 or not (0x90 <= data[0] <= 0x9F and data[1] < 0x80):
        raise WireError("this is no receipt", expected="a MessagePack array that begins with its version")
    if data[1] != VERSION:
        raise WireVersionError(
            f"a receipt of version {data[1]}, and version {VERSION} is what is read here", hint="update the older side"
        )


def _check(form: _Form) -> None:
    """Refuse what no hub can mean, on both sides."""
    if len(form.epoch) != 8 or not 0 <= form.checksum < 2**64 or form.count < 0:
        raise WireError("this is no receipt: a number in it is out of its range")
    for distances in (form.committed, form.forked):
        if len(distances) % 2 or any(distance < 0 for distance in distances):
            raise WireError("this is no receipt: its ranges are not in order")


def _distances(ranges: list[Range]) -> list[int]:
    """Return, for each range, the distance to its first number from the last one before it, and its length less 1."""
    found: list[int] = []
    end = 0
    for first, last in ranges:
        found += (first - end, last - first)
        end = last
    return found


def _ranges(distances: list[int]) -> list[Range]:
    ranges: list[Range] = []
    end = 0
    for place in range(0, len(distances), 2):
        first = end + distances[place]
        end = first + distances[place + 1]
        ranges.append((first, end))
    return ranges
