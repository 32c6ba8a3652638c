"""A batch: records of one device in one envelope, small, readable without a schema, and signed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

import msgspec

from skerry.spec.errors import SignatureError, WireError, WireVersionError
from skerry.spec.ports import Signer, Verify
from skerry.wire.body import decode_body, encode_body
from skerry.wire.limits import DEFAULT_LIMITS, Limits
from skerry.wire.record import WireRecord

VERSION: Final = 1
MAGIC: Final = b"SKB"
MEDIA_TYPE: Final = "application/vnd.skerry.batch"
DOMAIN: Final = b"skerry batch\0"
"""What a signature covers begins with it, so that nothing signed for another purpose passes for a batch."""

_SIGNED: Final = 1
_KEY_ID = 8
_SIGNATURE = 64
_CHECKSUM = 4
_LONGEST_HEADER = 1 << 16
_START = len(MAGIC) + 4


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a batch, when, and what was lost before.

    Parameters
    ----------
    version:
        The version of the format; set by :func:`encode`.
    device:
        The name of the device.
    epoch:
        The store's epoch: 16 hex digits.
    boot:
        The boot in which the batch was made: 32 hex digits.
    sent_mono_us, sent_wall_ms, synced:
        The device's clocks when the batch was made: microseconds since that boot, milliseconds since 1970, and whether
        the latter can be believed.
    losses:
        How many records this epoch has given up so far, by class and reason, such as ``"evicted.low.caps": 12``.
    count, first, last:
        How many records follow, and their smallest and largest number; set by :func:`encode`.
    """

    version: int = VERSION
    device: str
    epoch: str
    boot: str
    sent_mono_us: int
    sent_wall_ms: int
    synced: bool
    losses: dict[str, int] = {}
    count: int = 0
    first: int = 0
    last: int = 0


class Batch(msgspec.Struct, frozen=True, gc=False):
    """A batch that was read: its header, its records in the order of the sender, and the key that signed it, if any.

    ``signed`` tells whether a signature came with it; that it is right, only a ``verify`` has checked.
    """

    header: Header
    records: list[WireRecord]
    key_id: bytes
    signed: bool


class _Form(msgspec.Struct, frozen=True, array_like=True):
    """A header on the wire: hex digits as bytes, the last number as a distance."""

    device: str
    epoch: bytes
    boot: bytes
    sent_mono_us: int
    sent_wall_ms: int
    synced: bool
    losses: dict[str, int]
    count: int
    first: int
    span: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Form)


