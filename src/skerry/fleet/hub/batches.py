"""Batches over HTTP: ``POST /v1/batches``, raw ASGI because it is what a hub does all day."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from skerry.fleet.hub.access import Access
from skerry.fleet.hub.answers import Refusal, declared_length, headers_of, read_body, refusal_of, send_answer
from skerry.fleet.hub.counts import Counts
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.reception import Reception, reason_of
from skerry.spec.errors import SkerryError

RECEIPT_TYPE = "application/vnd.skerry.receipt"


class BatchesApp:
    """An ASGI application of one address.

    Answers 200 with a receipt; 400 for what is no batch, 401 without a certificate, 403 for a wrong or revoked one and
    for a signature that does not count, 408, 413 and 426 as they are, 429 and 503 with ``Retry-After``.
    """

    def __init__(self, reception: Reception, access: Access, options: HubOptions, counts: Counts) -> None:
        self._reception, self._access, self._options, self._counts = reception, access, options, counts

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer one request."""
        try:
            receipt = await self._answer(scope, receive)
        except Refusal as refusal:
            self._counts.refuse(f"http_{refusal.status}")
            await _refuse(send, refusal)
        except SkerryError as error:
            await _refuse(send, refusal_of(error, self._options.retry_after))
        else:
            await send_answer(send, 200, receipt, {"content-type": RECEIPT_TYPE})

    async def _answer(self, scope: dict[str, Any], receive: Callable[..., Any]) -> bytes:
        if scope["method"] != "POST":
            raise Refusal(405, "batches are posted", {"allow": "POST"})
        try:
            caller = self._access.caller(scope)
        except SkerryError as error:
            self._counts.refuse(reason_of(error))
            raise
        if caller.role == "nobody":
            raise Refusal(401, "a device shows the certificate that it was enrolled with")
        if caller.role == "operator":
            raise Refusal(403, "an operator's certificate sends no batches")
        limit = int(self._options.max_body)
        size = declared_length(headers_of(scope), limit)
        held = limit if size is None else size
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._reception.held(held, caller.name))
            except SkerryError as error:
                self._counts.refuse(reason_of(error))
                raise
            body = await read_body(receive, held, self._options.patience)
            return await self._reception.take(body, caller)


async def _refuse(send: Callable[..., Any], refusal: Refusal) -> None:
    headers = {"content-type": "application/problem+json", **refusal.headers}
    await send_answer(send, refusal.status, refusal.problem(), headers)
