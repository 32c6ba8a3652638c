"""Answers: what an error is over HTTP, and how a body is read within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from skerry.fleet.hub.reception import BusyError
from skerry.spec.errors import (
    CertificateRefusedError,
    EnrolmentRefusedError,
    HubError,
    SignatureError,
    SkerryError,
    TrustError,
    UsageError,
    WireError,
    WireVersionError,
)

HUB_HEADER = ("Skerry-Hub", "1")
"""In every reply of a hub; without it, an answer is a captive portal's."""
STATUSES: tuple[tuple[type[SkerryError], int], ...] = (
    (WireVersionError, 426), (SignatureError, 403), (WireError, 400), (CertificateRefusedError, 403),
    (EnrolmentRefusedError, 403), (TrustError, 400), (UsageError, 400), (HubError, 503),
)  # fmt: skip


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is answered with an error of HTTP."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def problem(self) -> bytes:
        """Return the body: a problem of RFC 9457."""
        return msgspec.json.encode({"status": self.status, "detail": self.detail})


def refusal_of(error: SkerryError, retry_after_s: float) -> Refusal:
    """Return what an error of the tree is over HTTP."""
    status = next((code for kind, code in STATUSES if isinstance(error, kind)), 500)
    if isinstance(error, BusyError):
        status = 429 if error.own_fault else 503
    wait = {"retry-after": str(max(1, round(retry_after_s)))} if status in {429, 503} else {}
    return Refusal(status, str(error), {**wait, **({"upgrade": "skerry-batch"} if status == 426 else {})})


async def send_answer(send: Any, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send one whole answer of ASGI."""
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def declared_length(headers: Mapping[str, str], limit: int) -> int | None:
    """Return the length that a sender tells, if any; raises ``Refusal`` (413) beyond ``limit``."""
    text = headers.get("content-length", "")
    if not text.isdigit():
        return None
    if len(text) > 18 or int(text) > limit:
        raise too_large(limit)
    return int(text)


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body beyond ``limit`` bytes."""
    return Refusal(413, f"more than the {limit} bytes that are taken at once", {"connection": "close"})


async def read_body(receive: Any, limit: int, patience_s: float) -> bytes:
    """Read a whole body; raises ``Refusal`` for one that is too large, too slow or cut off."""
    body = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the sender left before its body ended")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large(limit)
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(408, "the body did not come in time", {"connection": "close"}) from None


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a request by their names in small letters."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
