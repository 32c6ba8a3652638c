"""NATS as a carrier: a batch is a request to ``skerry.DEVICE.batch``, and the reply is the hub's receipt."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from skerry.run.nats_client import connect
from skerry.run.uplink.mqtt import answer_of
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.transport import Answer

if TYPE_CHECKING:
    from skerry.run.uplink.passport import Passport

_MESSAGE_OVERHEAD = 200  # headers of NATS, TLS, TCP and IP of a request and its reply


class NatsTransport:
    """One connection to a server, shared by all lanes, with an event loop in a thread of its own.

    A refusal has the headers ``status`` (as in HTTP), and ``retry-after`` where there is one.
    """

    overhead = 500
    opening = 6000

    def __init__(self, host: str, port: int, passport: Passport, options: UplinkOptions, *, tls: bool) -> None:
        self.name, self._host, self._port = f"nats://{host}:{port}", host, port
        self._tls, self._passport, self._options = tls, passport, options
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: Any = None

    def lane(self) -> NatsLane:
        """Return a new lane."""
        return NatsLane(self)

    def begin(self, batch: bytes, timeout_s: float) -> Future[Answer]:
        """Begin an exchange."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="uplink-nats", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(self._exchange(batch, timeout_s), self._loop)

    async def _exchange(self, batch: bytes, timeout_s: float) -> Answer:
        connection = await self._connected()
        import nats.errors

        try:
            reply = await connection.request(f"skerry.{self._passport.device}.batch", batch, timeout=timeout_s)
        except (nats.errors.TimeoutError, TimeoutError) as error:
            raise TimeoutError("the hub said nothing in time") from error
        except nats.errors.NoRespondersError as error:
            raise ConnectionRefusedError("no hub listens at this server") from error
        except nats.errors.Error as error:
            raise ConnectionError(str(error)) from error
        return answer_of(reply.data, dict(reply.headers or {}))

    async def _connected(self) -> Any:
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        self._connection = await connect(
            self._host,
            self._port,
            tls=self._passport.context() if self._tls else None,
            connect_timeout_s=self._options.connect_timeout,
            ping_interval=max(1, round(self._options.silence / 2)),
            max_outstanding_pings=2,
        )
        return self._connection

    def renewed(self) -> None:
        """Connect anew with the new certificate."""
        self._run(self._disconnect())

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _run(self, work: Any) -> None:
        loop = self._loop
        if loop is None:
            work.close()
            return
        with contextlib.suppress(OSError, FutureTimeoutError, CancelledError):
            asyncio.run_coroutine_threadsafe(work, loop).result(2.0)

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._run(self._disconnect())
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(2.0)
            if not self._thread.is_alive():
                loop.close()


class NatsLane:
    """One batch at a time over the shared connection."""

    def __init__(self, transport: NatsTransport) -> None:
        self._transport = transport
        self._under_way: Future[Answer] | None = None
        self._traffic = 0

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Send a batch and wait for the hub's answer; raises ``OSError``."""
        self._traffic += len(batch) + _MESSAGE_OVERHEAD
        under_way = self._under_way = self._transport.begin(batch, timeout_s)
        try:
            answer = under_way.result(timeout_s + self._wait_more_s)
        except FutureTimeoutError as error:
            under_way.cancel()
            raise TimeoutError("the hub said nothing in time") from error
        except CancelledError as error:
            raise ConnectionAbortedError("given up") from error
        self._traffic += len(answer.body)
        return answer

    _wait_more_s = 20.0  # for the connection, which the exchange's own limit does not cover

    def traffic(self) -> int:
        """Return the bytes on the wire, about, since this was last asked."""
        size, self._traffic = self._traffic, 0
        return size

    def cancel(self) -> None:
        """End the exchange that is under way."""
        if self._under_way is not None:
            self._under_way.cancel()

    def close(self) -> None:
        """Do nothing: the connection is everybody's."""
