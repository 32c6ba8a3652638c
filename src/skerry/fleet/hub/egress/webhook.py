"""The webhook: CloudEvents posted to a server, in the batched or the structured mode of the HTTP binding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from skerry.fleet.hub.egress.address import Place
from skerry.fleet.hub.egress.event import BATCH_TYPE, EVENT_TYPE, Event, as_batch
from skerry.fleet.hub.egress.outlet import OutletOptions
from skerry.run.http_client import HttpClient, request_headers
from skerry.spec.errors import HubRefusedError


class WebhookOptions(OutletOptions, frozen=True, kw_only=True):
    """How to post.

    Parameters
    ----------
    mode:
        ``batch`` posts an array of events, ``each`` one request for every event: not every server takes arrays.
    token_env:
        The environment variable that holds a bearer token.
    ca:
        A file of certificates to believe instead of the system's.
    timeout_s:
        Seconds for one request.
    """

    mode: Literal["batch", "each"] = "batch"
    token_env: str | None = None
    ca: str = ""
    timeout_s: float = 30.0


class Webhook:
    """Takes a 2xx as the confirmation; anything else is tried again, because nothing may be skipped."""

    def __init__(self, place: Place, options: WebhookOptions) -> None:
        self._url, self._options = place.url, options
        kind = BATCH_TYPE if options.mode == "batch" else EVENT_TYPE
        self._headers = request_headers({}, content_type=kind, token_env=options.token_env)
        self._client: HttpClient | None = None

    def open(self) -> None:
        """Get ready, without a request."""
        ca = Path(self._options.ca) if self._options.ca else None
        self._client = HttpClient(timeout_s=self._options.timeout_s, connect_timeout_s=10, ca=ca)

    def deliver(self, events: Sequence[Event]) -> None:
        """Post the events."""
        bodies = [event.body for event in events]
        for body in [as_batch(bodies)] if self._options.mode == "batch" else bodies:
            assert self._client is not None, "open comes first"
            reply = self._client.send("POST", self._url, body, self._headers)
            if not reply.is_success:
                raise HubRefusedError(f"answered {reply.status}: {reply.excerpt()}")

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
