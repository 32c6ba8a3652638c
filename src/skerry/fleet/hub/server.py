"""The server: a hub from its folder to its port, started and ended as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from skerry.fleet.hub.access import Access
from skerry.fleet.hub.answers import HUB_HEADER
from skerry.fleet.hub.connection import protocol_class
from skerry.fleet.hub.egress.making import make_outlets
from skerry.fleet.hub.ingest import Effect, Ingest
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.parts import CommitBell, Parts
from skerry.fleet.hub.retention import Retention
from skerry.fleet.hub.store import Store
from skerry.fleet.hub.transports.carrier import Carrier, keep_carrying, make_carriers
from skerry.spec.address import is_loopback
from skerry.spec.errors import DependencyError, HubError, UsageError

if TYPE_CHECKING:
    from skerry.trust.authority import Authority

END_S = 5
"""Seconds that requests under way get at the end; devices send again what was not answered."""
TIDY_S = 3600.0
"""How often the hub looks after its own certificate, which lasts for months, old records, and uploads given up."""
FILES = 512
"""Files beside the connections: the store, blobs under way, brokers."""
_log = logging.getLogger("skerry.hub")


class HubSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is started with.

    Parameters
    ----------
    data:
        The folder for the store and the blobs.
    host, port:
        Where to listen; port 0 takes any free one.
    database:
        ``postgresql://…`` instead of SQLite in the folder.
    authority:
        The folder of the fleet's authority; needed to listen beyond loopback.
    names:
        Host names and addresses by which devices reach the hub, for its certificate.
    egress, transports:
        URIs of where records go on to, and of brokers that bring batches.
    options:
        Limits.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8470
    database: str = ""
    authority: Path | None = None
    names: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    transports: tuple[str, ...] = ()
    options: HubOptions = HubOptions()


class Hub:
    """A running hub: ``start`` returns once it listens, ``close`` once everything that was accepted is done.

    Parameters
    ----------
    setup:
        What to start.
    effects:
        What records do to the hub beyond being stored.

    Raises
    ------
    UsageError
        It would listen beyond loopback without an authority.
    """

    def __init__(
        self, setup: HubSetup, *, effects: Sequence[Effect] = (), clock: Callable[[], float] = time.time
    ) -> None:
        if setup.authority is None and not is_loopback(setup.host):
            raise UsageError(
                f"a hub on {setup.host} needs an authority: anybody could send otherwise",
                expected="--authority FOLDER, or an address of loopback", hint="`skerry keys init` makes one",
            )  # fmt: skip
        self._setup, self._effects, self._clock = setup, effects, clock
        self._stack = contextlib.ExitStack()
        self._thread: threading.Thread | None = None
        self._server: Any = None
        self._bell: CommitBell | None = None
        self._trouble: BaseException | None = None
        self._listening = threading.Event()
        self.port = 0
        """The port that it listens on, from ``start`` on."""

    @property
    def url(self) -> str:
        """The address of the hub."""
        scheme = "http" if self._setup.authority is None else "https"
        host = f"[{self._setup.host}]" if ":" in self._setup.host else self._setup.host
        return f"{scheme}://{host}:{self.port}"

    def start(self) -> None:
        """Open the store and listen.

        Raises ``HubError`` when the folder or the store cannot be used, ``UsageError`` when the port cannot be taken.
        """
        _allow_files(self._setup.options.connections)
        with contextlib.ExitStack() as stack:
            parts, context, carriers = self._open(stack)
            listener = _listen(self._setup.host, self._setup.port)
            stack.callback(listener.close)
            self.port = listener.getsockname()[1]
            self._server, self._bell = self._make_server(parts, context), parts.bell
            self._thread = threading.Thread(
                target=self._serve, args=(parts, listener, context, carriers), name="skerry-hub", daemon=True
            )
            self._thread.start()
            self._stack = stack.pop_all()
        self._listening.wait()
        if self._trouble is not None:
            self.close()
            raise HubError(f"the hub did not start: {self._trouble}") from self._trouble

    @property
    def alive(self) -> bool:
        """Whether the server still works."""
        return self._thread is not None and self._thread.is_alive()

    def raise_trouble(self) -> None:
        """Raise ``HubError`` when the server ended by itself."""
        if self._trouble is not None:
            raise HubError(f"the hub ended: {self._trouble}") from self._trouble

    def close(self) -> None:
        """Stop listening, let what is under way end, then close the store; safe to call twice."""
        if self._bell is not None:
            self._bell.end()  # live streams leave before the server waits for them
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stack.close()

    def _open(self, stack: contextlib.ExitStack) -> tuple[Parts, ssl.SSLContext | None, list[Carrier]]:
        setup = self._setup
        stack.enter_context(_held(setup.data))
        store = open_store(setup.data, setup.database)
        stack.callback(store.close)
        authority, context = self._authority()
        access = Access(authority, self._clock)
        parts = Parts(
            setup.data, store, access, setup.options, Ingest(self._effects, setup.options.wire), clock=self._clock
        )
        stack.callback(parts.writer.close)
        outlets = make_outlets(setup.egress, store, parts.writer)
        carriers = make_carriers(setup.transports, parts)
        for outlet in outlets:
            outlet.start()
            stack.callback(outlet.close)
        # These come first at the end: all are told at once, so that several that are stuck take no longer than one.
        for outlet in outlets:
            stack.callback(outlet.end)
        parts.outlets.extend(outlets)
        parts.bell.listeners.extend(outlet.ring for outlet in outlets)
        return parts, context, carriers

    def _authority(self) -> tuple[Authority | None, ssl.SSLContext | None]:
        if self._setup.authority is None:
            return None, None
        from skerry.trust.authority import Authority
        from skerry.trust.tls import server_context

        authority = Authority.load(self._setup.authority)
        return authority, server_context(authority, self._setup.names or (self._setup.host,), now=self._clock())

    def _make_server(self, parts: Parts, context: ssl.SSLContext | None) -> Any:
        try:
            import uvicorn
        except ImportError as error:
            raise DependencyError("a hub needs the package uvicorn", hint="pip install 'skerry[hub]'") from error
        from skerry.fleet.hub.application import HubApp

        strangers = max(16, self._setup.options.connections // 4)
        config = uvicorn.Config(
            HubApp(parts), http=protocol_class(strangers), lifespan="off", ws="none", loop="asyncio", interface="asgi3",
            log_config=None, access_log=False, log_level="error", server_header=False, proxy_headers=False,
            headers=[HUB_HEADER], limit_concurrency=self._setup.options.connections,
            timeout_graceful_shutdown=END_S, timeout_keep_alive=int(self._setup.options.keep_alive),
        )  # fmt: skip
        config.load()
        config.ssl = context
        return uvicorn.Server(config)

    def _serve(
        self, parts: Parts, listener: socket.socket, context: ssl.SSLContext | None, carriers: Sequence[Carrier]
    ) -> None:
        try:
            asyncio.run(self._run(parts, listener, context, carriers))
        except BaseException as error:  # noqa: BLE001 - told to whoever started the hub, or to the log
            self._trouble = error
            _log.error("the hub ended: %s", error)
        finally:
            self._listening.set()

    async def _run(
        self, parts: Parts, listener: socket.socket, context: ssl.SSLContext | None, carriers: Sequence[Carrier]
    ) -> None:
        parts.bell.attach(asyncio.get_running_loop())
        chores = [asyncio.create_task(keep_carrying(carrier)) for carrier in carriers]
        chores.append(asyncio.create_task(self._tidy(parts, context)))
        self._listening.set()
        try:
            await self._server.serve(sockets=[listener])
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)

    async def _tidy(self, parts: Parts, context: ssl.SSLContext | None) -> None:
        """Do the chores every hour. One that fails holds up no other, and is done again the next time."""
        retention = Retention(parts.store, parts.writer, parts.options, parts.counts, lambda: parts.bell.ended)
        chores: dict[str, Callable[[], Awaitable[object]]] = {
            "the renewal of the hub's certificate": lambda: self._refresh(parts, context),
            "the removal of unfinished uploads": lambda: asyncio.to_thread(parts.blobs.sweep, self._clock()),
            "the removal of old records": lambda: asyncio.to_thread(retention.tidy, self._clock()),
        }
        while True:
            for name, chore in chores.items():
                try:
                    await chore()
                except Exception as error:  # noqa: BLE001 - a full disk or a fault: a hub without chores ends in months
                    _log.warning("%s failed: %s; it is tried again in an hour", name, error)
            await asyncio.sleep(TIDY_S)

    async def _refresh(self, parts: Parts, context: ssl.SSLContext | None) -> None:
        """Give new connections the certificate of today; in the loop, for it also makes the connections."""
        from skerry.trust.tls import refresh_server_context

        if context is not None and parts.access.authority is not None:
            names = self._setup.names or (self._setup.host,)
            refresh_server_context(context, parts.access.authority, names, now=self._clock())


def _allow_files(connections: int) -> None:
    """Raise the soft limit of open files to what the connections need, as far as the hard one allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_store(data: Path, database: str) -> Store:
    """Open the store of a hub: SQLite in its folder, or the PostgreSQL that is named."""
    if not database:
        from skerry.fleet.hub.sqlite_store import SqliteStore

        return SqliteStore(data / "hub.db")
    if not database.startswith(("postgresql://", "postgres://")):
        raise UsageError(f"{database.partition(':')[0]!r} is no database of a hub", expected="postgresql://…")
    from skerry.fleet.hub.postgresql_store import PostgresqlStore

    return PostgresqlStore(database)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder against a second hub; the lock ends with the process."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(folder / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HubError(f"the hub's folder cannot be used: {error.strerror}", where=str(folder)) from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise HubError("another hub works in this folder", where=str(folder)) from error
    finally:
        os.close(number)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named so that asyncio sends at once (TCP_NODELAY).
        listener = socket.socket(family[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise UsageError(f"{host!r} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(family[4])
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error}", expected="a free port of this machine") from error
    return listener
