"""The board: what the machine is called, from the device tree (Arm) or from DMI (PC)."""

from __future__ import annotations

from skerry.device.tree import Tree
from skerry.spec.profile import Board

_DMI = "/sys/class/dmi/id"
# What a maker leaves in DMI when nobody fills it in.
_EMPTY = {"", "none", "default string", "to be filled by o.e.m.", "system product name", "not specified", "unknown"}
_HYPERVISORS = ("qemu", "kvm", "vmware", "virtualbox", "xen", "bochs", "virtual machine", "amazon ec2", "google")


def read_board(tree: Tree, cpus: list[dict[str, str]]) -> Board:
    """Name the board, and tell whether it is a virtual machine or a container."""
    tree_name = _device_tree(tree, "model")
    compatible = tuple(filter(None, (_device_tree(tree, "compatible") or "").split("\0")))
    vendor = _dmi(tree, "sys_vendor") or _dmi(tree, "board_vendor")
    name = tree_name or _dmi(tree, "product_name") or _dmi(tree, "board_name")
    if name is None:
        tree.note("board: neither a device tree nor DMI names it")
    return Board(
        name=name,
        vendor=vendor or (compatible[0].partition(",")[0] if compatible else None),
        compatible=compatible,
        virtual=_virtual(cpus, f"{vendor} {name}") if cpus else None,
        container=_container(tree),
    )


def _device_tree(tree: Tree, name: str) -> str | None:
    return tree.text(f"/proc/device-tree/{name}") or tree.text(f"/sys/firmware/devicetree/base/{name}")


def _dmi(tree: Tree, name: str) -> str | None:
    text = tree.text(f"{_DMI}/{name}", quiet=True)
    return None if text is None or text.lower() in _EMPTY else text


def _virtual(cpus: list[dict[str, str]], names: str) -> bool:
    """A hypervisor shows itself in the processor's flags (x86) or by its name."""
    told = any("hypervisor" in cpu.get("flags", "").split() for cpu in cpus)
    return told or any(word in names.lower() for word in _HYPERVISORS)


def _container(tree: Tree) -> bool:
    """The marks that Docker, Podman, Kubernetes and LXC leave."""
    if any(tree.exists(mark) for mark in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")):
        return True
    membership = tree.text("/proc/self/cgroup", quiet=True) or ""
    return any(word in membership for word in ("/docker/", "/kubepods", "/lxc/", "/libpod"))
