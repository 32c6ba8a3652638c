"""A record: one item on its way through a pipeline, and what a stage may answer for it."""

from __future__ import annotations

import enum
from typing import Any, Final, Protocol

import msgspec


class Fate(enum.Enum):
    """How a record can end; every record that came in ends in exactly one of these ways.

    The order is the precedence: a record that was copied to several branches takes the first of
    the fates that its copies met.
    """

    OUT = "out"
    FAILED = "failed"
    DROPPED = "dropped"
    EXPIRED = "expired"
    ABSORBED = "absorbed"
    FILTERED = "filtered"


class Lineage(Protocol):
    """What the copies of one record share, so that the record is counted once."""

    abandoned: bool
    """Whether the end of the run cut a copy off, so that the record has to be read again."""

    def add(self, copies: int) -> None:
        """Announce ``copies`` more copies."""

    def settle(self, fate: Fate) -> Fate | None:
        """Report the end of one copy; return the fate of the record when this was the last one."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One item.

    The envelope is frozen; ``fields`` belongs to the stage that holds the record and may be changed in place.
    At a fan-out every branch gets a mapping of its own, whose values (frames, arrays) are shared, not copied. Records
    are not tracked by the garbage collector, which would walk full queues again and again; a record must not hold
    itself.

    Parameters
    ----------
    fields:
        The user's data by name.
    source:
        Name of the source that read it.
    sequence:
        1, 2, 3, … in the order in which that source read its items.
    read_ns:
        When it was read, in nanoseconds of the monotonic clock.
    deadline_ns:
        When it expires, on the same clock; 0 for never.
    size:
        Bytes as read, counted against the byte limits of queues.
    position:
        Where the source is to resume after this item; ``None`` where the source cannot.
    lineage:
        Shared by the copies made at a fan-out; ``None`` while there is only one.
    """

    fields: dict[str, Any]
    source: str = ""
    sequence: int = 0
    read_ns: int = 0
    deadline_ns: int = 0
    size: int = 0
    position: Any = None
    lineage: Lineage | None = None

    def with_fields(self, fields: dict[str, Any]) -> Record:
        """Return the same record with other ``fields``."""
        return Record(
            fields, self.source, self.sequence, self.read_ns, self.deadline_ns, self.size,
            self.position, self.lineage,
        )  # fmt: skip

    def copy(self, lineage: Lineage) -> Record:
        """Return a copy for another branch: a mapping of its own with the same values in it."""
        return Record(
            dict(self.fields), self.source, self.sequence, self.read_ns, self.deadline_ns, self.size,
            self.position, lineage,
        )  # fmt: skip


class Held(enum.Enum):
    """The answer of a stage that keeps a record for later, as a window does."""

    HELD = "held"


HELD: Final = Held.HELD


class Merged(msgspec.Struct, frozen=True):
    """A record made of ``items`` records that the stage held (or of those and the present one).

    One of the merged items goes on as ``record``; the others are counted as *absorbed*. With
    ``items=0`` the record is a surplus and counted as *emitted*.
    """

    record: Record
    items: int


Emission = Record | Merged
"""What a stage can send on by itself, from ``tick`` or ``flush``."""

Outcome = Record | Merged | Held | None | list[Emission]
"""What a stage answers for one record: it, a changed one, several, ``None`` (filtered) or ``HELD``."""
