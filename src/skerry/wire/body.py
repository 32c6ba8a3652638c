"""The body of a batch: its records as columns."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.spec.errors import WireError
from skerry.wire.compression import compress, decompress
from skerry.wire.limits import Limits
from skerry.wire.record import WireRecord


def encode_body(records: Sequence[WireRecord], limits: Limits) -> bytes:
    """Return the records, packed."""
    try:
        unpacked = msgspec.msgpack.encode(list(records))
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise WireError(f"a record cannot be sent: {error}") from error
    if len(unpacked) > limits.unpacked:
        raise WireError(f"records of {len(unpacked):,} bytes", expected=f"at most {limits.unpacked:,}")
    return compress(unpacked, 9)


def decode_body(data: bytes, count: int, limits: Limits) -> list[WireRecord]:
    """Read the records."""
    try:
        records = msgspec.msgpack.decode(decompress(data, limits.unpacked), type=list[WireRecord])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError(f"the records of a batch are damaged: {error}") from error
    if len(records) != count:
        raise WireError("a batch whose records are not those that its header tells of")
    return records
