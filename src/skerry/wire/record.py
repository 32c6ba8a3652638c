"""A record on its way: what a sink was given, with when, how urgent and by which release it was made."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from skerry.spec.errors import WireError

JSON = Any
"""``None``, ``bool``, ``int`` of any size, ``float`` but NaN and infinities, ``str``, and lists and dicts of these."""

BIG_INTEGER = 1
"""The MessagePack extension type of an integer beyond 64 bits: two's complement, big-endian, as short as can be."""

_canonical = msgspec.msgpack.Encoder(order="deterministic")


class Moment(msgspec.Struct, frozen=True):
    """What a device knew of the time when a record was made.

    Parameters
    ----------
    boot:
        The boot that ``mono_us`` counts from: 32 hex digits, the kernel's boot id without dashes, or made up.
    offset_ms:
        Wall clock minus monotonic clock, in milliseconds.
    synced:
        Whether the wall clock was synchronised, and so can be believed.
    """

    boot: str
    offset_ms: int
    synced: bool


class WireRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as it travels; with the device and the epoch of its batch, ``seq`` identifies it.

    Parameters
    ----------
    seq:
        Its number in the store that it comes from, from 1.
    stream:
        The name of the sink in the pipeline.
    fields:
        What the record says: JSON values under text keys.
    mono_us:
        When it was made: microseconds since the device booted, sleep included (``CLOCK_BOOTTIME``).
    moment:
        What was known of the wall clock then.
    priority:
        0 low, 1 normal, 2 high, 3 critical.
    release:
        The digest of the release that made it, ``sha256:…``, or nothing.
    """

    seq: int
    stream: str
    fields: dict[str, JSON]
    mono_us: int
    moment: Moment
    priority: int = 1
    release: str = ""


def record_digest(record: WireRecord) -> int:
    """Return 64 bits that tell a record from any other with the same number, the same on both ends of the wire.

    They are the first 8 bytes, little-endian, of the SHA-256 of :func:`canonical`. The number, the epoch and the
    priority are not part of it: a store that starts a new epoch renumbers its records, and they stay the same.

    Raises
    ------
    WireError
        The record holds what JSON cannot say: a lone surrogate, a key that is no text, nesting without end.
    """
    return int.from_bytes(hashlib.sha256(canonical(record)).digest()[:8], "little")


def canonical(record: WireRecord) -> bytes:
    """Return the one encoding that a digest is taken of.

    It is the MessagePack array ``[stream, fields, mono_us, boot, offset_ms, synced, release]``, with the keys of maps
    sorted by their UTF-8 bytes, every number in its shortest form of its kind (a float always has 64 bits) and an
    integer beyond 64 bits as an extension of type 1. Raises ``WireError`` as :func:`record_digest` does.
    """
    moment = record.moment
    parts = [
        record.stream,
        record.fields,
        record.mono_us,
        moment.boot,
        moment.offset_ms,
        moment.synced,
        record.release,
    ]
    try:
        try:
            return _canonical.encode(parts)
        except OverflowError:
            return _canonical.encode(_with_extensions(parts))
    except UnicodeEncodeError as error:
        raise WireError(
            f"the record {record.seq} holds a lone surrogate, which no encoding of text can carry",
            where=record.stream,
            hint="decode the text that it came from with errors='replace'",
        ) from error
    except RecursionError as error:
        raise WireError(f"the record {record.seq} is nested too deep", where=record.stream) from error
    except (TypeError, OverflowError, ValueError) as error:
        raise WireError(f"the record {record.seq} is not made of JSON values: {error}", where=record.stream) from error


def _with_extensions(value: JSON) -> JSON:
    """Return a copy in which integers beyond 64 bits are extensions."""
    if isinstance(value, dict):
        return {key: _with_extensions(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_extensions(inner) for inner in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(BIG_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    return value
