"""The doors: what each path and method answers, in the form of the protocol that it belongs to."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

import msgspec

from skerry import __version__
from skerry.run.openmetrics import CONTENT_TYPE, process_load
from skerry.run.serve import embeddings, inference, tally
from skerry.run.serve.batcher import Batcher
from skerry.run.serve.connection import Cancellable, Reply, Request
from skerry.run.serve.inference import JSON, VERSION
from skerry.run.serve.job import Job
from skerry.run.serve.options import ServeOptions
from skerry.run.serve.refusal import Refusal, refusal_of
from skerry.run.serve.servable import Servable

EXTENSIONS = ("binary_tensor_data",)
LARGE = 1 << 20
"""Bytes from which on reading and writing are done in another thread, so that others are answered meanwhile."""
Handler = Callable[[Request, Reply], Cancellable | None]
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Doors:
    """The application of a server: all its paths.

    Parameters
    ----------
    batchers:
        The models, by name.
    options:
        The limits.
    """

    def __init__(self, batchers: Mapping[str, Batcher], options: ServeOptions) -> None:
        self.is_ready = False
        self.connections: Callable[[], int] = lambda: 0
        self.refused: dict[int, int] = {}
        """Requests that met no model, by status."""
        self._batchers = dict(batchers)
        self._options = options
        self._created = int(time.time())
        self._routes: dict[bytes, dict[bytes, Handler]] = {}
        self._add_server()
        for batcher in self._batchers.values():
            self._add_model(batcher)

    def handle(self, request: Request, reply: Reply) -> Cancellable | None:
        """Answer a request now or later; every failure becomes an answer."""
        try:
            return self._route(request)(request, reply)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one request must not end the server
            self.refuse(request.target, refusal_of(error), reply)
            return None

    def refuse(self, target: bytes, refusal: Refusal, reply: Reply) -> None:
        """Answer a request that met no model."""
        self.refused[refusal.status] = self.refused.get(refusal.status, 0) + 1
        _refuse(refusal, reply, openai=target.startswith(b"/v1/"))

    def _route(self, request: Request) -> Handler:
        """Return what answers a request; raises ``Refusal``."""
        path = request.target.partition(b"?")[0]
        if not path.startswith(b"/"):  # the whole URL, as it is sent through a proxy
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        methods = self._routes.get(path) or self._routes.get(unquote_to_bytes(path))
        if methods is None:
            raise Refusal(404, self._unknown(unquote_to_bytes(path).decode("utf-8", "replace")))
        handler = methods.get(request.method)
        if handler is None:
            if request.method == b"HEAD" and b"GET" in methods:
                return partial(_without_body, methods[b"GET"])
            allow = ", ".join(method.decode() for method in methods)
            raise Refusal(405, f"{request.method.decode()} is not taken here, only {allow}", allow=allow)
        return handler

    def _unknown(self, path: str) -> str:
        parts = path.split("/")
        known = ", ".join(self._batchers)
        if path.startswith("/v2/models/"):
            if parts[3] not in self._batchers:
                return f"there is no model {parts[3]!r}; there is {known}"
            if len(parts) > 5 and parts[4] == "versions" and parts[5] != VERSION:
                return f"{parts[3]} has no version {parts[5]!r}; it has {VERSION}"
        if path.startswith("/v1/models/"):
            return f"there is no model {path.removeprefix('/v1/models/')!r}; there is {known}"
        return f"there is nothing at {path}"

    def _add_server(self) -> None:
        get: dict[bytes, Handler] = {
            b"/healthz": partial(_say, b"ok\n"),
            b"/v2/health/live": partial(_say_json, _encode({"live": True})),
            b"/v2/health/ready": self._say_ready,
            b"/v2": self._say_server,
            b"/v2/": self._say_server,
            b"/metrics": self._say_metrics,
            b"/v1/models": self._say_models,
        }
        self._routes |= {path: {b"GET": handler} for path, handler in get.items()}
        self._routes[b"/v1/embeddings"] = {b"POST": self._embed}

    def _add_model(self, batcher: Batcher) -> None:
        name = batcher.servable.name
        metadata = _encode(inference.describe_model(batcher.servable))
        openai = _encode(embeddings.describe_model(name, self._created))
        for word in {name, quote(name, safe="")}:
            self._routes[f"/v1/models/{word}".encode()] = {b"GET": partial(_say_json, openai)}
            for base in (f"/v2/models/{word}", f"/v2/models/{word}/versions/{VERSION}"):
                root = base.encode()
                self._routes[root] = {b"GET": partial(_say_json, metadata)}
                self._routes[root + b"/ready"] = {b"GET": partial(self._say_ready, name=name)}
                self._routes[root + b"/infer"] = {b"POST": partial(self._infer, batcher)}

    # What is said of the server.

    def _say_ready(self, request: Request, reply: Reply, name: str = "") -> None:
        words: dict[str, Any] = {"name": name} if name else {}
        reply(200 if self.is_ready else 503, JSON, _encode({**words, "ready": self.is_ready}))

    def _say_server(self, request: Request, reply: Reply) -> None:
        reply(200, JSON, _encode({"name": "skerry", "version": __version__, "extensions": EXTENSIONS}))

    def _say_models(self, request: Request, reply: Reply) -> None:
        data = [embeddings.describe_model(name, self._created) for name in self._batchers]
        reply(200, JSON, _encode({"object": "list", "data": data}))

    def _say_metrics(self, request: Request, reply: Reply) -> None:
        text = tally.render(
            {name: batcher.tally for name, batcher in self._batchers.items()},
            {name: batcher.gauges() for name, batcher in self._batchers.items()},
            ready=self.is_ready, connections=self.connections(), refused=self.refused, process=process_load(),
        )  # fmt: skip
        reply(200, CONTENT_TYPE.encode(), text.encode())

    # What is asked of models.

    def _infer(self, batcher: Batcher, request: Request, reply: Reply) -> Cancellable:
        exchange = Exchange(batcher, "oip", request.received, reply)
        _require_type(request, (b"application/json", b"application/octet-stream"))
        servable = batcher.servable

        def read() -> inference.Question:
            body = _unpacked(request, int(self._options.max_body))
            length = request.headers.get(b"inference-header-content-length")
            return inference.read_request(servable, body, length, finite=self._options.finite)

        def submit(question: inference.Question) -> None:
            deadline = deadline_of(request, question.timeout_s)
            exchange.submit(
                question.inputs,
                frozenset(question.outputs),
                lambda job: inference.write_answer(servable, question, job.outputs),
                deadline,
            )

        exchange.read(len(request.body), read, submit)
        return exchange

    def _embed(self, request: Request, reply: Reply) -> Cancellable:
        _require_type(request, (b"application/json",))

        def read() -> embeddings.EmbeddingsRequest:
            return embeddings.read_request(_unpacked(request, int(self._options.max_body)))

        question = read()
        batcher = self._batchers.get(question.model)
        if batcher is None:
            raise Refusal(404, f"there is no model {question.model!r}; there is {', '.join(self._batchers)}")
        servable = batcher.servable
        if not servable.takes_text:
            raise Refusal(400, f"{question.model} is no model of texts: ask it at /v2/models/{question.model}/infer")
        exchange = Exchange(batcher, "openai", request.received, reply)

        def submit(asked: embeddings.EmbeddingsRequest) -> None:
            exchange.submit(
                embeddings.inputs_of(asked, _dimension(servable)),
                embeddings.WANTED,
                lambda job: (JSON, embeddings.write_answer(asked, job.outputs), b""),
                deadline_of(request, 0.0),
            )

        exchange.read(0, lambda: question, submit)
        return exchange


class Exchange:
    """One request to a model and its answer, counted once.

    Parameters
    ----------
    door:
        ``oip`` or ``openai``: the form of its errors, and a label of its counters.
    """

    def __init__(self, batcher: Batcher, door: str, received: float, reply: Reply) -> None:
        self._batcher = batcher
        self._door = door
        self._received = received
        self._reply = reply
        self._write: Callable[[Job], tuple[bytes, bytes, bytes]] | None = None
        self._job: Job | None = None
        self._has_left = False

    def read(self, size: int, read: Callable[[], T], submit: Callable[[T], None]) -> None:
        """Read a request, a large one in another thread, and submit it."""

        def then(result: Callable[[], T]) -> None:
            try:
                question = result()
                if not self._has_left:
                    submit(question)
            except Exception as error:  # noqa: BLE001 - becomes the answer of this request
                self._refuse(refusal_of(error))

        if size <= LARGE:
            then(read)
        else:
            reading = asyncio.get_running_loop().run_in_executor(None, read)
            reading.add_done_callback(lambda found: then(found.result))

    def cancel(self) -> None:
        """Forget the request: its client has left."""
        self._has_left = True
        job, self._job = self._job, None
        if job is not None:
            job.cancel()

    def submit(
        self,
        inputs: Mapping[str, Any],
        wanted: frozenset[str],
        write: Callable[[Job], tuple[bytes, bytes, bytes]],
        deadline: float,
    ) -> None:
        """Queue a request; ``write`` makes its answer's content type, body and headers."""
        self._write = write
        job = Job(inputs, wanted, self._received, self._done, deadline)
        self._batcher.submit(job)
        self._job = job

    def _done(self, job: Job) -> None:
        self._job = None
        if job.refusal is not None:
            self._refuse(job.refusal)
        elif sum(array.nbytes for array in job.outputs.values()) <= LARGE:
            self._answer(job)
        else:
            asyncio.get_running_loop().run_in_executor(None, self._written, job).add_done_callback(
                lambda found: self._send(found.result())
            )

    def _answer(self, job: Job) -> None:
        self._send(self._written(job))

    def _written(self, job: Job) -> tuple[bytes, bytes, bytes] | Refusal:
        assert self._write is not None
        try:
            return self._write(job)
        except Exception as error:  # noqa: BLE001 - becomes the answer of this request
            return refusal_of(error)

    def _send(self, written: tuple[bytes, bytes, bytes] | Refusal) -> None:
        if isinstance(written, Refusal):
            self._refuse(written)
            return
        content_type, body, headers = written
        self._batcher.tally.count(self._door, 200, time.monotonic() - self._received)
        self._reply(200, content_type, body, headers)

    def _refuse(self, refusal: Refusal) -> None:
        self._batcher.tally.count(self._door, refusal.status, time.monotonic() - self._received)
        _refuse(refusal, self._reply, openai=self._door == "openai")


