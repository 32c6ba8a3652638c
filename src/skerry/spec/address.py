"""Addresses: the URIs of sources and sinks, taken apart into a place and its options."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from skerry.spec.errors import SpecError
from skerry.spec.ports import Address

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)")


def parse_address(text: str, *, where: str = "") -> tuple[Address, dict[str, str]]:
    """Split a URI into its address and the options of its query.

    ``file://`` and ``tail://`` take the whole rest as a path: ``file:///a`` is absolute, ``file://a/b`` is relative to
    the pipeline file. A plain ``stdout:`` has no more than a scheme. Raises ``SpecError`` for what is no URI.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise SpecError(
            f"{text!r} is not a URI", where=where, expected="scheme://target, such as tail:///var/log/syslog"
        )
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme in {"http", "https", "mqtt", "mqtts", "http+listen", "https+listen"}:
        return _network_address(text, where), options
    path = unquote((parts.netloc + parts.path) if parts.netloc else parts.path)
    return Address(text=text, scheme=parts.scheme, path=path), options


def _network_address(text: str, where: str) -> Address:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError as error:
        raise SpecError(f"{text!r} has a bad port", where=where, expected="a number from 0 to 65535") from error
    if not parts.hostname:
        raise SpecError(f"{text!r} names no host", where=where, expected=f"{parts.scheme}://host:port/path")
    return Address(
        text=text,
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        path=unquote(parts.path),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_plain_text(address: Address, insecure: bool, *, where: str = "") -> None:
    """Raise ``SpecError`` when ``address`` is plain text beyond loopback and ``insecure`` was not written."""
    if address.scheme in {"http", "mqtt", "http+listen"} and not insecure and not is_loopback(address.host):
        raise SpecError(
            f"{address.scheme}://{address.host} is plain text on a network",
            where=where,
            expected="TLS (https, mqtts) or a loopback address",
            hint="write `insecure: true` in the pipeline file if you accept that",
        )
