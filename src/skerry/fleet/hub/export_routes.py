"""The export: records as one Parquet file, for whoever wants to look at many of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any

from litestar import Request, get
from litestar.response import Stream

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.guard import operators_only
from skerry.fleet.hub.parts import Parts
from skerry.fleet.hub.record_routes import filter_of, number_of
from skerry.fleet.hub.store import Filter, Store, StoredRecord
from skerry.spec.errors import DependencyError

GROUP = 10_000
"""Records of a row group, and those that are in memory at once."""
AT_ONCE = 2
"""Exports under way: each takes a core and disk."""
_PIECE = 1 << 18


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
        place = object()
        under_way.add(place)
        try:
            file = await asyncio.to_thread(write_parquet, parts.store, parts.data, after, only, _ended(parts))
        finally:
            under_way.discard(place)
        return Stream(_pieces(file), media_type="application/vnd.apache.parquet")

    return [export]


def _ended(parts: Parts) -> Callable[[], bool]:
    return lambda: parts.bell.ended


def write_parquet(store: Store, folder: Path, after: int, only: Filter, ended: Callable[[], bool]) -> IO[bytes]:
    """Write the records to a nameless file in ``folder`` and return it, at its beginning.

    Raises ``DependencyError`` without pyarrow, ``Refusal`` (503) when the hub ends meanwhile.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DependencyError("an export needs the package pyarrow", hint="pip install 'skerry[files]'") from error
    file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - whoever sends it closes it
    until = store.last_id()
    schema = _schema(pa)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while not ended():
            found = [each for each in store.records(after=after, limit=GROUP, only=only) if each.id <= until]
            if not found:
                break
            after = found[-1].id
            writer.write_table(pa.table(_columns(found), schema=schema))
    if ended():
        file.close()
        raise Refusal(503, "the hub is ending")
    file.seek(0)
    return file


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


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
    finally:
        file.close()
