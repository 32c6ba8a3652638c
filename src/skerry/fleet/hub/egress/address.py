"""The address of an egress or of a broker: a URI, taken apart into a place and options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import msgspec

from skerry.spec.address import is_loopback
from skerry.spec.errors import UsageError
from skerry.spec.words import did_you_mean

Options = TypeVar("Options", bound=msgspec.Struct)
PORTS = {"http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883, "nats": 4222, "kafka": 9092}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect; ``rest`` is the part of the query that is none of our options."""

    scheme: str
    host: str
    port: int
    path: str
    username: str = ""
    password: str = ""
    rest: str = ""

    @property
    def name(self) -> str:
        """The place without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def url(self) -> str:
        """The place with what belongs to it of the query."""
        return self.name + (f"?{self.rest}" if self.rest else "")


def read_address(text: str, kind: type[Options]) -> tuple[Place, Options]:
    """Return the place and the options of a URI.

    Raises ``UsageError`` for what is no URI, an option that is none, and plain text beyond loopback.
    """
    try:
        parts = urlsplit(text)
        port = parts.port or PORTS.get(parts.scheme, 0)
        if not parts.hostname or not port:
            raise ValueError("it names no host")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        known = {field.encode_name for field in msgspec.structs.fields(kind)}
        own = {key: value for key, value in query.items() if key in known}
        rest = {key: value for key, value in query.items() if key not in known}
        if rest and parts.scheme not in {"http", "https"}:
            wrong = next(iter(rest))
            raise UsageError(f"there is no option {wrong!r} of {parts.scheme}", hint=did_you_mean(wrong, sorted(known)))
        options = msgspec.convert(own, kind, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{_without_secret(text)!r} cannot be used: {error}", expected="scheme://host:port/…"
        ) from error
    place = Place(
        scheme=parts.scheme, host=parts.hostname, port=port, path=unquote(parts.path), rest=urlencode(rest),
        username=unquote(parts.username or ""), password=_password(parts.password or ""),
    )  # fmt: skip
    _refuse_plain_text(place, msgspec.structs.asdict(options))
    return place, options


def _refuse_plain_text(place: Place, options: Mapping[str, Any]) -> None:
    encrypted = place.scheme in {"https", "mqtts"} or options.get("tls")
    if not encrypted and not options.get("insecure") and not is_loopback(place.host):
        raise UsageError(
            f"{place.name} is plain text on a network", expected="TLS (https, mqtts, tls=1) or a loopback address",
            hint="write insecure=1 in its query if you accept that",
        )  # fmt: skip


def _password(text: str) -> str:
    """Return a password; ``$NAME`` takes it from the environment, so that no list of processes shows it."""
    if not text.startswith("$"):
        return unquote(text)
    value = os.environ.get(text[1:], "")
    if not value:
        raise UsageError(f"the environment variable {text[1:]} is not set", expected="the password in it")
    return value


def _without_secret(text: str) -> str:
    head, at, tail = text.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else text
