"""The export: records as one Parquet file, for whoever wants to look at many of them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from litestar import Request, get
from litestar.response import Stream

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.guard import operators_only
from skerry.fleet.hub.parts import Parts
from skerry.fleet.hub.record_routes import filter_of, number_of
from skerry.fleet.hub.store import Filter, Store, StoredRecord
from skerry.spec.errors import DependencyError, HubError

GROUP = 10_000
"""Records of a row group at most, and those that are in memory at once; large ones make smaller groups."""
AT_ONCE = 2
"""Exports under way: each takes a core and reads the store."""


def handlers(parts: Parts) -> list[Any]:
    """Return the handlers."""
    under_way: set[object] = set()

    @get("/v1/records.parquet", guards=[operators_only(parts.access)])
    async def export(request: Request[Any, Any, Any]) -> Stream:
        """Answer with the records of a filter that are here now, as Parquet."""
        query = dict(request.query_params.items())
        after = number_of(query, "after", 0, 2**62)
        only = filter_of(query)
        if len(under_way) >= AT_ONCE:
            raise Refusal(503, "other exports are under way", {"retry-after": "10"})
        pieces = parquet(parts.store, after, only)
        # The first piece shows whether the store and pyarrow are there, while there still can be another answer.
        first = await asyncio.to_thread(next, pieces)

        async def counted() -> AsyncIterator[bytes]:
            place = object()
            under_way.add(place)
            try:
                yield first
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    if parts.bell.ended:
                        raise HubError("the hub is ending")  # the file has no end then, and nobody takes it for whole
                    yield piece
            finally:
                under_way.discard(place)

        return Stream(counted(), media_type="application/vnd.apache.parquet")

    return [export]


def parquet(store: Store, after: int, only: Filter) -> Iterator[bytes]:
    """Yield a Parquet file of the records that are here now, a row group at a time.

    Raises ``DependencyError`` without pyarrow, ``HubError`` when the store cannot be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DependencyError("an export needs the package pyarrow", hint="pip install 'skerry[files]'") from error
    until, sink, schema = store.last_id(), _Sink(), _schema(pa)
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        while True:
            found = store.records(after=after, limit=GROUP, only=only)
            wanted = [each for each in found if each.id <= until]
            if wanted:
                writer.write_table(pa.table(_columns(wanted), schema=schema))
                yield sink.take()
            if not found or len(wanted) < len(found):
                break
            after = found[-1].id
    yield sink.take()


class _Sink(io.RawIOBase):
    """Where a file is written that goes on its way at once; it knows how long it is."""

    def __init__(self) -> None:
        self._held, self._length = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        self._held += data
        self._length += size
        return size

    def tell(self) -> int:
        return self._length

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = bytes(self._held)
        self._held.clear()
        return taken


def _schema(pa: Any) -> Any:
    moment = pa.timestamp("ms", tz="UTC")
    return pa.schema(
        [
            ("id", pa.int64()), ("device", pa.string()), ("epoch", pa.string()), ("seq", pa.int64()),
            ("stream", pa.string()), ("at", moment), ("at_from", pa.string()), ("received", moment),
            ("priority", pa.int8()), ("release", pa.string()), ("fields", pa.string()),
        ]
    )  # fmt: skip


def _columns(found: Sequence[StoredRecord]) -> dict[str, list[Any]]:
    return {
        "id": [each.id for each in found], "device": [each.device for each in found],
        "epoch": [each.epoch for each in found], "seq": [each.seq for each in found],
        "stream": [each.stream for each in found], "at": [each.at_ms for each in found],
        "at_from": [each.at_from for each in found], "received": [each.received_ms for each in found],
        "priority": [each.priority for each in found], "release": [each.release for each in found],
        "fields": [each.fields.decode() for each in found],
    }  # fmt: skip
