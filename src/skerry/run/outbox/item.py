"""An item: what a producer hands to the outbox, and how it is packed for the store."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from skerry.run.outbox.life import Instant
from skerry.run.outbox.options import PRIORITIES, OutboxOptions, Priority
from skerry.spec.errors import OutboxError, WireError
from skerry.wire.record import BIG_INTEGER, Moment, WireRecord, canonical

OVERHEAD_BYTES = 64
"""What a row takes beyond its payload: keys, times and its share of a page."""
_PLAIN = frozenset({str, int, bool, type(None)})
_SIMPLE = _PLAIN | {float}
_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(PRIORITIES)}
_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""A float of MessagePack with all bits of its exponent set; a text may look like one, and is then looked at closely."""
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_sha256 = hashlib.sha256
_first_64 = struct.Struct("<q").unpack_from
_tuple = tuple.__new__
_LONGEST_TTL_MS = 10**15  # thirty thousand years: sums with it stay within 64 bits
_DEEPEST = 64  # levels of nesting: far below what any reader's recursion takes


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record to be sent.

    Parameters
    ----------
    stream:
        The name of the sink in the pipeline.
    fields:
        JSON values under text keys; no NaN or infinity.
    priority:
        ``low``, ``normal``, ``high`` or ``critical``.
    ttl_s:
        Seconds for which it is worth sending; ``None`` for what its class has.
    release:
        The digest of the release that made it, or nothing.
    """

    stream: str
    fields: dict[str, Any]
    priority: Priority = "normal"
    ttl_s: float | None = None
    release: str = ""


class ItemsRefusedError(OutboxError):
    """Some items of a call cannot be stored, whatever is tried; all the others are stored, durably, or none.

    Parameters
    ----------
    refused:
        The reason by the place of the item in its call, from 0.
    seqs:
        The numbers that the others got, in their order; 0 in the place of one that is not stored.
    """

    def __init__(self, refused: Mapping[int, str], seqs: Sequence[int]) -> None:
        place, reason = next(iter(refused.items()))
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        super().__init__(
            f"item {place + 1} of {len(seqs)} is refused: {reason}{more}",
            expected="JSON values under text keys, each record within `max_record`",
            hint=f"the other {len(seqs) - len(refused)} are {'stored' if any(seqs) else 'not stored either'}"
            if len(seqs) > len(refused)
            else "",
        )
        self.refused = dict(refused)
        self.seqs = list(seqs)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.refused, self.seqs)


class Packed(NamedTuple):
    """An item as the store takes it: the canonical encoding of its record, and what is decided on without reading it.

    ``born_ms`` is on the store's clock of its own life, ``wall_ms`` on the wall clock where that could be believed.
    """

    priority: int
    digest: int
    born_ms: int
    wall_ms: int | None
    ttl_ms: int | None
    payload: bytes

    @property
    def size(self) -> int:
        """The bytes that it is counted with."""
        return len(self.payload) + OVERHEAD_BYTES


class Packer:
    """Packs items; the payload is :func:`skerry.wire.record.canonical` of the record."""

    def __init__(self, options: OutboxOptions) -> None:
        self._limit = int(options.max_record) - OVERHEAD_BYTES
        self._ttls = {name: (number, options.ttl_ms_of(number)) for name, number in _NUMBERS.items()}

    def pack(self, instant: Instant, items: Sequence[Item]) -> tuple[list[Packed], dict[int, str]]:
        """Return the items packed, and the reason by place for those that cannot be stored."""
        packed: list[Packed] = []
        refused: dict[int, str] = {}
        for place, item in enumerate(items):
            try:
                packed.append(self._packed(item, instant))
            except (WireError, ValueError) as error:
                message = error.message if isinstance(error, WireError) else str(error)
                refused[place] = f"{item.stream}: {message}" if isinstance(item, Item) else message
        return packed, refused

    def _packed(self, item: Item, instant: Instant) -> Packed:
        try:
            priority, ttl_ms = self._ttls[item.priority]
        except (KeyError, TypeError):
            expected = ", ".join(PRIORITIES)
            raise ValueError(f"there is no priority {item.priority!r}, only {expected}") from None
        payload = _plainly(item, instant) or _carefully(item, instant)
        if len(payload) > self._limit:
            raise ValueError(
                f"it takes {len(payload)} bytes, more than the {self._limit + OVERHEAD_BYTES} of `max_record`"
            )
        if item.ttl_s is not None:
            ttl_ms = _milliseconds(item.ttl_s)
        (digest,) = _first_64(_sha256(payload).digest())
        # The constructor of a named tuple takes longer than all that is in it.
        return _tuple(Packed, (priority, digest, instant.born_ms, instant.wall_ms, ttl_ms, payload))


def _plainly(item: Item, instant: Instant) -> bytes | None:
    """Return the canonical encoding of an item that has only plain values at the top, as nearly all have."""
    fields = item.fields
    if type(fields) is not dict or not _SIMPLE.issuperset(map(type, fields.values())):
        return None
    mono_us, moment, _, _ = instant
    try:
        "".join(fields)  # keys are text, or this fails: the quickest way to ask
        payload = _encode((item.stream, fields, mono_us, moment.boot, moment.offset_ms, moment.synced, item.release))
    except (TypeError, UnicodeEncodeError, OverflowError):
        return None
    return payload if _NOT_FINITE.search(payload) is None else None


def _carefully(item: Item, instant: Instant) -> bytes:
    """Return the canonical encoding of any item; raises ``WireError`` naming what is wrong with it."""
    fields = plain(item.fields)
    return canonical(WireRecord(0, item.stream, fields, instant.mono_us, instant.moment, 0, item.release))


def _milliseconds(seconds: float) -> int:
    if not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a time to live of {seconds!r} s")
    return min(int(seconds * 1000), _LONGEST_TTL_MS)


def plain(fields: Any) -> dict[str, Any]:
    """Return fields as plain JSON values, the same object where they are; raises ``WireError`` saying which is not."""
    if type(fields) is not dict:
        raise WireError(f"fields are {type(fields).__name__}, not a dict")
    for key, value in fields.items():
        kind = type(value)
        if type(key) is not str:
            raise WireError(f"the key {key!r} is no text")
        if kind in _PLAIN or (kind is float and math.isfinite(value)):
            continue
        return {name: _plain(inner, name, 1) for name, inner in fields.items()}
    return fields


def _plain(value: Any, path: str, depth: int) -> Any:
    """Return one value as plain JSON; containers are copied."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise WireError(f"the field {path!r} is {value}, which JSON cannot say")
        return float(value)
    if isinstance(value, str | int):  # a subclass, such as an enumeration's member
        return str(value) if isinstance(value, str) else int(value)
    if depth > _DEEPEST:
        raise WireError(f"the field {path[:60]!r} is nested deeper than {_DEEPEST} levels")
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{path}[{place}]", depth + 1) for place, inner in enumerate(value)]
    if isinstance(value, dict):
        return {_text(key, path): _plain(inner, f"{path}.{key}", depth + 1) for key, inner in value.items()}
    raise WireError(f"the field {path!r} is {type(value).__name__}, which is no JSON value")


def _text(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise WireError(f"the key {key!r} in the field {path!r} is no text")
    return str(key)


def _extension(code: int, data: memoryview) -> int:
    if code != BIG_INTEGER:
        raise ValueError(f"an extension of type {code}")
    return int.from_bytes(data, "big", signed=True)


_decoder = msgspec.msgpack.Decoder(tuple[str, dict[str, Any], int, str, int, bool, str], ext_hook=_extension)


def unpack(seq: int, priority: int, digest: int, payload: bytes) -> WireRecord:
    """Return the record of a row.

    Raises
    ------
    ValueError
        The payload is not what was stored: its digest differs, or it cannot be read.
    """
    if (
        not isinstance(payload, bytes)
        or int.from_bytes(hashlib.sha256(payload).digest()[:8], "little", signed=True) != digest
    ):
        raise ValueError("its content is not what was stored")
    try:
        stream, fields, mono_us, boot, offset_ms, synced, release = _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(f"it cannot be read: {error}") from error
    return WireRecord(seq, stream, fields, mono_us, Moment(boot, offset_ms, synced), priority, release)
