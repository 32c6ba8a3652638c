"""Questions to a hub about trust: small exchanges of JSON over one TLS connection."""

from __future__ import annotations

import http.client
import ssl
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from skerry.spec.errors import (
    CertificateRefusedError,
    EnrolmentRefusedError,
    HubRefusedError,
    HubUnreachableError,
    SkerryError,
)
from skerry.trust.messages import Refusal

TIMEOUT_S = 60.0
"""Seconds for each exchange: a link of 64 kbit/s with a second of delay needs about four."""
HUB_HEADER = "Skerry-Hub"
"""What every answer of a hub has; a captive portal's has not."""
_LARGEST_REPLY = 1 << 18
_T = TypeVar("_T")
_REFUSALS: dict[str, type[SkerryError]] = {
    kind.__name__: kind for kind in (CertificateRefusedError, EnrolmentRefusedError)
}


class Questions:
    """A connection to a hub, for some questions one after another.

    Parameters
    ----------
    hub:
        Its URL, ``https`` only.
    context:
        Whom to believe.

    Raises
    ------
    HubRefusedError
        The URL is none.
    """

    def __init__(self, hub: str, context: ssl.SSLContext) -> None:
        try:
            parts = urlsplit(hub)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme != "https" or not host:
            raise HubRefusedError(f"{hub!r} is no address of a hub", expected="https://NAME:PORT")
        self._hub, self._prefix = hub, parts.path.rstrip("/")
        self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str, kind: type[_T]) -> _T:
        """Ask, and return the answer; raises as :meth:`post` does."""
        return self._ask("GET", path, None, kind)

    def post(self, path: str, message: msgspec.Struct, kind: type[_T]) -> _T:
        """Send a message and return the answer.

        Raises
        ------
        CertificateRefusedError
            The hub cannot prove to be ours, or says that our certificate does not count.
        EnrolmentRefusedError
            It says no.
        HubUnreachableError
            There is no answer, or it is not a hub's.
        HubRefusedError
            It does not know the question.
        """
        return self._ask("POST", path, msgspec.json.encode(message), kind)

    def _ask(self, method: str, path: str, body: bytes | None, kind: type[_T]) -> _T:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            self._connection.request(method, self._prefix + path, body, headers)
            response = self._connection.getresponse()
            content = response.read(_LARGEST_REPLY + 1)
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefusedError(
                f"the hub's certificate is not to be believed: {error.verify_message}", where=self._hub,
                hint="is the address the one that the authority was made for, and is this device's clock right?",
            ) from error  # fmt: skip
        except (OSError, http.client.HTTPException) as error:
            raise HubUnreachableError(f"the hub cannot be reached: {error}", where=self._hub) from error
        if response.getheader(HUB_HEADER) is None:
            raise HubUnreachableError(
                f"something else answers in the place of the hub (status {response.status})", where=self._hub,
                hint="is that the hub's address? Some networks want a log-in page to be filled in first",
            )  # fmt: skip
        if response.status != 200:
            raise self._refusal(response.status, content)
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise HubUnreachableError(f"the hub's answer cannot be read: {error}", where=self._hub) from error

    def _refusal(self, status: int, content: bytes) -> SkerryError:
        """Return the error that an answer stands for."""
        try:
            said = msgspec.json.decode(content, type=Refusal)
        except (msgspec.MsgspecError, RecursionError):
            said = Refusal("it does not say why")
        said = Refusal(_printable(said.error), said.kind, _printable(said.hint))
        if status == 403:
            kind = _REFUSALS.get(said.kind, EnrolmentRefusedError)
            return kind(f"the hub says: {said.error}", where=self._hub, hint=said.hint)
        if status in {408, 425, 429} or status >= 500:
            return HubUnreachableError(
                f"the hub is in trouble (status {status}): {said.error}", where=self._hub, hint="try again later"
            )
        return HubRefusedError(f"the hub does not take this (status {status}): {said.error}", where=self._hub)


def _printable(text: str) -> str:
    """Return what somebody unknown says as it may be shown in a terminal: no control characters, and not for ever."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:500])


def ask_unverified(hub: str, path: str, kind: type[_T]) -> _T:
    """Ask whoever answers at the hub's address, believing nothing: for what is checked by its fingerprint.

    Raises as :meth:`Questions.post` does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Questions(hub, context) as ask:
        return ask.get(path, kind)
