"""An HTTP client: one request with a time limit, and a reply that is whole or an ``OSError``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from skerry import __version__
from skerry.run.timed_reply import timed_pools
from skerry.spec.errors import DependencyError, SpecError

if TYPE_CHECKING:
    import urllib3

_READ_AT_ONCE = 65536


class Reply(msgspec.Struct, frozen=True):
    """What a server answered: ``body`` is cut at the client's limit."""

    status: int
    body: bytes
    content_type: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the server took the request (2xx)."""
        return 200 <= self.status < 300

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later: 408, 425, 429 and 5xx."""
        return self.status in {408, 425, 429} or self.status >= 500

    def excerpt(self) -> str:
        """Return the beginning of the body as one line, for a message."""
        return " ".join(self.body[:300].decode("utf-8", "replace").split())[:200]


class HttpClient:
    """Keeps connections open between requests; follows no redirect and retries nothing.

    Parameters
    ----------
    timeout_s:
        Seconds for the whole exchange.
    connect_timeout_s:
        Seconds of it for the connection.
    ca, certificate, key:
        PEM files: whom to believe instead of the system's authorities, and who we are (mutual TLS).
    largest_reply:
        Bytes of a reply that are read.

    Raises
    ------
    DependencyError
        urllib3 is not installed.
    SpecError
        A certificate file cannot be used.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        largest_reply: int = 1 << 20,
    ) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise DependencyError(
                "sending over HTTP needs the package urllib3", hint="pip install 'skerry[http]'"
            ) from error
        for file in (ca, certificate, key):
            if file is not None and not file.is_file():
                raise SpecError(f"there is no file {file}", expected="a PEM file")
        self._timeout_s, self._largest_reply = timeout_s, largest_reply
        self._timeout, self._connect_s = urllib3.Timeout, min(connect_timeout_s, timeout_s)
        self._errors = urllib3.exceptions.HTTPError
        self._pool: urllib3.PoolManager = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=self._connect_s, total=timeout_s),
            ca_certs=str(ca) if ca else None,
            cert_file=str(certificate) if certificate else None,
            key_file=str(key) if key else None,
        )
        self._pool.pool_classes_by_scheme = timed_pools()

    def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float | None = None
    ) -> Reply:
        """Send one request and read its reply; ``timeout_s`` is for this exchange, where it is less than the client's.

        Raises ``OSError`` when there is no whole reply within the time limit: refused, reset, unknown host, bad
        certificate or silence.
        """
        limit = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        deadline = time.monotonic() + limit
        own = self._timeout(connect=min(self._connect_s, limit), total=limit)
        try:
            response = self._pool.request(
                method, url, body=body, headers=dict(headers), redirect=False, preload_content=False, timeout=own
            )
            try:
                content = self._read(response, deadline)
            finally:
                response.close()
                response.release_conn()
        except self._errors as error:
            raise ConnectionError(_reason(error)) from error
        return Reply(response.status, content, response.headers.get("Content-Type", ""))

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        content = bytearray()
        for piece in response.stream(_READ_AT_ONCE):
            content += piece
            if len(content) >= self._largest_reply:
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the reply did not end in time")
        return bytes(content[: self._largest_reply])

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()


def _reason(error: Exception) -> str:
    """Return the innermost cause in words: urllib3 wraps what the user wants to know."""
    inner: BaseException = error
    while True:
        cause = getattr(inner, "reason", None)
        deeper = cause if isinstance(cause, BaseException) else inner.__cause__
        if deeper is None or deeper is inner:
            return f"{type(inner).__name__}: {inner}"
        inner = deeper


def request_headers(
    given: Mapping[str, str], *, content_type: str, token_env: str | None, gzip: bool = False, where: str = ""
) -> dict[str, str]:
    """Return the headers of every request; the user's own win over the defaults.

    Raises ``SpecError`` for a header that cannot be sent, and when the environment variable of the token is not set.
    """
    headers = {"User-Agent": f"skerry/{__version__}", "Content-Type": content_type, "Accept": "*/*"}
    if gzip:
        headers["Content-Encoding"] = "gzip"
    if token_env is not None:
        headers["Authorization"] = f"Bearer {secret_of(token_env, where=where)}"
    lower = {name.lower(): name for name in headers}
    for name, value in given.items():
        if not name or any(sign in name + value for sign in "\r\n\0") or not name.isascii():
            raise SpecError(f"the header {name!r} cannot be sent", where=where, expected="one line of text")
        headers.pop(lower.get(name.lower(), ""), None)
        headers[name] = value
    return headers


def secret_of(variable: str, *, where: str = "") -> str:
    """Return a secret from an environment variable; raises ``SpecError`` when it is not set or empty."""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise SpecError(
            f"the environment variable {variable} is not set",
            where=where,
            expected="the secret in it",
            hint=f"export {variable}=…, or put it into the service's environment file",
        )
    return value
