"""Words of the wire tests: records of any kind, a header, and a key that signs."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from skerry.wire.batch import Header
from skerry.wire.record import Moment, WireRecord

BOOT = "3f0c5d1a9b7e4c2d8a6f1b0e7d5c3a91"
EPOCH = "9f3c2a7be1d04856"
RELEASE = "sha256:" + "5e" * 32
HEADER = Header(
    device="pump-17",
    epoch=EPOCH,
    boot=BOOT,
    sent_mono_us=36_088_982_012,
    sent_wall_ms=1_795_397_307_397,
    synced=True,
    losses={"evicted.low.caps": 12},
)

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
integers = st.integers() | st.integers(-(2**70), 2**70) | st.integers(-3, 300)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-999, 999, places=2).map(float)
leaves = st.none() | st.booleans() | integers | floats | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=12
)
moments = st.builds(
    Moment,
    st.sampled_from([BOOT, "0" * 32]) | st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.integers(-(2**45), 2**45),
    st.booleans(),
)


def columns_of(column: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[list[Any]]:
    """Return lists of ``count`` values of one kind."""
    return st.lists(column, min_size=count, max_size=count)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return fields of records that share most keys, as those of one sink do."""
    count = draw(st.integers(1, 12))
    keys = draw(st.lists(texts, max_size=5, unique=True))
    kinds = [st.none(), st.booleans(), integers, floats, texts, times, values, leaves, st.lists(floats, max_size=3)]
    columns = {key: draw(columns_of(draw(st.sampled_from(kinds)), count)) for key in keys}
    rows = [{key: column[place] for key, column in columns.items()} for place in range(count)]
    for place in draw(st.sets(st.integers(0, count - 1), max_size=3)):
        rows[place] = dict(reversed(rows[place].items()))
        for key in draw(st.sets(st.sampled_from(keys), max_size=2)) if keys else ():
            rows[place].pop(key, None)
    return rows


times = st.datetimes().map(lambda time: time.isoformat(" ", "milliseconds"))


@st.composite
def batches(draw: st.DrawFn) -> list[WireRecord]:
    """Return records of some streams, with numbers in any order."""
    rows = draw(tables() | st.lists(st.dictionaries(texts, values, max_size=4), min_size=1, max_size=6))
    numbers = draw(st.lists(st.integers(1, 2**53), min_size=len(rows), max_size=len(rows), unique=True))
    some = draw(st.lists(moments, min_size=1, max_size=2))
    return [
        WireRecord(
            seq,
            draw(st.sampled_from(["telemetry", "", "ereignisse é"])),
            fields,
            draw(st.integers(0, 2**60)),
            draw(st.sampled_from(some)),
            draw(st.integers(0, 3)),
            draw(st.sampled_from(["", RELEASE, "sha256:", "v1.2"])),
        )
        for seq, fields in zip(numbers, rows, strict=True)
    ]


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same to the last bit: types, order of keys and the sign of zero included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, WireRecord):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    return bool(one == other)


def record(fields: dict[str, Any], seq: int = 1, stream: str = "telemetry") -> WireRecord:
    """Return a record with these fields."""
    return WireRecord(seq, stream, fields, 1_000_000 * seq, Moment(BOOT, 1_795_361_218_418, synced=True), 1, RELEASE)


def records(rows: list[dict[str, Any]]) -> list[WireRecord]:
    """Return records with these fields, numbered from 1."""
    return [record(fields, seq) for seq, fields in enumerate(rows, 1)]


class Key:
    """A signer and its verifier, over a real P-256 key."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._key = ec.generate_private_key(ec.SECP256R1())
        self.key_id = b"\x01\x02\x03\x04\x05\x06\x07\x08"

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        r, s = utils.decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def verify(self, key_id: bytes, message: bytes, signature: bytes, /) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        if key_id != self.key_id:
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            self._key.public_key().verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True
