"""The http source: a small server that takes items by POST and says at once whether it took them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
import ssl
import threading
import uuid
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.sources.bodies import Refusal, items_of
from skerry.run.sources.delivery import is_of_session
from skerry.spec.address import refuse_plain_text
from skerry.spec.errors import DependencyError, SourceError, SourceUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Emit, Fields, Options, Stop
from skerry.spec.units import Duration, Size

Scope = dict[str, Any]
CLOSE_S = 5.0
"""Seconds that the server's thread may take to end; it is asked to after one."""


class HttpOptions(Options, frozen=True, kw_only=True):
    """Who may send, and how much.

    Parameters
    ----------
    token:
        Asks for ``Authorization: Bearer TOKEN``; anybody may send without it.
    token_env:
        The environment variable that holds the token, so that the pipeline file does not.
    max_body:
        The most bytes of one request, which bounds the memory of one; 10 MB is a large batch.
    answer:
        When to answer: ``accepted`` as soon as the pipeline has taken the items, ``settled`` only when every sink has
        made them durable, which takes up to the pipeline's ``sync`` and holds the connection for so long.
    retry_after:
        What a sender is told to wait when the pipeline is full; a second empties most queues.
    patience:
        How long a sender may take for its body, so that slow ones cannot hold every connection; and how long it waits
        at the most for ``settled``.
    connections:
        How many connections may be open at once; further ones are answered 503.
    cert, key:
        Files in PEM, for ``https+listen``.
    client_ca:
        A file in PEM: senders have to show a certificate that it signed.
    """

    token: str | None = None
    token_env: str | None = None
    max_body: Size = Size(10e6)
    answer: Literal["accepted", "settled"] = "accepted"
    retry_after: Duration = Duration(1.0)
    patience: Duration = Duration(30.0)
    connections: int = 256
    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None


