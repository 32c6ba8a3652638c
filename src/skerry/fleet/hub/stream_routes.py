"""The live stream: records as they arrive, as server-sent events, from any number on.

Source: the section on server-sent events of the HTML standard (https://html.spec.whatwg.org/#server-sent-events).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Request, get
from litestar.response import Stream

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.guard import operators_only
from skerry.fleet.hub.parts import Parts
from skerry.fleet.hub.record_routes import filter_of, number_of, record_view
from skerry.fleet.hub.store import Filter

AT_ONCE = 500
AT_ONCE_BYTES = 256_000
"""Records, and bytes of their fields, that are read at once: the memory of one stream."""
SIGN_OF_LIFE_S = 15.0
"""How often something is sent when there is nothing to tell, so that nobody in between cuts the connection."""


def handlers(parts: Parts) -> list[Any]:
    """Return the handlers."""
    open_streams: set[object] = set()

    @get("/v1/records/stream", guards=[operators_only(parts.access)])
    async def stream(request: Request[Any, Any, Any]) -> Stream:
        """Stream what comes from now on, or everything beyond ``after`` or the header ``Last-Event-ID``."""
        query = dict(request.query_params.items())
        if last := request.headers.get("last-event-id"):
            query["after"] = last
        after = number_of(query, "after", await asyncio.to_thread(parts.store.last_id), 2**62)
        only = filter_of(query)
        if len(open_streams) >= parts.options.streams:
            raise Refusal(503, "too many streams are open", {"retry-after": "5"})

        async def counted() -> AsyncIterator[bytes]:
            place = object()
            open_streams.add(place)
            try:
                async for piece in events(parts, after, only):
                    yield piece
            finally:
                open_streams.discard(place)

        return Stream(counted(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    return [stream]


async def events(parts: Parts, after: int, only: Filter) -> AsyncIterator[bytes]:
    """Yield every record beyond ``after`` as an event with its number as id, until the hub ends; nothing is skipped."""
    yield b"retry: 2000\n\n"
    while not parts.bell.ended:
        ear = parts.bell.ear()
        newest = await asyncio.to_thread(parts.store.last_id)
        found = await asyncio.to_thread(
            parts.store.records, after=after, limit=AT_ONCE, only=only, most_bytes=AT_ONCE_BYTES
        )
        if found:
            yield b"".join(_event(each.id, msgspec.json.encode(record_view(each))) for each in found)
            after = found[-1].id
            continue
        after = max(after, newest)  # what the filter left out need not be looked at again
        await parts.bell.wait(ear, SIGN_OF_LIFE_S)
        if not ear.is_set():
            yield b": nothing new\n\n"


def _event(number: int, data: bytes) -> bytes:
    return b"id: %d\nevent: record\ndata: %b\n\n" % (number, data)
