"""A private folder: files that nobody else may read, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from skerry.spec.errors import IdentityMissingError, TrustError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITING_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> Path:
    """Make a folder of mode 0700, with its parents, and return it.

    Raises
    ------
    TrustError
        It cannot be made, or the one that is there is another user's, or others may write into it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise TrustError(f"the folder cannot be made: {error.strerror}", where=str(folder)) from error
    mode = found.st_mode
    if found.st_uid not in {0, os.geteuid()}:
        raise TrustError(
            f"this folder is another user's ({_user(found.st_uid)}), who could replace what is in it",
            where=str(folder), expected=f"a folder of {_user(os.geteuid())}",
            hint=f"run this as {_user(found.st_uid)}, or use another folder",
        )  # fmt: skip
    if not mode & _WRITING_OTHERS:
        return folder
    raise TrustError(
        f"other users may write into this folder (mode {stat.S_IMODE(mode):04o}), so nothing in it can be trusted",
        where=str(folder), expected="mode 0700", hint=f"look who did that, then: chmod 700 '{folder}'",
    )  # fmt: skip


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def read_private(path: Path) -> bytes:
    """Read a file that only its owner may read.

    Raises
    ------
    IdentityMissingError
        There is no such file.
    TrustError
        Others may read it, or this user may not.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError as error:
        raise IdentityMissingError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise TrustError(
            f"this file cannot be read: {error.strerror}", where=str(path), hint="run as the user who enrolled"
        ) from error
    if not mode & _OTHERS:
        return content
    raise TrustError(
        f"other users of this machine may read this secret (mode {stat.S_IMODE(mode):04o})",
        where=str(path), expected="mode 0600",
        hint=f"chmod 600 '{path}'; if somebody else may have read it, revoke it and enrol again",
    )  # fmt: skip


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 whole: beside its place, synced, then renamed over what was there.

    Raises
    ------
    TrustError
        It cannot be written; what was there is unchanged.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise TrustError(f"this file cannot be written: {error.strerror}", where=str(path)) from error


def point(link: Path, target: str) -> None:
    """Make a symbolic link point to ``target`` (a name beside it) in one step that a power cut cannot halve.

    Raises
    ------
    TrustError
        The link cannot be made; it points where it did.
    """
    fresh = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    try:
        _sync_folder(link.parent)  # what it is to point to comes first
        fresh.symlink_to(target)
        fresh.replace(link)
        _sync_folder(link.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise TrustError(f"this link cannot be made: {error.strerror}", where=str(link)) from error


def sweep(folder: Path, pattern: str) -> None:
    """Remove what processes left that were killed while they wrote; the caller holds :func:`alone`."""
    for left in folder.glob(f".{pattern}.????????"):
        with contextlib.suppress(OSError):
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make what was made and renamed in a folder durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder against every other process that asks for it; waits for its turn. It ends with the process.

    Raises
    ------
    TrustError
        This user may not write there.
    """
    import fcntl

    try:
        number = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise TrustError(
            f"this folder cannot be changed: {error.strerror}", where=str(folder), hint="run as the user who made it"
        ) from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def state_folder(variable: str, name: str) -> Path:
    """Return where ``name`` lives: ``$variable``, else ``skerry/name`` in ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    given = os.environ.get(variable, "")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_STATE_HOME", "") or "~/.local/state"
    return Path(base).expanduser() / "skerry" / name
