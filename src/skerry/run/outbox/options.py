"""Options of the outbox: how much it may hold, for how long, and what it keeps back for a full disk."""

from __future__ import annotations

from typing import Literal

import msgspec

from skerry.spec.errors import SpecError
from skerry.spec.ports import Options
from skerry.spec.units import Duration, Size

Priority = Literal["low", "normal", "high", "critical"]
PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high", "critical")
"""The classes, the first given up first; on the wire they are 0 to 3."""


class OutboxOptions(Options, frozen=True, kw_only=True):
    """How much an outbox holds and for how long.

    Parameters
    ----------
    max_size:
        Bytes of all records together, above which the oldest of the lowest class go; default 256 MB, a day of one
        record of 300 bytes every 100 ms.
    class_sizes:
        The same for single classes, such as ``{low: 16MB}``; default none but ``max_size``.
    ttl:
        How long records of a class are worth sending, such as ``{low: 1h}``; default for ever. An item may have a
        time of its own.
    max_record:
        The largest record, in bytes of its stored form; default 1 MB: files travel as blobs, not as records.
    dead_size:
        Bytes of dead letters, above which the oldest go; default 16 MB.
    ballast:
        A file of this size is given up when others fill the disk, so that there is room to go on; default 4 MB, the
        write-ahead log and some pages. 0 for none.
    reserve:
        The write-ahead log is written out to this size when a store is made, and the database with it: a commit then
        never has to find new space, which is also faster; default 4 MB. 0 for none.
    """

    max_size: Size = Size(256e6)
    class_sizes: dict[Priority, Size] = msgspec.field(default_factory=dict)
    ttl: dict[Priority, Duration] = msgspec.field(default_factory=dict)
    max_record: Size = Size(1e6)
    dead_size: Size = Size(16e6)
    ballast: Size = Size(4e6)
    reserve: Size = Size(4e6)

    def check(self) -> None:
        """Raise ``SpecError`` for limits that contradict each other."""
        if self.max_record > self.max_size:
            raise SpecError(
                f"`max_record` is {self.max_record} and `max_size` {self.max_size}",
                expected="a record that fits into the outbox",
            )
        for name, size in self.class_sizes.items():
            if size < self.max_record:
                raise SpecError(
                    f"`class_sizes` gives {name} {size}, less than the {self.max_record} of `max_record`",
                    expected="room for one record at least",
                )

    @property
    def log_bytes(self) -> int:
        """The size that the log is written out to: no more than a ballast makes room for, where there is one."""
        return int(min(self.reserve, self.ballast) if self.ballast > 0 else self.reserve)

    def cap_of(self, priority: int) -> int:
        """Return the bytes that a class may hold."""
        return int(min(self.class_sizes.get(PRIORITIES[priority], self.max_size), self.max_size))

    def ttl_ms_of(self, priority: int) -> int | None:
        """Return how long a record of a class is worth sending, or ``None``."""
        found = self.ttl.get(PRIORITIES[priority])
        return None if found is None else int(found * 1000)
