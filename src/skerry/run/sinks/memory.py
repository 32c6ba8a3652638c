"""Memory: records kept in the process, for tests and for embedding a pipeline in a program."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from skerry.spec.errors import SinkError, SinkFullError, SinkUnavailableError
from skerry.spec.ports import Address, Context, Options
from skerry.spec.record import Record


class MemoryOptions(Options, frozen=True, kw_only=True):
    """How much is kept.

    Parameters
    ----------
    capacity:
        How many records are held before the sink says it is full; default 1,000,000, more than a test writes and
        less than what fills a workstation.
    """

    capacity: int = 1_000_000


class MemoryBox:
    """What the sinks of one name have taken; it outlives them, so it can be read when the run is over.

    ``failure`` can be set to an error that every ``write`` and ``open`` then raises, until it is ``None`` again;
    ``flush_failure`` does the same to ``flush``. ``durable`` is how many of ``records`` have been flushed.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.durable = 0
        self.failure: SinkError | None = None
        self.flush_failure: SinkError | None = None
        self.lock = threading.Lock()

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The fields of every record, in the order in which they were written."""
        with self.lock:
            return [record.fields for record in self.records]

    def fail(self, failure: SinkError | None) -> None:
        """Make every write from now on raise ``failure``; ``None`` ends that."""
        with self.lock:
            self.failure = failure


class MemorySink:
    """Keeps records in the box of its name: ``memory:answers`` writes to ``MemorySink.box("answers")``."""

    Options: ClassVar[type[MemoryOptions]] = MemoryOptions
    blocking: ClassVar[bool] = False
    boxes: ClassVar[dict[str, MemoryBox]] = {}
    """Every box by its name."""

    def __init__(self, address: Address, options: MemoryOptions) -> None:
        self._name = address.path.lstrip("/") or "default"
        self._options = options
        self._box: MemoryBox | None = None

    @classmethod
    def box(cls, name: str) -> MemoryBox:
        """Return the box of that name, an empty one if nobody has used it."""
        return cls.boxes.setdefault(name, MemoryBox())

    @classmethod
    def clear(cls) -> None:
        """Forget every box."""
        cls.boxes.clear()

    def open(self, context: Context) -> None:
        """Find the box; raises what the box was told to fail with."""
        box = self.box(self._name)
        if box.failure is not None:
            raise box.failure
        self._box = box

    def write(self, records: Sequence[Record]) -> None:
        """Keep the records; raises what the box was told to fail with, or ``SinkFullError`` beyond its capacity."""
        box = self._open_box()
        with box.lock:
            if box.failure is not None:
                raise box.failure
            if len(box.records) + len(records) > self._options.capacity:
                raise SinkFullError(f"memory:{self._name} holds its {self._options.capacity} records")
            # The mapping is copied: the fields of a record that was handed over may be changed by its next holder.
            box.records.extend(record.with_fields(dict(record.fields)) for record in records)

    def flush(self) -> None:
        """Count what was written as durable."""
        box = self._open_box()
        with box.lock:
            if box.flush_failure is not None:
                raise box.flush_failure
            box.durable = len(box.records)

    def close(self) -> None:
        """Let go of the box; what is in it stays."""
        self._box = None

    def _open_box(self) -> MemoryBox:
        if self._box is None:
            raise SinkUnavailableError(f"memory:{self._name} is not open")
        return self._box
