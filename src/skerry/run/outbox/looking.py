"""Looking into an outbox from outside: what a store holds, read beside the process that writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from skerry.run.outbox import folder, letters, requests, tables
from skerry.run.outbox.ballast import Ballast
from skerry.run.outbox.database import APPLICATION_ID, load_apsw, open_reader, translated
from skerry.run.outbox.item import unpack
from skerry.run.outbox.options import PRIORITIES, OutboxOptions
from skerry.run.outbox.outbox import Outbox
from skerry.run.outbox.status import DeadLetter, OutboxStatus, status_of
from skerry.spec.units import Size
from skerry.wire.record import WireRecord

if TYPE_CHECKING:
    import apsw

_PLACE_OF_ID = 68  # of the application id in the header of an SQLite file
_EVERYTHING = [(1, 2**63 - 1)]
_QUIET = OutboxOptions(ballast=Size(0), reserve=Size(0))


def stores_in(place: Path) -> list[Path]:
    """Return the store files in a folder and below it, or the one that was named."""
    if place.is_file():
        return [place] if _is_store(place) else []
    return sorted(path for path in place.rglob("*.db") if _is_store(path))


def _is_store(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(_PLACE_OF_ID)
            return file.read(4) == APPLICATION_ID.to_bytes(4, "big")
    except OSError:
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection]:
    connection = open_reader(path)
    try:
        with connection:  # one transaction: what is read belongs together
            yield connection
    except load_apsw().Error as error:
        raise translated(error, path) from error
    finally:
        connection.close(True)


def look(path: Path) -> OutboxStatus:
    """Return the status of a store; raises ``OutboxError`` where it cannot be read."""
    with _reading(path) as connection:
        known = status_of(connection, path)
    return msgspec.structs.replace(known, held=folder.is_held(path), ballast_bytes=Ballast(path, 0).held_bytes)


def peek(path: Path, limit: int) -> list[WireRecord]:
    """Return what would be sent next; a record that is damaged is left out."""
    found: list[WireRecord] = []
    with _reading(path) as connection:
        for seq, priority, digest, payload in tables.waiting(connection, [1] * len(PRIORITIES), _EVERYTHING, None):
            if len(found) >= limit:
                break
            with contextlib.suppress(ValueError):
                found.append(unpack(seq, priority, digest, payload))
    return found


def peek_dead(path: Path, limit: int) -> list[DeadLetter]:
    """Return dead letters, the oldest first."""
    with _reading(path) as connection:
        return letters.listed(connection, limit)


def change(path: Path, verb: requests.Verb, ids: Sequence[int] | None, patience_s: float = 5.0) -> bool:
    """Replay or drop dead letters, by the process that holds the store where there is one.

    Returns whether it was done: a process that is busy elsewhere does it later. Raises ``OutboxError``.
    """
    if folder.is_held(path):
        return requests.leave(path, verb, ids, patience_s)
    with Outbox(path, device=look(path).device, options=_QUIET) as outbox:
        if outbox.path == path:
            (outbox.replay if verb == "replay" else outbox.drop)(ids)
            return True
        outbox.retire()  # a process has taken the store in this very moment, and what was opened is a new one
    return requests.leave(path, verb, ids, patience_s)
