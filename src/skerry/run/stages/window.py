"""Window: many records become one with their statistics, by count or by time, tumbling or sliding."""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.aggregate import OF_ANYTHING, Aggregate, aggregate
from skerry.run.keyed import MAX_KEYS, Keyed, key_of
from skerry.run.merging import merged, without_fields
from skerry.run.reading import TimeUnit, finite, missing_field, time_ns
from skerry.spec.ports import Context, Options
from skerry.spec.record import HELD, Emission, Outcome, Record
from skerry.spec.units import Duration

DEFAULT_AGGREGATES: tuple[Aggregate, ...] = ("mean", "min", "max", "std")


class WindowOptions(Options, frozen=True, kw_only=True):
    """How records are gathered, and what is made of them.

    Parameters
    ----------
    fields:
        Names, for ``mean``, ``min``, ``max`` and ``std`` of each, or names with the aggregates wanted. The results are
        fields such as ``cpu_mean``.
    items, every_items:
        A window of this many records, made anew after every so many; by default after ``items`` (tumbling).
    span, every:
        Instead, a window of this time, made anew after every so long; by default after ``span`` (tumbling). Windows
        begin at whole multiples of ``every``.
    time, time_unit:
        The field with the time of the record (a number in ``time_unit`` or ISO 8601); without, when it was read.
    lateness:
        How long a window waits for records that come out of order, or late out of a queue.
    late:
        What becomes of a record whose windows, by a time field, were all sent on: stopped (``filter``), or counted into
        the oldest one that is still open (``merge``, which is always so without a time field).
    idle:
        A window by a time field waits for a later record to be sure that it is over. After this long without any it is
        sent on anyway; ``null`` for never.
    key:
        A field that keeps windows apart, such as the name of a sensor; it goes on with the result.
    carry:
        Fields of the last record that go on with the result.
    max_keys:
        How many keys are kept apart; the window of the one used longest ago is then sent on early.
    max_items:
        How many records one window by time holds before it is sent on early: 100,000 numbers are about 20 MB.
    """

    fields: list[str] | dict[str, list[Aggregate]]
    items: int | None = None
    every_items: int | None = None
    span: Duration | None = None
    every: Duration | None = None
    time: str | None = None
    time_unit: TimeUnit = "s"
    lateness: Duration = Duration(0.0)
    late: Literal["filter", "merge"] = "filter"
    idle: Duration | None = None
    key: str | None = None
    carry: list[str] = msgspec.field(default_factory=list)
    max_keys: int = MAX_KEYS
    max_items: int = 100_000

    def __post_init__(self) -> None:
        if (self.items is None) == (self.span is None):
            raise ValueError("either items (a count) or span (a time)")
        if self.items is not None and not 1 <= (self.every_items or self.items) <= self.items:
            raise ValueError("1 <= every_items <= items, so that no record is left out")
        if self.span is not None and not 0 < (self.span if self.every is None else self.every) <= self.span:
            raise ValueError("0 < every <= span, so that no record is left out")
        if (self.every_items is not None and self.items is None) or (self.every is not None and self.span is None):
            raise ValueError("every_items beside items, or every beside span")
        if self.max_items < 1 or self.max_keys < 1:
            raise ValueError("max_items and max_keys of at least 1")


class _Item:
    """A record in a window: its time, the values of its fields, and whether no window has answered for it yet."""

    __slots__ = ("fresh", "time_ns", "values")

    def __init__(self, moment: int, values: tuple[Any, ...]) -> None:
        self.time_ns = moment
        self.values = values
        self.fresh = True


class _Window:
    """The records of one key that an open window still needs, ordered by time."""

    __slots__ = ("arrived_ns", "end_ns", "items", "key", "last")

    def __init__(self) -> None:
        self.key: Hashable = None
        self.items: list[_Item] = []
        self.last: Record | None = None
        self.end_ns = 0
        """Where the next window to be sent on ends; 0 before the first record."""
        self.arrived_ns = 0


def _moment(item: _Item) -> int:
    return item.time_ns


