"""Enrolment over HTTP: what the fleet's authority is asked, without a certificate.

``GET /v1/ca``, ``GET /v1/nonce``, ``POST /v1/enrol`` and ``POST /v1/renew``; the authority decides all of it, see
:mod:`skerry.trust.endpoints`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from skerry.fleet.hub.access import Access
from skerry.fleet.hub.answers import Refusal, declared_length, headers_of, read_body, send_answer

PATHS = frozenset({"/v1/ca", "/v1/nonce", "/v1/enrol", "/v1/renew"})
AT_ONCE = 32
"""Requests that the authority works on: anybody may ask, so they must not keep the hub from its devices."""
PATIENCE_S = 20.0
"""How long a request may take to arrive: 2 kB, on the slowest link."""


class EnrolmentApp:
    """An ASGI application of the four addresses of enrolment."""

    def __init__(self, access: Access, clock: Callable[[], float], patience_s: float) -> None:
        self._access, self._clock, self._patience_s = access, clock, patience_s
        self._under_way = 0

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer one request."""
        try:
            status, body = await self._answer(scope, receive)
            headers = {}
        except Refusal as refusal:
            status, body, headers = refusal.status, refusal.problem(), refusal.headers
        await send_answer(send, status, body, {"content-type": "application/json", **headers})

    async def _answer(self, scope: dict[str, Any], receive: Callable[..., Any]) -> tuple[int, bytes]:
        authority = self._access.authority
        if authority is None:
            raise Refusal(404, "this hub is for its own machine and has no authority; nothing has to be enrolled")
        from skerry.trust.endpoints import LARGEST_BODY, answer

        declared_length(headers_of(scope), LARGEST_BODY)
        body = await read_body(receive, LARGEST_BODY, min(self._patience_s, PATIENCE_S))
        if self._under_way >= AT_ONCE:  # counted from here on: a request that never ends keeps nobody out
            raise Refusal(503, "too many devices are enrolling", {"retry-after": "2"})
        self._under_way += 1
        try:
            return await asyncio.to_thread(answer, authority, scope["method"], scope["path"], body, self._clock())
        finally:
            self._under_way -= 1
