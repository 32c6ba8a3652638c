"""Resample: records at irregular times become records at a fixed rate."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.keyed import MAX_KEYS, Keyed, key_of
from skerry.run.merging import merged, without_fields
from skerry.run.reading import TimeUnit, finite, time_ns
from skerry.spec.ports import Context, Options
from skerry.spec.record import HELD, Emission, Outcome, Record
from skerry.spec.units import Duration

_UNIT_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1}


class ResampleOptions(Options, frozen=True, kw_only=True):
    """The rate, and how values at its points are found.

    Parameters
    ----------
    fields:
        The numeric fields.
    every:
        The time between two points; they lie at whole multiples of it.
    method:
        ``linear`` between the samples around a point, the sample before it (``previous``), or the ``mean`` of the
        samples since the point before (an interval without any repeats the one before).
    time, time_unit:
        The field with the time of a sample (a number in ``time_unit`` or ISO 8601); without, when it was read.
    into:
        The field that takes the time of a point, in ``time_unit``; by default the time field, or ``time``.
    max_gap:
        After a longer pause between two samples nothing is filled in and a new series begins.
    max_points:
        The most points that one pause is filled with before it counts as a gap: 10,000 bound what a wrong clock can do.
    key:
        A field that keeps series apart, such as the name of a sensor; it goes on with the points.
    carry:
        Fields of the last sample that go on with the points.
    max_keys:
        How many keys are kept apart; the series of the one used longest ago is then ended.
    """

    fields: list[str]
    every: Duration
    method: Literal["linear", "previous", "mean"] = "linear"
    time: str | None = None
    time_unit: TimeUnit = "s"
    into: str | None = None
    max_gap: Duration | None = None
    max_points: int = 10_000
    key: str | None = None
    carry: list[str] = msgspec.field(default_factory=list)
    max_keys: int = MAX_KEYS

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError("at least one field")
        if not self.every > 0:
            raise ValueError("every: more than 0")
        if self.max_points < 1 or self.max_keys < 1:
            raise ValueError("max_points and max_keys of at least 1")


Values = list[float]
Point = tuple[int, Values]


class _Series:
    """The samples of one key since the last point: the newest one, their sum for the mean, how many are unsettled."""

    __slots__ = ("count", "fresh", "key", "last", "next_ns", "sums", "time_ns", "values")

    def __init__(self) -> None:
        self.key: Hashable = None
        self.last: Record | None = None
        self.time_ns = 0
        self.values: Values = []
        self.sums: Values = []
        self.count = 0
        self.fresh = 0
        self.next_ns = 0

    def held(self, method: str) -> Values:
        """Return the value at a point for which no later sample is needed."""
        if method == "mean" and self.count:
            self.values = [total / self.count for total in self.sums]
            self.count = 0
        return self.values

    def add(self, moment: int, values: Values) -> None:
        """Take in a sample."""
        self.sums = [old + new for old, new in zip(self.sums, values, strict=True)] if self.count else values
        self.count += 1
        self.time_ns, self.values = moment, values


class ResampleStage:
    """Hold samples and send on a record for each point of a regular grid in time.

    The first point after a sample settles the samples held; more points than samples count as emitted. At the end one
    more point, with the last value, settles what is still held. A record with a NaN or infinite value, or out of order,
    is stopped.
    """

    Options: ClassVar[type[ResampleOptions]] = ResampleOptions
    remembers: str = "the last values of each key"
    tick_s = 0.0

    def __init__(self, options: ResampleOptions) -> None:
        self._options = options
        self._every_ns = max(options.every.ns, 1)
        longest = self._every_ns * options.max_points
        self._gap_ns = longest if options.max_gap is None else min(options.max_gap.ns, longest)
        self._carry = tuple(options.carry)
        self._into = options.into or options.time or "time"
        self._series: Keyed[_Series] = Keyed(_Series, options.max_keys)

    def open(self, context: Context) -> None:
        """Start without series."""
        self._series.clear()

    def process(self, record: Record) -> Outcome:
        """Take in a sample; raises ``StageError``, having kept nothing, where a field is missing or no number."""
        options = self._options
        values = [finite(record.fields, name) for name in options.fields]
        moment = time_ns(record, options.time, options.time_unit)
        key = key_of(record.fields, options.key)
        numbers = [float(value) for value in values if value is not None]
        if len(numbers) < len(values):
            return None
        series, evicted = self._series.get_or_evict(key)
        series.key = key
        sent = self._end(evicted, record.read_ns) if evicted is not None else []
        if series.last is not None:
            if moment < series.time_ns or (moment == series.time_ns and options.method != "mean"):
                return None
            if moment - series.time_ns > self._gap_ns:
                sent += self._end(series, record.read_ns)
        if series.last is None:
            series.next_ns = -(-moment // self._every_ns) * self._every_ns
            series.values = numbers
            series.time_ns = moment
        sent += self._take(series, record, moment, numbers)
        return sent or HELD

    def tick(self, now_ns: int) -> Sequence[Emission]:
        """Return nothing: points are made of samples, not of waiting."""
        return []

    def flush(self) -> Sequence[Emission]:
        """Send on a last point for every series with samples that no point has answered for."""
        sent: list[Emission] = []
        for series in self._series.values():
            sent += self._end(series, None)
        return sent

    def close(self) -> None:
        """Nothing to give back."""

    def _take(self, series: _Series, record: Record, moment: int, values: Values) -> list[Emission]:
        """Return the points up to and at a sample, and hold the sample where it is in none of them."""
        mean = self._options.method == "mean"
        linear = self._options.method == "linear"
        envelope = without_fields(record, self._carry)
        sent: list[Emission] = []
        points = list(self._until(series, moment, values))
        if points and (linear or (not mean and points[-1][0] == moment)):
            # The present sample is in one of the points; with `previous` that is the last one only.
            held, with_present = (0, len(points)) if linear else (len(points) - 1, 1)
            sent += self._points(series, series.last or envelope, points[:held], record.read_ns)
            series.fresh += 1
            sent += self._points(series, envelope, points[len(points) - with_present :], record.read_ns)
        else:
            sent += self._points(series, series.last or envelope, points, record.read_ns)
            series.fresh += 1
        series.last = envelope
        series.add(moment, values)
        return sent

    def _until(self, series: _Series, moment: int, values: Values) -> Iterator[Point]:
        """Yield the points at and before ``moment``."""
        method = self._options.method
        while series.next_ns <= moment:
            point = series.next_ns
            if method == "mean" and series.last is None:
                series.next_ns += self._every_ns
                continue  # the interval that ends where the series begins has no samples
            series.next_ns += self._every_ns
            if point == moment and method != "mean":
                yield point, values
            elif method == "linear":
                share = (point - series.time_ns) / (moment - series.time_ns)
                pairs = zip(series.values, values, strict=True)
                yield point, [before + (after - before) * share for before, after in pairs]
            else:
                yield point, series.held(method)

    def _points(self, series: _Series, last: Record, points: Sequence[Point], now_ns: int | None) -> list[Emission]:
        sent: list[Emission] = []
        for point, values in points:
            fields: dict[str, Any] = dict(last.fields)
            if self._options.key:
                fields[self._options.key] = series.key
            fields[self._into] = point / _UNIT_NS[self._options.time_unit]
            fields.update(zip(self._options.fields, values, strict=True))
            sent.append(merged(last, fields, series.fresh, now_ns))
            series.fresh = 0
        return sent

    def _end(self, series: _Series, now_ns: int | None) -> list[Emission]:
        """End a series: a last point for the samples that are still held."""
        last, series.last = series.last, None
        if last is None or not series.fresh:
            series.count = 0
            return []
        values = series.held(self._options.method)
        series.count = 0
        return self._points(series, last, [(series.next_ns, values)], now_ns)
