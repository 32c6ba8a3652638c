"""Control groups: which folders of `/sys/fs/cgroup` limit this process, itself first, then its ancestors.

Both kinds work: v1 (a hierarchy per controller) and v2 (one for all), also side by side. In a container, the path in
``/proc/self/cgroup`` may not exist below the mount; the mount point itself is then the group (or the nearest part of
it that can be seen). Source: the kernel's ``cgroup-v1`` and ``cgroup-v2`` documents, and ``proc_pid_mountinfo(5)``.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from skerry.device.tree import Tree

_CONTROLLERS = ("cpu", "cpuset", "memory")


class Mount(NamedTuple):
    """A mounted hierarchy: its version, its controllers (v1), what part of it is mounted, and where."""

    version: int
    controllers: frozenset[str]
    root: str
    point: str


class Group(NamedTuple):
    """A folder with the limits of a group, and the version of its hierarchy."""

    version: int
    folder: str


def parse_mounts(mountinfo: str) -> list[Mount]:
    """Find the hierarchies in ``/proc/self/mountinfo``; lines in another form are passed over."""
    mounts = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 1 if kind[0] == "cgroup" else 2
        options = kind[2].split(",") if version == 1 else []
        mounts.append(Mount(version, frozenset(options), _unescape(fields[3]), _unescape(fields[4])))
    return mounts


def _unescape(path: str) -> str:
    """Undo the octal escapes of mountinfo: a blank is written ``\\040``."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), path)


def parse_membership(text: str) -> dict[str, str]:
    """Read ``/proc/self/cgroup``: controller to path; the v2 path stands under the empty name.

    >>> parse_membership("4:memory:/a/b\\n0::/c")
    {'memory': '/a/b', '': '/c'}
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def groups(tree: Tree, controller: str) -> list[Group]:
    """The groups of ``controller`` that hold this process, innermost first.

    Parameters
    ----------
    tree:
        The machine.
    controller:
        ``cpu``, ``cpuset`` or ``memory``.
    """
    membership = parse_membership(tree.text("/proc/self/cgroup", quiet=True) or "")
    mounts = parse_mounts(tree.text("/proc/self/mountinfo", quiet=True) or "") or _usual_mounts(tree)
    found: list[Group] = []
    for mount in mounts:
        if mount.version == 2:
            found += _lineage(tree, mount, membership.get("", "/"))
        elif controller in mount.controllers:
            found += _lineage(tree, mount, membership.get(controller, "/"))
    return found


def _usual_mounts(tree: Tree) -> list[Mount]:
    """Where the hierarchies are by custom, for a machine whose mounts cannot be read."""
    base = "/sys/fs/cgroup"
    if tree.exists(f"{base}/cgroup.controllers"):
        return [Mount(2, frozenset(), "/", base)]
    split = [Mount(1, frozenset([name]), "/", f"{base}/{name}") for name in _CONTROLLERS]
    return [mount for mount in [*split, Mount(2, frozenset(), "/", f"{base}/unified")] if tree.exists(mount.point)]


def _lineage(tree: Tree, mount: Mount, path: str) -> list[Group]:
    """The group at ``path`` and its ancestors, as far as ``mount`` shows them."""
    inside = _inside(path, mount.root)
    if inside is None:
        tree.note(f"/proc/self/cgroup: {path} is not below {mount.point}; the limits found there are taken")
        inside = ""
    while inside and not tree.exists(mount.point + inside):
        inside = posixpath.dirname(inside).rstrip("/")
    folders = []
    while inside:
        folders.append(mount.point + inside)
        inside = posixpath.dirname(inside).rstrip("/")
    return [Group(mount.version, folder) for folder in [*folders, mount.point]]


def _inside(path: str, root: str) -> str | None:
    """``path`` relative to the part of the hierarchy that is mounted: empty, or with a leading slash.

    ``None`` if that part does not hold it, as for a process seen from within another cgroup namespace (``/../x``).
    """
    if ".." in path.split("/"):
        return None
    path, root = posixpath.normpath(path).rstrip("/"), posixpath.normpath(root).rstrip("/")
    path, root = path.replace("//", "/"), root.replace("//", "/")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :]
    return "" if path == "" else None
