"""Webhook: a record is sent to a web server as one request."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

import msgspec

from skerry.run.cloudevents import EVENT_TYPE, cloud_event
from skerry.run.encoding import Encoder
from skerry.run.http_client import HttpClient, Reply, request_headers, secret_of
from skerry.run.rate import Gate, gate_of
from skerry.run.template import Template
from skerry.spec.address import parse_address, refuse_plain_text
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record
from skerry.spec.units import Duration, Size

SKIPPED = "webhook_skipped"
"""The field that is true in a record that was not sent, because too many were."""

_NO_BODY = {"GET", "DELETE"}


class WebhookOptions(Options, frozen=True, kw_only=True):
    """Where a record is sent, as what, and how long it may take.

    Parameters
    ----------
    url:
        ``https://…``, or ``http://`` to a loopback address; path and query may hold ``{field}`` placeholders, whose
        values are quoted. The host may not depend on the record.
    method:
        ``POST`` (default), ``PUT``, ``PATCH``, ``GET`` or ``DELETE``; the last two carry no body.
    format:
        ``json`` (default) sends the fields, ``cloudevents`` sends them as one CloudEvent.
    body:
        A template to be sent instead, such as ``"{label}: {text}"``; give its type under ``headers``.
    keep:
        The fields that are sent; default all.
    headers:
        More headers; their values may hold placeholders.
    token_env:
        The environment variable that holds a bearer token; secrets do not belong into a pipeline file.
    secret_env:
        The environment variable that holds a secret to sign with: the signature header gets ``sha256=`` and the HMAC of
        the body in hexadecimal (RFC 2104), so that the receiver knows who sent it.
    signature_header:
        The name of that header; default ``X-Skerry-Signature-256``.
    timeout:
        How long one request may take; default 10 s.
    connect_timeout:
        How much of it the connection may take; default 3 s.
    capture:
        The field that gets the answer as ``{status, body}``, the body parsed where it is JSON; default none.
    max_reply:
        How much of an answer is read; default 1 MiB.
    ca, certificate, key:
        PEM files, relative to the pipeline file: whom to believe instead of the system's authorities, and who we are.
    event_type, event_source:
        ``type`` and ``source`` of the CloudEvents.
    concurrency:
        How many requests run at once at the most, over all workers; default 4.
    at_most, per:
        At most ``at_most`` requests in any ``per``; above, the record goes on unsent with ``webhook_skipped: true``.
        Default no limit (0), 1 min.
    array_items:
        The largest array that is written out, in numbers; default 1024, so that an embedding is sent.
    """

    shorthand: ClassVar[str] = "url"

    url: str
    method: Literal["POST", "PUT", "PATCH", "GET", "DELETE"] = "POST"
    format: Literal["json", "cloudevents"] = "json"
    body: str | None = None
    keep: list[str] | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    token_env: str | None = None
    secret_env: str | None = None
    signature_header: str = "X-Skerry-Signature-256"
    timeout: Duration = Duration(10.0)
    connect_timeout: Duration = Duration(3.0)
    capture: str | None = None
    max_reply: Size = Size(2**20)
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    event_type: str = "io.skerry.record"
    event_source: str = "/skerry"
    concurrency: int = 4
    at_most: int = 0
    per: Duration = Duration(60.0)
    array_items: int = 1024


class WebhookStage:
    """Sends each record; an answer other than 2xx, or none in time, fails the record."""

    Options: ClassVar[type[WebhookOptions]] = WebhookOptions

    def __init__(self, options: WebhookOptions) -> None:
        _check(options)
        self._options = options
        self._url = Template(options.url, where="url")
        self._body = Template(options.body, where="body") if options.body is not None else None
        self._headers = {name: Template(text, where="headers") for name, text in options.headers.items()}
        self._encoder = Encoder(options.array_items)
        self._defaults: dict[str, str] = {}
        self._secret = b""
        self._client: HttpClient | None = None
        self._gate: Gate | None = None

    def open(self, context: Context) -> None:
        """Get ready, without a request.

        Raises ``SpecError`` for plain text beyond loopback, a missing token, secret or certificate,
        ``DependencyError`` without urllib3.
        """
        self.close()
        options = self._options
        address, _ = parse_address(_before_the_path(options.url), where=context.name)
        refuse_plain_text(address, context.insecure, where=context.name)
        kind = "text/plain; charset=utf-8" if self._body is not None else "application/json"
        self._defaults = request_headers(
            {},
            content_type=EVENT_TYPE if options.format == "cloudevents" else kind,
            token_env=options.token_env,
            where=context.name,
        )
        self._secret = secret_of(options.secret_env, where=context.name).encode() if options.secret_env else b""
        self._client = HttpClient(
            timeout_s=options.timeout,
            connect_timeout_s=options.connect_timeout,
            ca=_file(context.home, options.ca),
            certificate=_file(context.home, options.certificate),
            key=_file(context.home, options.key),
            largest_reply=int(options.max_reply),
        )
        self._gate = gate_of(str(context.home), context.name, options.at_most, options.per, options.concurrency)

    def process(self, record: Record) -> Outcome:
        """Send one record.

        Raises ``StageError`` for a missing field, a server that cannot be reached or refuses.
        """
        if self._client is None or self._gate is None:
            raise StageError("webhook is not open")
        url = self._url.fill(record.fields, quote=lambda value: quote(value.encode("utf-8", "replace"), safe=""))
        body = b"" if self._options.method in _NO_BODY else self._content(record)
        headers = self._filled_headers(record.fields, body)
        if not self._gate.rate.allows(time.monotonic()):
            record.fields[SKIPPED] = True
            return record
        try:
            with self._gate.slots:
                reply = self._client.send(self._options.method, url, body, headers)
        except OSError as error:
            raise StageError(f"{_before_the_path(url)} cannot be reached: {error}") from error
        if not reply.is_success:
            said = f": {reply.excerpt()}" if reply.body else ""
            raise StageError(f"{_before_the_path(url)} answered {reply.status}{said}")
        if self._options.capture is not None:
            record.fields[self._options.capture] = {"status": reply.status, "body": _parsed(reply)}
        return record

    def _content(self, record: Record) -> bytes:
        options = self._options
        if self._body is not None:
            return self._body.fill(record.fields).encode("utf-8", "replace")
        fields = record.fields
        if options.keep is not None:
            fields = {name: fields[name] for name in options.keep if name in fields}
        if options.format == "json":
            return self._encoder.encode(fields)
        event = cloud_event(record, fields, self._encoder, kind=options.event_type, source=options.event_source)
        return self._encoder.encode(event)

    def _filled_headers(self, fields: dict[str, Any], body: bytes) -> dict[str, str]:
        own = {name: part.fill(fields, quote=_one_line) for name, part in self._headers.items()}
        lower = {name.lower() for name in own}
        headers = {name: value for name, value in self._defaults.items() if name.lower() not in lower} | own
        if self._secret:
            headers[self._options.signature_header] = (
                "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            )
        return headers

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        client, self._client, self._gate = self._client, None, None
        if client is not None:
            client.close()


def _check(options: WebhookOptions) -> None:
    """Raise ``SpecError`` for options that do not go together."""
    parts = urlsplit(options.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SpecError(f"{options.url!r} is no URL", expected="https://host/path")
    if Template(parts.netloc, where="url").names:
        raise SpecError(f"the host of {options.url!r} depends on the record", expected="placeholders after the host")
    if parts.username or parts.password:
        raise SpecError(
            "a password does not belong into an address", expected="`token_env`, or an Authorization header"
        )
    if options.body is not None and (options.format != "json" or options.keep is not None):
        raise SpecError("`body` stands for the whole body", expected="no `format` and no `keep` beside it")
    if options.concurrency < 1 or options.at_most < 0 or options.timeout <= 0:
        raise SpecError("`concurrency` is at least 1, `at_most` at least 0 and `timeout` above 0")
    request_headers(options.headers, content_type="", token_env=None, where="headers")


def _before_the_path(url: str) -> str:
    """Return scheme, host and port: what a message may show without telling a secret in the path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _one_line(value: str) -> str:
    """Make a value fit for a header: a record must not add headers of its own."""
    return "".join(sign if sign.isprintable() else " " for sign in value).strip().encode("ascii", "replace").decode()


def _file(home: Path, name: str | None) -> Path | None:
    return None if name is None else home / name


def _parsed(reply: Reply) -> Any:
    """Return a JSON body as values, any other as text."""
    if "json" in reply.content_type:
        try:
            return msgspec.json.decode(reply.body)
        except (msgspec.DecodeError, RecursionError):
            pass  # it said JSON and was not, or it was cut: the text tells more than an error would
    return reply.body.decode("utf-8", "replace")
