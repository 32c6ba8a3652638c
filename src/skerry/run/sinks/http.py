"""HTTP: batches of records posted to a server."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlencode

import msgspec

from skerry.run.cloudevents import BATCH_TYPE, cloud_event
from skerry.run.encoding import Encoder
from skerry.run.http_client import HttpClient, Reply, request_headers
from skerry.spec.address import refuse_plain_text
from skerry.spec.errors import SinkError, SinkFullError, SinkUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Options
from skerry.spec.record import Record
from skerry.spec.units import Duration

_CONTENT_TYPES = {"json": "application/json", "ndjson": "application/x-ndjson", "cloudevents": BATCH_TYPE}


class HttpOptions(Options, frozen=True, kw_only=True):
    """What is posted, as whom, and how long it may take.

    Parameters
    ----------
    format:
        ``json`` for one array of objects, ``ndjson`` for one object per line, ``cloudevents`` for a CloudEvents batch.
    method:
        ``POST`` (default), ``PUT`` or ``PATCH``.
    query:
        The query of the request; options stand where a URI has its query, so it is given here.
    headers:
        More headers.
    token_env:
        The environment variable that holds a bearer token; secrets do not belong into a pipeline file.
    timeout:
        How long one request may take; default 10 s, what a slow link needs for a batch.
    connect_timeout:
        How much of it the connection may take; default 3 s, since a server that is there answers at once.
    gzip:
        Whether the body is compressed; default no, because not every server takes it.
    ca, certificate, key:
        PEM files, relative to the pipeline file: whom to believe instead of the system's authorities, and who we are.
    event_type, event_source:
        ``type`` and ``source`` of the CloudEvents.
    array_items:
        The largest array that is written out, in numbers; default 1024, so that an embedding is sent.
    """

    format: Literal["json", "ndjson", "cloudevents"] = "json"
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    query: dict[str, str] = msgspec.field(default_factory=dict)
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    token_env: str | None = None
    timeout: Duration = Duration(10.0)
    connect_timeout: Duration = Duration(3.0)
    gzip: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    event_type: str = "io.skerry.record"
    event_source: str = "/skerry"
    array_items: int = 1024


class HttpSink:
    """Posts each write as one request; a 2xx answer is the receipt, so a flush has nothing left to do.

    408, 425, 429, 5xx and a connection that fails may pass (``SinkUnavailableError``), 507 is a full disk over there
    (``SinkFullError``); any other answer will not get better by itself (``SinkError``).
    """

    Options: ClassVar[type[HttpOptions]] = HttpOptions
    blocking: ClassVar[bool] = True

    def __init__(self, address: Address, options: HttpOptions) -> None:
        if address.username or address.password:
            raise SpecError(
                "a password does not belong into an address",
                where=f"{address.scheme}://{address.host}",
                expected="`token_env`, or an Authorization header",
            )
        self._address, self._options = address, options
        self._encoder = Encoder(options.array_items)
        self._url = _url(address, options.query)
        self._headers: dict[str, str] = msgspec.field(default_factory=dict)
        self._client: HttpClient | None = None

    def open(self, context: Context) -> None:
        """Get ready, without a request.

        Raises ``SpecError`` for plain text beyond loopback, a missing token or certificate, ``DependencyError``
        without urllib3.
        """
        self.close()
        refuse_plain_text(self._address, context.insecure, where=context.name)
        options = self._options
        self._headers = request_headers(
            options.headers,
            content_type=_CONTENT_TYPES[options.format],
            token_env=options.token_env,
            gzip=options.gzip,
            where=context.name,
        )
        self._client = HttpClient(
            timeout_s=options.timeout,
            connect_timeout_s=options.connect_timeout,
            ca=_file(context.home, options.ca),
            certificate=_file(context.home, options.certificate),
            key=_file(context.home, options.key),
        )

    def write(self, records: Sequence[Record]) -> None:
        """Post the records.

        Raises ``SinkUnavailableError`` for what may pass, ``SinkFullError`` for 507, ``SinkError`` for the rest. When
        the connection breaks after the server took the records, they are sent again: at least once, not exactly once.
        """
        if self._client is None:
            raise SinkUnavailableError(f"{self._url} is not open")
        if not records:
            return
        body = self._body(records)
        if self._options.gzip:
            body = gzip.compress(body, compresslevel=6, mtime=0)
        try:
            reply = self._client.send(self._options.method, self._url, body, self._headers)
        except OSError as error:
            raise SinkUnavailableError(f"{self._url} cannot be reached: {error}") from error
        if not reply.is_success:
            raise _refusal(self._url, reply)

    def _body(self, records: Sequence[Record]) -> bytes:
        if self._options.format == "ndjson":
            return self._encoder.encode_lines([record.fields for record in records])
        if self._options.format == "json":
            return b"[" + b",".join(self._encoder.encode(record.fields) for record in records) + b"]"
        return b"[" + b",".join(self._encoder.encode(self._event(record)) for record in records) + b"]"

    def _event(self, record: Record) -> dict[str, Any]:
        options = self._options
        return cloud_event(record, record.fields, self._encoder, kind=options.event_type, source=options.event_source)

    def flush(self) -> None:
        """Do nothing more: the server has answered for what was written."""
        if self._client is None:
            raise SinkUnavailableError(f"{self._url} is not open")

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _url(address: Address, query: dict[str, str]) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = f":{address.port}" if address.port is not None else ""
    path = quote(address.path or "/", safe="/:@!$&'()*+,;=~-._")
    return f"{address.scheme}://{host}{port}{path}" + (f"?{urlencode(query)}" if query else "")


def _file(home: Path, name: str | None) -> Path | None:
    return None if name is None else home / name


def _refusal(url: str, reply: Reply) -> SinkError:
    message = f"{url} answered {reply.status}" + (f": {reply.excerpt()}" if reply.body else "")
    if reply.status == 507:
        return SinkFullError(message)
    if reply.may_pass:
        return SinkUnavailableError(message)
    hints = {401: "check the token", 403: "check the token", 404: "check the path", 413: "make the queue smaller"}
    return SinkError(message, hint=hints.get(reply.status, ""))