class HttpSource:
    """``http+listen://127.0.0.1:8080/path``: every POST to the path brings one or more items.

    Answers 202 with ``{"accepted": n}`` once the pipeline has taken them, and 503 with ``Retry-After`` when it is
    full; every refusal is a problem of RFC 9457. ``GET /healthz`` answers 200. There is no position to resume at: a
    sender keeps what was not accepted, or with ``answer: settled`` what was not settled.
    """

    Options: ClassVar[type[Options]] = HttpOptions
    live: ClassVar[bool] = True

    def __init__(self, address: Address, options: HttpOptions) -> None:
        if (address.scheme == "https+listen") != bool(options.cert and options.key):
            raise SpecError(
                f"{address.text!r} does not go with its certificate",
                expected="https+listen with both cert and key, or http+listen without them",
            )
        self._address = address
        self._options = options
        self._socket: socket.socket | None = None
        self._emit: Emit | None = None
        self._server: Any = None
        self._settlements = Settlements()
        self.bound_port = 0
        """The port that it listens on, from ``open`` on; the system chooses it for port 0."""

    def open(self, context: Context, position: Any | None) -> None:
        """Take the port.

        Raises ``SourceUnavailableError`` when it is in use, ``SpecError`` for a plain port open to others, a bad
        certificate or an empty ``token_env``, ``DependencyError`` without uvicorn.
        """
        self.close()
        refuse_plain_text(self._address, context.insecure)
        self._settlements = Settlements()
        self._log = context.log
        self._token = self._read_token()
        self._server = self._make_server(context.home)
        try:
            self._socket = _listen(self._address.host, self._address.port or 0)
        except OSError as error:
            raise SourceUnavailableError(
                f"cannot listen on {self._address.host}:{self._address.port}: {error.strerror or error}",
                expected="a free port of this machine",
            ) from error
        self.bound_port = self._socket.getsockname()[1]
        self._log.info("listening on %s port %d", self._address.host, self.bound_port)

    def run(self, emit: Emit, stop: Stop) -> None:
        """Serve until the run ends; raises ``SourceError`` when the server ends by itself."""
        assert self._socket is not None, "open comes first"
        self._emit = emit
        ended = threading.Event()
        thread = threading.Thread(target=self._serve, args=(ended,), name=f"http-{self.bound_port}", daemon=True)
        thread.start()
        try:
            while not stop.wait(0.25):
                if ended.is_set():
                    raise SourceError(f"the server on port {self.bound_port} ended by itself")
        finally:
            self._emit = None
            self._server.should_exit = True
            thread.join(CLOSE_S)

    def commit(self, position: Any) -> None:
        """Answer the senders that wait for everything up to ``position`` to be settled."""
        # Items of an earlier session had other senders, who are gone.
        if is_of_session(position, self._settlements.session):
            self._settlements.settle(position["item"])

    def close(self) -> None:
        """Give the port back; safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _serve(self, ended: threading.Event) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            ended.set()

    def _read_token(self) -> bytes | None:
        name = self._options.token_env
        token = os.environ.get(name) if name else self._options.token
        if (name and not token) or token == "":
            raise SpecError(f"the token is empty ({name or 'token'})", hint="set it, or anybody could send")
        return token.encode() if token else None

    def _make_server(self, home: Path) -> Any:
        try:
            import uvicorn
        except ImportError as error:
            raise DependencyError("http+listen needs the package uvicorn", hint="pip install 'skerry[http]'") from error
        options = self._options
        settings: dict[str, Any] = {}
        if options.cert and options.key:
            settings = {"ssl_certfile": home / options.cert, "ssl_keyfile": str(home / options.key)}
        if options.client_ca:
            settings |= {"ssl_ca_certs": str(home / options.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        config = uvicorn.Config(
            self._answer, lifespan="off", ws="none", loop="asyncio", interface="asgi3", log_config=None,
            access_log=False, log_level="error", server_header=False, proxy_headers=False,
            limit_concurrency=options.connections,            timeout_graceful_shutdown=1, **settings,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise SpecError(f"the certificate cannot be used: {error}", expected="cert and key files in PEM") from error
        return uvicorn.Server(config)

    async def _answer(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request; this is the ASGI application."""
        try:
            status, body, headers = await self._respond(scope, receive)
        except Refusal as refusal:
            status, headers = refusal.status, {"content-type": "application/problem+json", **refusal.headers}
            body = refusal.problem()
        content = msgspec.json.encode(body)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        raw.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    async def _respond(self, scope: Scope, receive: Any) -> tuple[int, Fields, dict[str, str]]:
        json = {"content-type": "application/json"}
        path, method = scope["path"], scope["method"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if path == "/healthz" and method in {"GET", "HEAD"}:
            return 200, {"status": "ok"}, json
        if path != (self._address.path or "/"):
            raise Refusal(404, f"nothing is taken at {path}")
        if method != "POST":
            raise Refusal(405, f"{method} is not taken, only POST", headers={"allow": "POST"})
        self._check_token(headers)
        body = await self._read_body(headers, receive)
        # A large body is read in a thread of its own, so that others are answered meanwhile.
        items = items_of(headers, body) if len(body) < 1 << 20 else await asyncio.to_thread(items_of, headers, body)
        last = self._take(items)
        if self._options.answer == "accepted":
            return 202, {"accepted": len(items)}, json
        if not await self._settlements.wait(last, self._options.patience):
            raise Refusal(504, f"{len(items)} items were accepted, but not settled in time")
        return 200, {"accepted": len(items), "settled": True}, json

    def _check_token(self, headers: dict[str, str]) -> None:
        if self._token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            raise Refusal(401, "the right token is asked for", headers={"www-authenticate": "Bearer"})

    async def _read_body(self, headers: dict[str, str], receive: Any) -> bytes:
        limit = int(self._options.max_body)
        too_large = Refusal(413, f"more than the {limit} bytes that are taken at once", headers={"connection": "close"})
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._options.patience):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the sender left before its body ended")
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise Refusal(408, "the body did not come in time", headers={"connection": "close"}) from None

    def _take(self, items: list[tuple[Fields, int]]) -> int:
        """Hand over the items and return the number of the last.

        One that is refused ends it, and the sender is told how many were taken.
        """
        emit = self._emit
        number, asks = self._settlements.count, self._options.answer == "settled"
        for accepted, (fields, size) in enumerate(items):
            position = {"session": self._settlements.session, "item": number + 1} if asks else None
            if emit is not None and emit(fields, size=size, position=position, wait=False):
                number = self._settlements.count = number + 1
            else:
                wait_s = max(1, round(self._options.retry_after))
                raise Refusal(
                    503, f"the pipeline is full: {accepted} of {len(items)} items were accepted",
                    headers={"retry-after": str(wait_s)}, more={"accepted": accepted},
                )  # fmt: skip
        return number


class Settlements:
    """Who waits for which item to be settled, since one ``open`` of the source.

    Items are numbered by the server's thread; ``settle`` is called by the engine's.
    """

    def __init__(self) -> None:
        self.session = uuid.uuid4().hex[:12]
        self.count = 0
        """How many items were accepted."""
        self._settled = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[tuple[int, asyncio.Event]] = set()

    async def wait(self, number: int, patience_s: float) -> bool:
        """Wait until item ``number`` and all before it are settled; return ``False`` when it takes too long."""
        self._loop = asyncio.get_running_loop()
        waiting = (number, asyncio.Event())
        self._waiting.add(waiting)
        try:
            # Looked at after it was added: a settlement in between would find it.
            if self._settled < number:
                async with asyncio.timeout(patience_s):
                    await waiting[1].wait()
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiting)
        return True

    def settle(self, number: int) -> None:
        """Note that all items up to ``number`` are settled."""
        self._settled = number
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the connections that waited
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for number, event in self._waiting:
            if number <= self._settled:
                event.set()


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; connections made before the server runs wait in its queue."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # The protocol is named because asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP; without
    # it, an answer on a kept connection waits 40 ms for the acknowledgement of its head.
    listener = socket.socket(family[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(family[4])
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