class WindowStage:
    """Hold records and send on one for each window. The newest record's envelope carries the result.

    Every record is part of at least one window. It is settled by the first one that has it; later (overlapping) windows
    count the records that are new to them, and a window of old ones only counts as a surplus. NaN and infinite values
    are left out of the aggregates.
    """

    Options: ClassVar[type[WindowOptions]] = WindowOptions

    def __init__(self, options: WindowOptions) -> None:
        self._options = options
        wanted = options.fields if isinstance(options.fields, dict) else dict.fromkeys(options.fields)
        self._wanted = [(name, list(kinds or DEFAULT_AGGREGATES)) for name, kinds in wanted.items()]
        self._numeric = [(name, any(kind not in OF_ANYTHING for kind in kinds)) for name, kinds in self._wanted]
        self._carry = (*options.carry, *([options.key] if options.key else []))
        self._count = options.items or 0
        self._every_count = options.every_items or self._count
        self._span_ns = options.span.ns if options.span else 0
        self._every_ns = options.every.ns if options.every else self._span_ns
        self._lateness_ns = options.lateness.ns
        self._windows: Keyed[_Window] = Keyed(_Window, options.max_keys)
        self._reads_clock = bool(self._span_ns) and (options.time is None or options.idle is not None)
        self.tick_s = min(max(self._every_ns / 4e9, 0.01), 0.25) if self._reads_clock else 0.0

    def open(self, context: Context) -> None:
        """Start with no windows."""
        self._windows.clear()

    def process(self, record: Record) -> Outcome:
        """Take in a record; raises ``StageError``, having kept nothing, where a field is missing or no number."""
        options = self._options
        values = self._values(record)
        moment = time_ns(record, options.time, options.time_unit)
        key = key_of(record.fields, options.key)
        window, evicted = self._windows.get_or_evict(key)
        window.key = key
        sent = self._early(evicted, record.read_ns) if evicted is not None else []
        if self._count:
            sent += self._add_counted(window, record, _Item(moment, values))
            return sent or HELD
        if window.end_ns and moment < window.end_ns - self._span_ns:
            if options.late == "filter" and options.time is not None:
                return None
            moment = window.end_ns - self._span_ns
        sent += self._add_timed(window, record, _Item(moment, values))
        return sent or HELD

    def tick(self, now_ns: int) -> Sequence[Emission]:
        """Send on the windows that are over at ``now_ns`` of the monotonic clock."""
        if not self._reads_clock:
            return []
        sent: list[Emission] = []
        for window in self._windows.values():
            if not window.items:
                continue
            if self._options.time is None:
                sent += self._close_until(window, now_ns - self._lateness_ns, now_ns)
            elif self._options.idle is not None and now_ns - window.arrived_ns >= self._options.idle.ns:
                sent += self._close_until(window, window.items[-1].time_ns + self._span_ns + self._every_ns, now_ns)
        return sent

    def flush(self) -> Sequence[Emission]:
        """Send on every window that has a record which no window answered for, complete or not."""
        sent: list[Emission] = []
        for window in self._windows.values():
            sent += self._early(window, None)
        return sent

    def close(self) -> None:
        """Nothing to give back."""

    def _values(self, record: Record) -> tuple[Any, ...]:
        fields = record.fields
        try:
            return tuple([finite(fields, name) if numeric else fields[name] for name, numeric in self._numeric])
        except KeyError as error:
            raise missing_field(fields, str(error.args[0])) from None

    def _add_counted(self, window: _Window, record: Record, item: _Item) -> list[Emission]:
        items = window.items
        items.append(item)
        window.last = without_fields(record, self._carry)
        if len(items) < self._count:
            return []
        emission = self._merge(window, items, record.read_ns, complete=True)
        del items[: self._every_count]
        return [emission]

    def _add_timed(self, window: _Window, record: Record, item: _Item) -> list[Emission]:
        items = window.items
        newest = max(items[-1].time_ns, item.time_ns) if items else item.time_ns
        # What is over is sent on first: this record is then not in it, and is not its envelope either.
        sent = self._close_until(window, newest - self._lateness_ns, record.read_ns)
        if not items:
            window.end_ns = max(window.end_ns, self._first_end(item.time_ns))
        if not items or item.time_ns >= items[-1].time_ns:
            items.append(item)
        else:
            bisect.insort(items, item, key=_moment)
        window.last = without_fields(record, self._carry)
        window.arrived_ns = record.read_ns
        if len(items) >= self._options.max_items:
            sent += self._early(window, record.read_ns)
        return sent

    def _first_end(self, moment: int) -> int:
        """Return the end of the first window that has ``moment`` in it: the least multiple of ``every`` beyond it."""
        return (moment // self._every_ns + 1) * self._every_ns

    def _close_until(self, window: _Window, moment: int, now_ns: int) -> list[Emission]:
        """Send on every window that ends at or before ``moment``."""
        sent: list[Emission] = []
        items = window.items
        while items and window.end_ns <= moment:
            start = window.end_ns - self._span_ns
            low = bisect.bisect_left(items, start, key=_moment)
            high = bisect.bisect_left(items, window.end_ns, key=_moment)
            if low < high:
                sent.append(self._merge(window, items[low:high], now_ns, complete=True))
            window.end_ns += self._every_ns
            del items[: bisect.bisect_left(items, window.end_ns - self._span_ns, key=_moment)]
            if items:
                window.end_ns = max(window.end_ns, self._first_end(items[0].time_ns))
        return sent

    def _early(self, window: _Window, now_ns: int | None) -> list[Emission]:
        """Send on what is there and start anew, if any of it has not been answered for."""
        items, window.items = window.items, []
        if not any(item.fresh for item in items):
            return []
        if self._span_ns:
            window.end_ns = max(window.end_ns, self._first_end(items[-1].time_ns))
        return [self._merge(window, items, now_ns, complete=False)]

    def _merge(self, window: _Window, items: list[_Item], now_ns: int | None, complete: bool) -> Emission:
        """Make one record of ``items``."""
        last = window.last
        assert last is not None  # a window with items has had a record
        fields = {name: last.fields[name] for name in self._carry if name in last.fields}
        if self._options.key:
            fields[self._options.key] = window.key
        times = [item.time_ns / 1e9 for item in items]
        for place, (name, kinds) in enumerate(self._wanted):
            there = [index for index, item in enumerate(items) if item.values[place] is not None]
            values = [items[index].values[place] for index in there]
            moments = [times[index] for index in there]
            for kind in kinds:
                fields[f"{name}_{kind}"] = aggregate(kind, values, moments)
        fields["window_start"], fields["window_end"] = self._edges(window, items, complete)
        fields["window_items"] = len(items)
        fields["window_complete"] = complete
        fresh = 0
        for item in items:
            fresh += item.fresh
            item.fresh = False
        return merged(last, fields, fresh, now_ns)

    def _edges(self, window: _Window, items: list[_Item], complete: bool) -> tuple[float, float]:
        """Return where the window begins and ends, in seconds of the clock that its times are from."""
        if self._span_ns and complete:
            return (window.end_ns - self._span_ns) / 1e9, window.end_ns / 1e9
        return items[0].time_ns / 1e9, items[-1].time_ns / 1e9