def deadline_of(request: Request, timeout_s: float) -> float:
    """Return when nobody wants the answer any more, on the monotonic clock; 0 for never. Raises ``Refusal``."""
    limits = [timeout_s] if timeout_s else []
    value = request.headers.get(b"skerry-deadline-ms")
    if value is not None:
        try:
            wait_s = float(value) / 1e3
        except ValueError:
            wait_s = -1.0
        if not 0 <= wait_s < 1e6:
            raise Refusal(400, f"Skerry-Deadline-Ms is {value.decode('latin-1')!r}; it is milliseconds from now on")
        limits.append(wait_s)
    return request.received + min(limits) if limits else 0.0


def _refuse(refusal: Refusal, reply: Reply, *, openai: bool) -> None:
    body = embeddings.write_refusal(refusal) if openai else _encode({"error": refusal.message})
    headers = b""
    if refusal.retry_after_s is not None:
        headers += b"retry-after: %d\r\n" % refusal.retry_after_s
    if refusal.allow:
        headers += b"allow: %b\r\n" % refusal.allow.encode()
    reply(refusal.status, JSON, body, headers)


def _require_type(request: Request, types: Sequence[bytes]) -> None:
    """Raise ``Refusal`` for a body of another type; one that says nothing is taken for JSON."""
    given = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if given and given not in types:
        raise Refusal(415, f"the content type is {given.decode('latin-1')!r}; expected {b' or '.join(types).decode()}")


