"""The link: over which interface the hub is reached, and of what class it is.

The system is asked which address it would send from (a UDP socket that is connected sends nothing), whose interface
that is, and what ``skerry.device.links`` knows of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence

import msgspec

from skerry.run.uplink.options import LinkClass
from skerry.spec.profile import Link

_ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses for documentation (RFC 5737, RFC 3849): nothing is ever sent there, only the way to them is asked for."""
_PORT = 9


class LinkState(msgspec.Struct, frozen=True):
    """Whether there is a way to the hub, over which interface, and of what class it is.

    ``is_up`` is ``None`` where the system does not tell.
    """

    is_up: bool | None = None
    interface: str = ""
    kind: LinkClass = "unknown"


def class_of(link: Link, given: Mapping[str, LinkClass]) -> LinkClass:
    """Return the class of an interface: what the user says, else that it is metered, else its kind.

    >>> class_of(Link(name="wlan0", kind="wifi", metered=True), {})
    'metered'
    """
    if link.name in given:
        return given[link.name]
    if link.metered:
        return "metered"
    if link.kind in {"ethernet", "wifi", "cellular"}:
        return link.kind
    return "unknown"


def find_link(
    host: str,
    given: Mapping[str, LinkClass],
    *,
    links: Callable[[], Sequence[Link]] | None = None,
    source: Callable[[str], str | None] | None = None,
    owner: Callable[[str], str] | None = None,
) -> LinkState:
    """Return the state of the link to ``host``: an address, or a name, of which nothing is looked up.

    ``links``, ``source`` and ``owner`` stand for the system: the interfaces, the address that something would be sent
    from, and the interface that has an address.
    """
    address = (source or source_address)(host)
    if address is None:
        return LinkState(is_up=False)
    interface = (owner or interface_of)(address)
    if not interface:
        return LinkState(is_up=True)
    found = {link.name: link for link in (links or _system_links)()}
    if interface not in found:
        return LinkState(True, interface, given.get(interface, "unknown"))
    return LinkState(True, interface, class_of(found[interface], given))


def source_address(host: str) -> str | None:
    """Return the address that something to ``host`` would be sent from; ``None`` when there is no way to it."""
    for target in _targets(host):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, _PORT))
            return str(probe.getsockname()[0])
    return None


def _targets(host: str) -> tuple[str, ...]:
    if host == "localhost":
        return ("127.0.0.1", "::1")
    with contextlib.suppress(ValueError):
        return (str(ipaddress.ip_address(host)),)
    return _ANYWHERE


def interface_of(address: str) -> str:
    """Return the name of the interface that has an address, or nothing."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in addresses):
            return str(name)
    return ""


def _system_links() -> Sequence[Link]:
    from skerry.device.links import read_links
    from skerry.device.tree import Tree

    return read_links(Tree(), ask_tools=True)
