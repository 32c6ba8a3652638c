"""Links: the network interfaces, of what kind they are, and whether their traffic costs money.

Sources: ``/sys/class/net`` (the kernel's ``ABI/testing/sysfs-class-net``), ``nmcli(1)`` for whether one is metered.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from skerry.device.tree import Tree
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