def _unpacked(request: Request, limit: int) -> bytes:
    """Return a request's body, unpacked; raises ``Refusal`` for damage and for what is too large."""
    encoding = request.headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return request.body
    if encoding not in (b"gzip", b"deflate"):
        raise Refusal(415, f"the content encoding is {encoding.decode('latin-1')!r}; expected gzip or deflate")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == b"gzip" else 0))
    try:
        body = unpacker.decompress(request.body, limit + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is no {encoding.decode()}: {error}") from None
    if len(body) > limit:
        raise Refusal(413, f"the body unpacks to more than the {limit} bytes that are taken")
    if not unpacker.eof:
        raise Refusal(400, f"the body is cut short: its {encoding.decode()} has no end")
    return body


def _dimension(servable: Servable) -> int:
    size = servable.outputs[0].shape[-1]
    return size if isinstance(size, int) else 0


def _say(text: bytes, request: Request, reply: Reply) -> None:
    reply(200, b"text/plain; charset=utf-8", text)


def _say_json(body: bytes, request: Request, reply: Reply) -> None:
    reply(200, JSON, body)


def _without_body(handler: Handler, request: Request, reply: Reply) -> None:
    """Answer HEAD as GET, without the body."""
    handler(request, lambda status, content_type, body, headers=b"": reply(status, content_type, b"", headers))
