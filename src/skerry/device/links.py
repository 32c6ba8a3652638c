"""Links: the network interfaces, what they cost, and (only when asked) how fast they really are.

Sources: ``/sys/class/net`` (the kernel's ``ABI/testing/sysfs-class-net``), ``nmcli(1)`` for whether one is metered.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from skerry.device.tree import Tree
from skerry.spec.errors import DeviceError, UsageError
from skerry.spec.profile import Link, LinkKind

_NET = "/sys/class/net"
# Hardware types of the kernel's if_arp.h: CAN, PPP and raw IP of modems, tunnels, loopback, TUN.
_ETHER = 1
_BY_TYPE: dict[int, LinkKind] = {
    280: "can", 512: "cellular", 519: "cellular", 768: "tunnel", 769: "tunnel", 772: "loopback", 776: "tunnel",
    778: "tunnel", 65534: "tunnel",
}  # fmt: skip
_BY_MARK: dict[str, LinkKind] = {"wireless": "wifi", "phy80211": "wifi", "bridge": "bridge"}
_BY_UEVENT: dict[str, LinkKind] = {
    "wlan": "wifi", "wwan": "cellular", "bridge": "bridge", "bluetooth": "bluetooth", "vlan": "virtual",
    "bond": "virtual", "macvlan": "virtual", "vxlan": "tunnel", "wireguard": "tunnel", "geneve": "tunnel",
}  # fmt: skip


def read_links(tree: Tree, metered: Mapping[str, bool] | None = None, *, ask_tools: bool = False) -> tuple[Link, ...]:
    """Every network interface.

    Parameters
    ----------
    tree:
        The machine.
    metered:
        What the user says: interface name to whether its traffic costs money. This wins over NetworkManager.
    ask_tools:
        Whether NetworkManager may be asked (a process is started).
    """
    known = dict(_metered_by_network_manager(tree)) if ask_tools else {}
    known.update(metered or {})
    names = [name for name in tree.names(_NET) if tree.path(f"{_NET}/{name}").is_dir()]
    links = tuple(_link(tree, name, known) for name in names)
    for name in sorted(set(metered or {}) - set(names)):
        tree.note(f"links: there is no interface {name!r} that could be metered")
    if not links:
        tree.note("links: no network interface is listed in /sys/class/net")
    return links


def _link(tree: Tree, name: str, metered: Mapping[str, bool]) -> Link:
    kind = _kind(tree, name)
    megabits = tree.integer(f"{_NET}/{name}/speed", quiet=True)  # EINVAL while down, -1 if unknown
    if kind == "cellular" and name not in metered:
        tree.note(f"links: {name} is cellular and nothing says whether it is metered")
    return Link(
        name=name,
        kind=kind,
        state=tree.text(f"{_NET}/{name}/operstate"),
        metered=False if kind == "loopback" else metered.get(name),
        advertised_bits_per_s=megabits * 1e6 if megabits and megabits > 0 else None,
    )


def _kind(tree: Tree, name: str) -> LinkKind:
    """What the driver says it is, then what marks it leaves in sysfs, then the hardware type."""
    folder = f"{_NET}/{name}"
    uevent = tree.text(f"{folder}/uevent", quiet=True) or ""
    named = [line.partition("=")[2] for line in uevent.splitlines() if line.startswith("DEVTYPE=")]
    if named and named[0] in _BY_UEVENT:
        return _BY_UEVENT[named[0]]
    for mark, kind in _BY_MARK.items():
        if tree.exists(f"{folder}/{mark}"):
            return kind
    if name.startswith("wwan"):
        return "cellular"
    number = tree.integer(f"{folder}/type", quiet=True)
    if number == _ETHER:
        return "ethernet" if tree.exists(f"{folder}/device") else "virtual"
    return _BY_TYPE.get(number or 0, "other")


def _metered_by_network_manager(tree: Tree) -> Mapping[str, bool]:
    """Ask ``nmcli``; its guesses count, its ``unknown`` does not."""
    nmcli = shutil.which("nmcli") if tree.real else None
    if nmcli is None:
        return {}
    command = [nmcli, "-t", "-f", "GENERAL.DEVICE,GENERAL.METERED", "device", "show"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3, check=True, env={"LC_ALL": "C"})
    except (OSError, subprocess.SubprocessError) as error:
        tree.note(f"links: nmcli does not tell which links are metered: {error}")
        return {}
    return parse_nmcli(done.stdout)


def parse_nmcli(text: str) -> dict[str, bool]:
    """Read ``nmcli -t -f GENERAL.DEVICE,GENERAL.METERED device show``.

    >>> parse_nmcli("GENERAL.DEVICE:wlan0\\nGENERAL.METERED:yes (guessed)\\n")
    {'wlan0': True}
    """
    found: dict[str, bool] = {}
    device = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "GENERAL.DEVICE":
            device = value
        elif key == "GENERAL.METERED" and device and value.startswith(("yes", "no")):
            found[device] = value.startswith("yes")
    return found


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
