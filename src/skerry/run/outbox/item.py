"""An item: what a producer hands to the outbox, and how it is packed for the store."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

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
_FIRST_64 = struct.Struct("<q")
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


class Instant(NamedTuple):
    """The time of a call to ``put``, read once for all of its items."""

    mono_us: int
    moment: Moment
    born_ms: int
    wall_ms: int | None


class Packer:
    """Packs the items of one call; what they have in common is encoded once.

    The payload is :func:`skerry.wire.record.canonical` of the record, put together from its parts: MessagePack's
    arrays are nothing but their elements in a row.
    """

    def __init__(self, instant: Instant, options: OutboxOptions) -> None:
        self._instant = instant
        self._limit = int(options.max_record)
        self._ttls = [options.ttl_ms_of(number) for number in range(len(PRIORITIES))]
        self._edges: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def pack(self, items: Sequence[Item]) -> tuple[list[Packed], dict[int, str]]:
        """Return the items packed, and the reason by place for those that cannot be stored."""
        packed: list[Packed] = []
        refused: dict[int, str] = {}
        for place, item in enumerate(items):
            try:
                packed.append(self._packed(item))
            except (WireError, ValueError) as error:
                message = error.message if isinstance(error, WireError) else str(error)
                refused[place] = f"{item.stream}: {message}" if isinstance(item, Item) else message
        return packed, refused

    def _packed(self, item: Item) -> Packed:
        priority = _NUMBERS.get(item.priority)
        if priority is None:
            raise ValueError(f"there is no priority {item.priority!r}, only {', '.join(PRIORITIES)}")
        edges = self._edges.get((item.stream, item.release)) or self._new_edges(item.stream, item.release)
        payload = edges[0] + self._body(item) + edges[1]
        if len(payload) + OVERHEAD_BYTES > self._limit:
            raise ValueError(f"it takes {len(payload)} bytes, more than the {self._limit} of `max_record`")
        ttl_ms = self._ttls[priority] if item.ttl_s is None else _milliseconds(item.ttl_s)
        instant = self._instant
        return Packed(priority, _digest(payload), instant.born_ms, instant.wall_ms, ttl_ms, payload)

    def _body(self, item: Item) -> bytes:
        """Return the encoded fields; those with anything but plain values at the top take the longer way."""
        fields = item.fields
        if type(fields) is dict and _SIMPLE.issuperset(map(type, fields.values())):
            try:
                "".join(fields)  # keys are text, or this fails: the quickest way to ask
                body = _encode(fields)
            except (TypeError, UnicodeEncodeError, OverflowError):
                return self._careful_body(item)
            if _NOT_FINITE.search(body) is None:
                return body
        return self._careful_body(item)

    def _careful_body(self, item: Item) -> bytes:
        """Return the fields as they stand in the canonical encoding, which names what is wrong with them."""
        record = WireRecord(0, "", plain(item.fields), 0, _NO_MOMENT)
        return canonical(record)[len(_BARE[0]) : -len(_BARE[1])]

    def _new_edges(self, stream: str, release: str) -> tuple[bytes, bytes]:
        """Return what stands before and behind the fields in the canonical encoding."""
        mono_us, moment, _, _ = self._instant
        edges = _edges(WireRecord(0, stream, {}, mono_us, moment, 0, release))
        self._edges[stream, release] = edges
        return edges


def _edges(record: WireRecord) -> tuple[bytes, bytes]:
    """Return the encoding of a record without fields, before and behind their place."""
    whole = canonical(record)
    place = 1 + len(_encode(record.stream))
    return whole[:place], whole[place + 1 :]


def _digest(payload: bytes) -> int:
    """Return the 64 bits of the record's digest, signed as SQLite has its integers."""
    return _FIRST_64.unpack_from(_sha256(payload).digest())[0]  # type: ignore[no-any-return]


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


_NO_MOMENT = Moment("", 0, False)
_BARE = _edges(WireRecord(0, "", {}, 0, _NO_MOMENT))
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
