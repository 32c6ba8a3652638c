"""The in-memory source: a list, a counter or a channel that the program itself pushes into. The null of sources."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.sources.delivery import deliver, read_position
from skerry.spec.errors import SourceError
from skerry.spec.ports import Address, Context, Emit, Fields, Options, Stop


class MemoryOptions(Options, frozen=True, kw_only=True):
    """What is emitted.

    Parameters
    ----------
    items:
        The items, in order.
    count:
        How many items in all. More than there are ``items`` begins them anew; without ``items`` each item is its
        own number, ``{"index": 0}``, ``{"index": 1}``, ….
    """

    items: list[Fields] = msgspec.field(default_factory=list)
    count: int | None = None


class MemoryChannel:
    """What a program pushes items into while a :class:`MemorySource` of the same name reads them.

    It keeps every item, so that a source opened at an earlier position finds it again.
    """

    def __init__(self) -> None:
        self._items: list[Fields] = []
        self._ended = False
        self._changed = threading.Condition()

    def push(self, *items: Fields) -> None:
        """Add items; raises ``SourceError`` after :meth:`end`."""
        with self._changed:
            if self._ended:
                raise SourceError("this memory channel has ended")
            self._items.extend(items)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that there will be no more: the source returns once it has read the rest."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(self, index: int, timeout_s: float) -> deque[Fields] | None:
        """Return the items from ``index`` on, none after ``timeout_s`` seconds, or ``None`` at the end."""
        with self._changed:
            if len(self._items) <= index and not self._ended:
                self._changed.wait(timeout_s)
            found = deque(self._items[index:])
            return None if self._ended and not found else found


class MemorySource:
    """``memory:`` with the option ``items`` or ``count``, or ``memory:NAME`` for a channel.

    A position is ``{"index": n}``: n items are done.
    """

    Options: ClassVar[type[Options]] = MemoryOptions
    live: ClassVar[bool] = False
    _channels: ClassVar[dict[str, MemoryChannel]] = {}

    def __init__(self, address: Address, options: MemoryOptions) -> None:
        self._name = address.path
        self._options = options
        self._index = 0

    @classmethod
    def channel(cls, name: str) -> MemoryChannel:
        """Return the channel of that name, made on the first call."""
        return MemorySource._channels.setdefault(name, MemoryChannel())

    @classmethod
    def forget(cls, name: str) -> None:
        """Drop a channel and what it holds."""
        MemorySource._channels.pop(name, None)

    def open(self, context: Context, position: Any | None) -> None:
        """Begin at ``position``, or with the first item."""
        saved = read_position(position, dict[Literal["index"], int], context.log)
        self._index = saved["index"] if saved else 0

    def run(self, emit: Emit, stop: Stop) -> None:
        """Emit the items, in order."""
        if self._name:
            self._run_channel(MemorySource.channel(self._name), emit, stop)
            return
        items = self._options.items
        total = len(items) if self._options.count is None else self._options.count
        for index in range(self._index, total):
            fields = dict(items[index % len(items)]) if items else {"index": index}
            if stop.is_set() or not deliver(emit, stop, fields, position={"index": index + 1}):
                return
            self._index = index + 1

    def _run_channel(self, channel: MemoryChannel, emit: Emit, stop: Stop) -> None:
        # The channel has no way to hear of the stop, so it is asked for ten times a second.
        while not stop.is_set() and (items := channel.read(self._index, timeout_s=0.1)) is not None:
            for fields in items:
                if stop.is_set() or not deliver(emit, stop, dict(fields), position={"index": self._index + 1}):
                    return
                self._index += 1

    def commit(self, position: Any) -> None:
        """Do nothing: nobody has to be told."""

    def close(self) -> None:
        """Do nothing: nothing is held."""


class LiveMemorySource(MemorySource):
    """A :class:`MemorySource` that says of itself that it waits for the outside world, for tests of live sources."""

    live: ClassVar[bool] = True
