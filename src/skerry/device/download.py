"""The real rate of a link, measured by a download from where the user says; never done unasked."""

from __future__ import annotations

import http.client
import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from skerry.device.tree import Tree
from skerry.spec.errors import DeviceError, UsageError


class LinkRate(NamedTuple):
    """A measured download: the interface it went over (``None`` if unknown), and what was seen.

    ``bits_per_s`` is counted from the first byte of the body to the last; ``round_trip_s`` is the time to open the
    TCP connection.
    """

    interface: str | None
    bits_per_s: float
    round_trip_s: float
    bytes_read: int


def measure_link(url: str, *, limit_bytes: int = 32_000_000, limit_s: float = 5.0) -> LinkRate:
    """Download from ``url`` and tell how fast it went.

    Parameters
    ----------
    url:
        ``http://`` or ``https://``; a file of some megabytes. Nothing is sent but the request.
    limit_bytes:
        Where to stop, in bytes: a metered link is not emptied by a measurement.
    limit_s:
        Where to stop, in seconds; also the time limit of each step.

    Raises
    ------
    UsageError
        The URL is not one.
    DeviceError
        The server cannot be reached, does not answer 200, or sends too little to tell a rate.
    """
    connection, target = _connection(url, limit_s)
    try:
        started = time.perf_counter()
        connection.connect()
        round_trip_s = time.perf_counter() - started
        address = connection.sock.getsockname()[0]
        connection.request("GET", target, headers={"Accept-Encoding": "identity"})
        response = connection.getresponse()
        if response.status != 200:
            raise DeviceError(f"the server answered {response.status} {response.reason}", where=url, expected="200 OK")
        read, seconds = _drain(response, limit_bytes, limit_s)
    except (OSError, http.client.HTTPException) as error:
        raise DeviceError(f"the link cannot be measured: {error or type(error).__name__}", where=url) from error
    finally:
        connection.close()
    if read == 0 or seconds <= 0:
        raise DeviceError(
            f"{read} bytes are too few to tell a rate", where=url, expected="a file of a megabyte or more"
        )
    return LinkRate(_interface_of(address), read * 8 / seconds, round_trip_s, read)


def _connection(url: str, limit_s: float) -> tuple[http.client.HTTPConnection, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"not a URL: {error}", where=url) from error
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("not a URL that can be downloaded", where=url, expected="http://… or https://…")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    query = f"?{parts.query}" if parts.query else ""
    return kind(host, port, timeout=limit_s), (parts.path or "/") + query


def _drain(response: http.client.HTTPResponse, limit_bytes: int, limit_s: float) -> tuple[int, float]:
    """Read until the end or a limit; bytes and seconds after the first piece, which started the clock."""
    first = len(response.read1(65536))
    started = time.perf_counter()
    read = 0
    while first + read < limit_bytes and time.perf_counter() - started < limit_s:
        piece = response.read1(65536)
        if not piece:
            break
        read += len(piece)
    return read, time.perf_counter() - started


def _interface_of(address: str) -> str | None:
    """The interface that has this local address; IPv4 by ioctl, IPv6 from ``/proc/net/if_inet6``."""
    if ":" in address:
        return _interface_of_ipv6(address)
    import fcntl  # not there on Windows, where this module can still be imported
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, 0x8915, request)  # SIOCGIFADDR
            except OSError:  # no IPv4 address there
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return "lo" if address.startswith("127.") else None


def _interface_of_ipv6(address: str) -> str | None:
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex()
    for line in (Tree().text("/proc/net/if_inet6", quiet=True) or "").splitlines():
        fields = line.split()
        if len(fields) == 6 and fields[0] == packed:
            return fields[5]
    return None
