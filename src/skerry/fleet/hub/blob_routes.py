"""Blobs over HTTP: resumable uploads by offset, downloads by range."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from skerry.fleet.hub.access import Caller
from skerry.fleet.hub.answers import Refusal, headers_of, read_body, refusal_of, send_answer
from skerry.fleet.hub.blobs import Wanted
from skerry.fleet.hub.guard import known_caller
from skerry.fleet.hub.parts import Parts
from skerry.spec.errors import SkerryError

PREFIX = "/v1/blobs"
_PIECE = 1 << 18
"""Bytes that are read or written at once: the memory of one transfer."""
_LONGEST_REQUEST = 4096
_HAND_OVER_S = 30.0
"""How long a newcomer waits for an older transfer to store what it holds, the check of a large digest included."""
_LEFT_S = 0.05
"""How long a transfer whose time is over looks for what has arrived already."""
Answer = tuple[int, dict[str, str], bytes]


class BlobsApp:
    """An ASGI application of ``/v1/blobs``.

    ``POST`` begins an upload (201, ``Location``), ``HEAD`` tells its ``Upload-Offset``, ``PATCH`` appends from there:
    200 with the new offset, 409 with the true one, 422 when the whole has another digest. ``GET`` of
    ``/v1/blobs/sha256:…`` takes ``Range``.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._blobs = parts.blobs
        self._transfers: dict[str, _Transfer] = {}

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer one request."""
        try:
            caller = known_caller(self._parts.access, scope)
            name = scope["path"].removeprefix(PREFIX).removeprefix("/")
            if scope["method"] == "GET" and name:
                await self._download(name, caller, headers_of(scope), receive, send)
                return
            status, headers, body = await self._answer(scope, name, caller, receive)
        except (Refusal, SkerryError, OSError) as error:
            refusal = self._refusal(error)
            status, headers, body = refusal.status, refusal.headers, refusal.problem()
        await send_answer(send, status, body if scope["method"] != "HEAD" else b"", headers)

    def _refusal(self, error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, SkerryError):
            return refusal_of(error, self._parts.options.retry_after)
        # A full disk: what has arrived is kept.
        return Refusal(503, f"the hub's disk: {error}", {"retry-after": "60"})

    async def _answer(self, scope: dict[str, Any], name: str, caller: Caller, receive: Callable[..., Any]) -> Answer:
        owner, method = owner_of(caller), scope["method"]
        if method == "POST" and not name:
            return await self._begin(owner, receive)
        if method == "GET":
            return await self._list(caller)
        if method == "HEAD" and name.startswith("sha256:"):
            card, _ = await asyncio.to_thread(self._blobs.find, name, owner, all_of_them=caller.operates)
            return (
                200,
                {"upload-offset": str(card.size), "upload-length": str(card.size), "accept-ranges": "bytes"},
                b"",
            )
        if method == "HEAD":
            # Whoever asks will continue: an older transfer of it ends, or the answer would be wrong at once.
            async with self._alone(name):
                offset, size = await asyncio.to_thread(self._blobs.offset, name, owner)
            return 200, {**_offsets(offset, size), "cache-control": "no-store"}, b""
        if method == "PATCH":
            return await self._append(name, owner, headers_of(scope), receive)
        raise Refusal(405, f"{method} is not taken here", {"allow": "GET, HEAD, PATCH, POST"})

    async def _begin(self, owner: str, receive: Callable[..., Any]) -> Answer:
        body = await read_body(receive, _LONGEST_REQUEST, self._parts.options.patience)
        try:
            wanted = msgspec.json.decode(body, type=Wanted)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refusal(400, f"the request cannot be read: {error}") from error
        number, offset = await asyncio.to_thread(self._blobs.begin, wanted, owner, self._parts.clock())
        return 201, {**_offsets(offset, wanted.size), "location": f"{PREFIX}/{number}"}, b""

    async def _list(self, caller: Caller) -> Answer:
        if not caller.operates:
            raise Refusal(403, "this is for operators")
        cards = await asyncio.to_thread(lambda: list(self._blobs.cards()))
        return 200, {"content-type": "application/json"}, msgspec.json.encode({"blobs": cards})

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[_Transfer]:
        """Have an upload to oneself: whoever had it stores what it holds and leaves; it may be half open."""
        before, mine = self._transfers.get(name), _Transfer()
        self._transfers[name] = mine
        try:
            if before is not None:
                before.over.set()
                async with asyncio.timeout(_HAND_OVER_S):
                    await before.done.wait()
            yield mine
        except TimeoutError:
            raise Refusal(503, "the upload is being stored", {"retry-after": "2"}) from None
        finally:
            mine.done.set()
            if self._transfers.get(name) is mine:
                del self._transfers[name]

    async def _append(
        self, name: str, owner: str, headers: Mapping[str, str], receive: Callable[..., Any]
    ) -> Answer:  # fmt: skip
        text = headers.get("upload-offset", "")
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Refusal(400, "PATCH takes Upload-Offset")
        async with self._alone(name) as transfer:
            return await self._poured(name, owner, int(text), transfer, receive)

    async def _poured(
        self, name: str, owner: str, begin: int, transfer: _Transfer, receive: Callable[..., Any]
    ) -> Answer:  # fmt: skip
        file = await asyncio.to_thread(self._blobs.open, name, owner, begin)
        size = (await asyncio.to_thread(self._blobs.offset, name, owner))[1]
        try:
            offset, whole = await self._pour(file, begin, size, transfer, receive)
        finally:
            await asyncio.to_thread(file.close)
        headers = _offsets(offset, size)
        if transfer.over.is_set() and not whole:
            raise Refusal(409, "another connection has taken this upload over", {**headers, "connection": "close"})
        if not whole:
            raise Refusal(408, "the body ended early; what arrived is kept", {**headers, "connection": "close"})
        if offset == size:
            headers["location"] = f"{PREFIX}/{await asyncio.to_thread(self._blobs.finish, name, owner)}"
        return 200, headers, b""

    async def _pour(
        self, file: IO[bytes], offset: int, size: int, transfer: _Transfer, receive: Callable[..., Any]
    ) -> tuple[int, bool]:
        """Write what arrives; return the new offset, and whether the body came to its end."""
        more, whole, held = True, True, bytearray()
        while more:
            message = await transfer.next(receive, self._parts.options.patience)
            if message["type"] == "http.disconnect":
                more = whole = False
            else:
                held += message.get("body", b"")
                more = message.get("more_body", False)
            if offset + len(held) > size:
                raise Refusal(400, f"more than the {size} bytes that were told", {"connection": "close"})
            if held and (len(held) >= _PIECE or not more):
                offset += await asyncio.to_thread(_write_all, file, bytes(held))
                held.clear()
        await asyncio.to_thread(_sync, file)
        return offset, whole

    async def _download(
        self,
        name: str,
        caller: Caller,
        headers: Mapping[str, str],
        receive: Callable[..., Any],
        send: Callable[..., Any],
    ) -> None:
        card, path = await asyncio.to_thread(self._blobs.find, name, owner_of(caller), all_of_them=caller.operates)
        first, last = range_of(headers.get("range", ""), card.size)
        part = {"content-range": f"bytes {first}-{last}/{card.size}"} if "range" in headers else {}
        told = {
            "content-type": "application/octet-stream", "accept-ranges": "bytes", "etag": f'"{card.digest}"',
            "content-length": str(last - first + 1), "x-content-type-options": "nosniff", **part,
        }  # fmt: skip
        raw = [(key.encode(), value.encode()) for key, value in told.items()]
        await send({"type": "http.response.start", "status": 206 if part else 200, "headers": raw})
        await _send_file(path, first, last - first + 1, receive, send)


class _Transfer:
    """A connection that works on an upload, until it is ``done`` or told that its time is ``over``."""

    def __init__(self) -> None:
        self.over, self.done = asyncio.Event(), asyncio.Event()

    async def next(self, receive: Callable[..., Any], patience_s: float) -> dict[str, Any]:
        """Return the next message; once the time is over only what is here already, then a disconnection."""
        arriving = asyncio.ensure_future(receive())
        ending = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait({arriving, ending}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not arriving.done() and self.over.is_set():
                await asyncio.wait({arriving}, timeout=_LEFT_S)
            message: dict[str, Any] = arriving.result() if arriving.done() else {"type": "http.disconnect"}
            return message
        finally:
            arriving.cancel()
            ending.cancel()


def _offsets(offset: int, size: int) -> dict[str, str]:
    return {"upload-offset": str(offset), "upload-length": str(size)}


def owner_of(caller: Caller) -> str:
    """Return under which name somebody's blobs are kept."""
    return caller.name if caller.role == "device" else f"{caller.role}:{caller.name}"


def range_of(text: str, size: int) -> tuple[int, int]:
    """Return the first and last byte of a ``Range`` (RFC 9110, section 14); raises ``Refusal`` (416) outside."""
    if not text:
        return 0, size - 1
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", text)
    if match is None or match[1] == match[2] == "":
        raise Refusal(416, "one range of bytes is taken", {"content-range": f"bytes */{size}"})
    if not match[1]:
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if first > last:
        raise Refusal(416, "the range is outside of the blob", {"content-range": f"bytes */{size}"})
    return first, last


async def _send_file(
    path: Path, first: int, left: int, receive: Callable[..., Any], send: Callable[..., Any]
) -> None:  # fmt: skip
    gone = asyncio.ensure_future(_disconnection(receive))  # sending to nobody returns at once and says nothing
    file = await asyncio.to_thread(path.open, "rb")
    try:
        file.seek(first)
        while left and not gone.done():
            piece = await asyncio.to_thread(file.read, min(_PIECE, left))
            if not piece:
                break
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        file.close()


async def _disconnection(receive: Callable[..., Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _write_all(file: IO[bytes], data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    return len(data)


def _sync(file: IO[bytes]) -> None:
    os.fdatasync(file.fileno())
