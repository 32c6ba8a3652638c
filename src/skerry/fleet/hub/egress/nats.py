"""NATS JetStream: every event published with its id, confirmed by the stream that keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.fleet.hub.egress.event import EVENT_TYPE, Event
from skerry.fleet.hub.egress.outlet import OutletOptions
from skerry.fleet.hub.nats_client import CONNECT_S, connect
from skerry.spec.errors import HubUnreachableError


class NatsEgressOptions(OutletOptions, frozen=True, kw_only=True):
    """How to publish.

    Parameters
    ----------
    jetstream:
        The stream that has to take the events; made, with the subject, where it does not exist. Without it, any stream
        of the subject will do.
    tls, ca:
        Whether to speak TLS, and whom to believe instead of the system's authorities.
    timeout_s:
        Seconds for a confirmation.
    """

    jetstream: str | None = None
    tls: bool = False
    ca: str = ""
    timeout_s: float = 30.0


class NatsEgress:
    """Publishes to the subject that the path names, with ``Nats-Msg-Id``, by which JetStream drops repetitions."""

    def __init__(self, place: Place, options: NatsEgressOptions) -> None:
        self._place, self._options = place, options
        self._subject = place.path.strip("/") or "skerry.records"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._stream: Any = None

    def open(self) -> None:
        """Connect; raises ``HubUnreachableError``."""
        self._loop = asyncio.new_event_loop()
        # A thread of its own, so that the server's pings are answered while there is nothing to send.
        self._thread = threading.Thread(target=self._loop.run_forever, name="egress-nats-loop", daemon=True)
        self._thread.start()
        self._do(self._open())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "open comes first"
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result(self._options.timeout_s + CONNECT_S)
        except TimeoutError as error:  # a server that takes nothing any more, and does not hang up
            raise HubUnreachableError(f"{self._place.name}: nothing moves") from error

    async def _open(self) -> None:
        self._connection = await connect(self._place, tls=self._options.tls, ca=self._options.ca)
        self._stream = self._connection.jetstream(timeout=self._options.timeout_s)
        if self._options.jetstream:
            from nats.js.errors import NotFoundError

            try:
                await self._stream.stream_info(self._options.jetstream)
            except NotFoundError:
                await self._stream.add_stream(name=self._options.jetstream, subjects=[self._subject])

    def deliver(self, events: Sequence[Event]) -> None:
        """Publish, and wait for every confirmation."""
        self._do(self._deliver(events))

    async def _deliver(self, events: Sequence[Event]) -> None:
        if not self._connection.is_connected:
            raise HubUnreachableError(f"{self._place.name}: the connection is gone")
        await asyncio.gather(*(self._publish(event) for event in events))

    async def _publish(self, event: Event) -> None:
        headers = {"Nats-Msg-Id": event.id, "content-type": EVENT_TYPE}
        await self._stream.publish(
            self._subject, event.body, stream=self._options.jetstream, headers=headers, timeout=self._options.timeout_s
        )

    def close(self) -> None:
        """Disconnect."""
        loop = self._loop
        if loop is None:
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(HubUnreachableError):
                self._do(connection.close())
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
        loop.close()