def encode(
    header: Header, records: Sequence[WireRecord], signer: Signer | None = None, limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """Return the records as one batch, signed when there is a signer, with a checksum (CRC-32) when there is none.

    The same records give the same bytes, the signature aside. Key order, and every bit of a float, are kept.

    Raises
    ------
    WireError
        There are no records or more than ``limits`` allow, one is too large (the message says which), or one holds
        what JSON cannot say: NaN, an infinity, a lone surrogate, a key that is no text.
    """
    if not 0 < len(records) <= limits.records:
        raise WireError(f"a batch of {len(records):,} records", expected=f"1 to {limits.records:,}")
    numbers = [record.seq for record in records]
    first = min(numbers)
    form = _pack_header(header, len(records), first, max(numbers))
    flags = 0 if signer is None else _SIGNED
    start = MAGIC + bytes((VERSION, flags)) + len(form).to_bytes(2, "little")
    message = start + form + encode_body(records, first, header.boot, limits)
    if signer is None:
        message += crc32(message).to_bytes(_CHECKSUM, "little")
    else:
        message += signer.key_id
        message += signer.sign(DOMAIN + message)
    if len(message) > limits.packed:
        raise WireError(f"a batch of {len(message):,} bytes", expected=f"at most {limits.packed:,}; send fewer records")
    return message


def decode(data: bytes, verify: Verify | None = None, limits: Limits = DEFAULT_LIMITS) -> Batch:
    """Read a batch; with ``verify``, only one that is signed by a known key.

    Raises
    ------
    WireError
        The bytes are no batch, a cut or damaged one, or one beyond ``limits``.
    WireVersionError
        It is of another version; the message names both.
    SignatureError
        ``verify`` was given, and the batch is not signed, or not by a key that it knows, or was changed afterwards.
    """
    if len(data) > limits.packed:
        raise WireError(f"a batch of {len(data):,} bytes", expected=f"at most {limits.packed:,}")
    header, begin = _unpack_header(data)
    end, key_id = _check_signature(data, verify)
    if header.count > limits.records:
        raise WireError(f"a batch of {header.count:,} records", expected=f"at most {limits.records:,}")
    if begin > end:
        raise WireError("a batch that is cut short")
    records = decode_body(data[begin:end], header.count, header.first, header.boot, limits)
    numbers = [record.seq for record in records]
    if not numbers or min(numbers) != header.first or max(numbers) != header.last:
        raise WireError("a batch whose records are not those that its header tells of")
    return Batch(header, records, key_id, signed=bool(key_id))


def peek(data: bytes) -> Header:
    """Read the header alone: nothing is unpacked and no signature is checked, so believe nothing of it yet.

    Raises ``WireError`` and ``WireVersionError`` as :func:`decode` does.
    """
    return _unpack_header(data)[0]


def _pack_header(header: Header, count: int, first: int, last: int) -> bytes:
    try:
        epoch, boot = bytes.fromhex(header.epoch), bytes.fromhex(header.boot)
        form = _Form(
            header.device,
            epoch,
            boot,
            header.sent_mono_us,
            header.sent_wall_ms,
            header.synced,
            header.losses,
            count,
            first,
            last - first,
        )
        packed = _encoder.encode(form)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"this header cannot be sent: {error}") from error
    if (len(epoch), len(boot)) != (8, 16):
        raise WireError("an epoch has 16 hex digits, and a boot 32")
    if len(packed) >= _LONGEST_HEADER:
        raise WireError(f"a header of {len(packed):,} bytes", expected=f"fewer than {_LONGEST_HEADER:,}")
    return packed


def _unpack_header(data: bytes) -> tuple[Header, int]:
    """Return the header, and where the body begins."""
    if len(data) < _START or data[:3] != MAGIC:
        raise WireError("these bytes are no batch", expected=f"{MAGIC!r} at their beginning")
    if data[3] != VERSION:
        raise WireVersionError(
            f"a batch of version {data[3]}, and version {VERSION} is what is read here", hint="update the older side"
        )
    if data[4] & ~_SIGNED:
        raise WireError(f"a batch with unknown flags: {data[4]:#04x}")
    end = _START + int.from_bytes(data[5:7], "little")
    try:
        if end > len(data):
            raise WireError("a batch that is cut short")
        form = _decoder.decode(data[_START:end])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError(f"the header of a batch is damaged: {error}") from error
    if (len(form.epoch), len(form.boot)) != (8, 16) or form.count < 1 or form.span < 0:
        raise WireError("the header of a batch is damaged: a number in it is out of its range")
    header = Header(
        device=form.device,
        epoch=form.epoch.hex(),
        boot=form.boot.hex(),
        sent_mono_us=form.sent_mono_us,
        sent_wall_ms=form.sent_wall_ms,
        synced=form.synced,
        losses=form.losses,
        count=form.count,
        first=form.first,
        last=form.first + form.span,
    )
    return header, end


def _check_signature(data: bytes, verify: Verify | None) -> tuple[int, bytes]:
    """Return where the body ends, and the id of the key that signed (nothing when none did)."""
    if not data[4] & _SIGNED:
        if verify is not None:
            raise SignatureError("a batch that nobody signed", expected="the signature of a device's key")
        end = len(data) - _CHECKSUM
        if end < _START or crc32(data[:end]).to_bytes(_CHECKSUM, "little") != data[end:]:
            raise WireError("a batch that is cut short or damaged: its checksum differs")
        return end, b""
    end = len(data) - _KEY_ID - _SIGNATURE
    if end < _START:
        raise WireError("a batch that is cut short")
    key_id = data[end : end + _KEY_ID]
    if verify is not None and not verify(key_id, DOMAIN + data[: end + _KEY_ID], data[end + _KEY_ID :]):
        raise SignatureError(
            f"a batch that the key {key_id.hex()} does not vouch for",
            hint="either the key is not known, or the batch was changed on its way",
        )
    return end, key_id
