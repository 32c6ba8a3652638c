"""Recovery: a damaged store is put aside, and a new one goes on with what could be read of it.

The successor is made whole beside the damaged file before anything is renamed, so that whatever interrupts this, the
next opening either begins again or only has to finish:

1. what can be read goes into ``outbox.db.successor``, which is closed;
2. ``outbox.db`` becomes ``outbox.db.damaged-1``, and its log follows;
3. the successor becomes ``outbox.db``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skerry.run.outbox.ballast import Ballast
from skerry.run.outbox.database import DamagedError, DiskFullError
from skerry.run.outbox.salvage import Known, Wreck
from skerry.run.outbox.store import Store
from skerry.run.outbox.successor import take_over
from skerry.spec.errors import OutboxError

_PARTS = ("", "-wal", "-shm")


def opened(path: Path, *, known: Known | None = None, **settings: Any) -> Store:
    """Open a store; a damaged one is put aside first.

    Parameters
    ----------
    known:
        What the damaged store knew of itself, when it was open until now.
    settings:
        What :class:`~skerry.run.outbox.store.Store` takes.
    """
    try:
        return _opened(path, known, settings)
    except DiskFullError:  # a log, and what processes share, take space before anything is written
        if not Ballast(path, 0).give_up():
            raise
        return _opened(path, known, settings)


def _opened(path: Path, known: Known | None, settings: dict[str, Any]) -> Store:
    _finish(path)
    if known is None and not _is_cut_off(path):
        try:
            return Store(path, **settings)
        except DamagedError:
            pass
    try:
        _succeed(path, known, settings)
    except OSError as error:
        raise OutboxError(f"a damaged store cannot be put aside: {error.strerror}", where=str(path)) from error
    return Store(path, **settings)


def _is_cut_off(path: Path) -> bool:
    """Tell whether a file is empty that was not: SQLite would take it for a new one, and delete its log."""
    log = path.with_name(path.name + "-wal")
    return path.exists() and path.stat().st_size == 0 and log.exists() and log.stat().st_size > 0


def successor_of(path: Path) -> Path:
    """Return the file in which a successor is made."""
    return path.with_name(path.name + ".successor")


def _finish(path: Path) -> None:
    """Finish a recovery that was interrupted after its successor was whole, or clear one away that was not."""
    successor = successor_of(path)
    if not successor.exists():
        return
    if path.exists():
        _remove(successor)
    else:
        _rename(path, successor)


def _succeed(path: Path, known: Known | None, settings: dict[str, Any]) -> None:
    successor = successor_of(path)
    _remove(successor)
    store = Store(successor, **settings)
    wreck = Wreck(path, settings["vfs"])
    try:
        take_over(store, wreck, known)
        store.adopt_mark()
    except BaseException:
        store.abandon()
        raise
    finally:
        wreck.close()
    store.ballast.give_up()
    store.close()
    if not store.is_whole:
        raise OutboxError("what was saved of a damaged store could not be made durable", where=str(path))
    _rename(path, successor)


def _rename(path: Path, successor: Path) -> None:
    """Put the damaged file aside and the successor in its place; begun by the damaged file itself."""
    aside = _free_name(path)
    for part in _PARTS:
        source = path.with_name(path.name + part)
        if source.exists():
            source.rename(aside.with_name(aside.name + part))
            _sync(path.parent)
    for part in _PARTS[1:]:
        successor.with_name(successor.name + part).unlink(missing_ok=True)
    successor.rename(path)
    _sync(path.parent)


def _free_name(path: Path) -> Path:
    """Return the name to put a damaged file under: the last one again where only its log is still to follow."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    if not path.exists() and number > 1:
        return path.with_name(f"{path.name}.damaged-{number - 1}")
    return aside


def _remove(path: Path) -> None:
    for part in (*_PARTS, ".ballast"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
