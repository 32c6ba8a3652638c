"""The server: opens its doors when every model is loaded, and closes them without losing a request."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

from skerry.run.serve.batcher import Batcher
from skerry.run.serve.connection import Connection, Yard
from skerry.run.serve.doors import Doors
from skerry.run.serve.options import ServeOptions
from skerry.run.serve.servable import Servable
from skerry.spec.address import refuse_plain_text
from skerry.spec.errors import DependencyError, SpecError, UsageError
from skerry.spec.ports import Address, Log

_STOP_S = 5.0
"""How long a run under way may take at the very end, before the process leaves it behind."""


class Server:
    """Serves models until it is told to stop.

    Parameters
    ----------
    servables:
        Loaded models, each with a name of its own; closed at the end.
    options:
        Where to listen, and the limits.
    log:
        Where to say things in plain words.

    Raises
    ------
    SpecError
        Plain text beyond this machine was not allowed, or the certificate cannot be used.
    DependencyError
        A package is missing.
    """

    def __init__(self, servables: Sequence[Servable], options: ServeOptions, log: Log) -> None:
        self._tls = _tls(options)
        if self._tls is None:
            _refuse_plain_text(options)
        try:
            import httptools  # noqa: F401 - looked for before anything is opened
        except ImportError as error:
            raise DependencyError(
                f"serving needs the package httptools: {error}", hint="pip install 'skerry[serve]'"
            ) from error
        self._servables = servables
        self._options = options
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._hurry: asyncio.Event | None = None
        self._linger_s = 0.0
        self._yard: Any = None
        self.started = threading.Event()
        """Set when requests are welcome."""
        self.url = ""
        """Where HTTP is answered, once ``started``."""
        self.grpc_address = ""
        """Where gRPC is answered, once ``started``; empty for nowhere."""

    def run(self, *, with_signals: bool = False) -> None:
        """Serve until :meth:`stop`, or a signal; raises ``UsageError`` where it cannot listen."""
        asyncio.run(self._serve(with_signals))

    def stop(self, *, linger: bool = False) -> None:
        """End gracefully; called again, at once. Safe to call from any thread.

        With ``linger`` requests are still taken for a while, in which ``ready`` says no.
        """
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._begin_stop, linger)
            except RuntimeError:  # it has ended already
                return

    def _begin_stop(self, linger: bool) -> None:
        assert self._stopping is not None and self._hurry is not None
        if self._stopping.is_set():
            self._hurry.set()
        self._linger_s = float(self._options.linger) if linger else 0.0
        self._stopping.set()

    async def _serve(self, with_signals: bool) -> None:
        options, loop = self._options, asyncio.get_running_loop()
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        self._loop = loop
        batchers = {
            servable.name: Batcher(
                servable, loop, max_batch=options.max_batch, limit=options.queue, max_rows=options.max_rows
            )
            for servable in self._servables
        }
        try:
            await self._open_doors(batchers, with_signals)
        finally:
            for batcher in batchers.values():
                await loop.run_in_executor(None, batcher.stop, _STOP_S)

    async def _open_doors(self, batchers: dict[str, Batcher], with_signals: bool) -> None:
        assert self._stopping is not None
        loop = asyncio.get_running_loop()
        doors = Doors(batchers, self._options)
        yard = Yard(doors, self._options)
        doors.connections = lambda: len(yard.connections)
        grpc_door = await self._open_grpc(batchers, doors)
        listener = await self._listen(yard)
        if with_signals:
            loop.add_signal_handler(signal.SIGTERM, self._begin_stop, True)
            loop.add_signal_handler(signal.SIGINT, self._begin_stop, False)
        ticking = asyncio.create_task(_tick(yard))
        # What is here stays; a collection need not walk over it again.
        gc.collect()
        gc.freeze()
        doors.is_ready = True
        self.started.set()
        try:
            await self._stopping.wait()
            await self._close_doors(doors, yard, listener, grpc_door, batchers)
        finally:
            ticking.cancel()
            listener.close()
            yard.abort()
            await asyncio.sleep(0)  # connections are closed by the next turn of the loop
            gc.unfreeze()

    async def _open_grpc(self, batchers: dict[str, Batcher], doors: Doors) -> Any:
        if self._options.grpc_port is None:
            return None
        from skerry.run.serve.grpc_door import GrpcDoor

        door = GrpcDoor(batchers, self._options, lambda: doors.is_ready)
        await door.start()
        self.grpc_address = f"{_bracketed(self._options.host)}:{door.port}"
        return door

    async def _listen(self, yard: Yard) -> asyncio.Server:
        options = self._options
        try:
            listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(yard), options.host, options.port, ssl=self._tls, backlog=options.connections
            )
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen on {options.host}:{options.port}: {_reason(error)}",
                expected="an address of this machine and a free port",
                hint="--port 0 takes any free one",
            ) from error
        port = listener.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://{_bracketed(options.host)}:{port}"
        return listener

    async def _close_doors(
        self, doors: Doors, yard: Yard, listener: asyncio.Server, grpc_door: Any, batchers: dict[str, Batcher]
    ) -> None:
        """End: not ready, then closed to new clients, then finished with those that are there."""
        assert self._hurry is not None
        doors.is_ready = False
        self._log.info("ending: not ready any more; requests under way are answered")
        await _either(self._hurry, self._linger_s)
        listener.close()
        yard.close_idle()
        ends = time.monotonic() + float(self._options.drain)
        stopping = asyncio.create_task(grpc_door.stop(float(self._options.drain))) if grpc_door else None
        while any(batcher.in_flight for batcher in batchers.values()) or yard.connections:
            if self._hurry.is_set() or time.monotonic() > ends:
                break
            await _either(self._hurry, 0.01)
        for batcher in batchers.values():
            batcher.abandon()
        if stopping is not None:
            if self._hurry.is_set():
                await grpc_door.stop(0)
            await stopping


async def _either(event: asyncio.Event, wait_s: float) -> None:
    """Wait for a time, or until the event."""
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return


async def _tick(yard: Yard) -> None:
    while True:
        await asyncio.sleep(1.0)
        yard.tick()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refuse_plain_text(options: ServeOptions) -> None:
    address = Address(text="", scheme="http+listen", host=options.host)
    try:
        refuse_plain_text(address, options.insecure, where="--host")
    except SpecError as error:
        error.hint = "give --certificate and --key, or --insecure if you accept that"
        raise


def _tls(options: ServeOptions) -> ssl.SSLContext | None:
    """Return what TLS needs, ``None`` for plain text; raises ``SpecError`` for files that cannot be used."""
    if bool(options.certificate) != bool(options.key):
        raise SpecError("TLS takes a certificate and its key", expected="--certificate and --key, or none of them")
    if options.certificate is None or options.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(
            f"the certificate cannot be used: {error}", where=str(options.certificate), expected="files in PEM"
        ) from error
    return context


def _reason(error: Exception) -> str:
    """Return the system's own words: asyncio wraps them into a sentence with the address in it once more."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else str(error)
