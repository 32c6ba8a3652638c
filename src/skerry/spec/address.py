"""Addresses: the URIs of sources and sinks, taken apart into a place and its options."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from skerry.spec.errors import SpecError
from skerry.spec.ports import Address

_NETWORK = frozenset({"http", "https", "mqtt", "mqtts", "http+listen", "https+listen"})
_QUERY = re.compile(r"\?(?=[\w.-]+=)")  # a question mark alone may be part of a glob
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
    target, query = _QUERY.split(text[scheme.end() + 1 :], maxsplit=1) + [""] * (not _QUERY.search(text))
    options = dict(parse_qsl(query, keep_blank_values=True))
    if scheme[0] in _NETWORK:
        return _network_address(text, f"{scheme[0]}:{target}", where), options
    return Address(text=text, scheme=scheme[0], path=unquote(target.removeprefix("//"))), options


def _network_address(text: str, without_query: str, where: str) -> Address:
    try:
        parts = urlsplit(without_query.replace("#", "%23"))  # a wildcard of MQTT, never a fragment here
        port = parts.port
    except ValueError as error:
        raise SpecError(f"{text!r} is no URI: {error}", where=where, expected="scheme://host:port/path") from error
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
