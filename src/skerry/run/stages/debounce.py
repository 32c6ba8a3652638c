"""Debounce: let records pass only once a condition has lasted."""

from __future__ import annotations

from typing import Any, ClassVar

from skerry.run.expression import Expression
from skerry.run.keyed import MAX_KEYS, Keyed, key_of
from skerry.run.reading import TimeUnit, missing_field, time_ns
from skerry.spec.errors import StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record
from skerry.spec.units import Duration


class DebounceOptions(Options, frozen=True, kw_only=True):
    """What has to last, and for how long.

    Parameters
    ----------
    field:
        A field that is true or false.
    holds:
        Instead of a field, a condition in CEL.
    hold:
        How long it has to last without a break.
    count:
        Instead of a time, how many records in a row.
    once:
        Whether only the first record passes each time it has lasted long enough, instead of all from then on.
    key:
        A field that keeps conditions apart, such as the name of a sensor.
    time, time_unit:
        The field with the time of the record (a number in ``time_unit`` or ISO 8601); without, when it was read.
    max_keys:
        How many keys are kept apart; the one used longest ago starts anew.
    """

    shorthand: ClassVar[str] = "field"

    field: str | None = None
    holds: str | None = None
    hold: Duration | None = None
    count: int | None = None
    once: bool = False
    key: str | None = None
    time: str | None = None
    time_unit: TimeUnit = "s"
    max_keys: int = MAX_KEYS

    def __post_init__(self) -> None:
        if (self.field is None) == (self.holds is None):
            raise ValueError("either field or holds (a condition)")
        if (self.hold is None) == (self.count is None):
            raise ValueError("either hold (a time) or count")
        if self.count is not None and self.count < 1:
            raise ValueError("a count of at least 1")


class _Run:
    """A run of records for which the condition holds: when it began, how many there were, whether one has passed."""

    __slots__ = ("began_ns", "count", "passed")

    def __init__(self) -> None:
        self.began_ns = self.count = 0
        self.passed = False


class DebounceStage:
    """Stop records until a condition has lasted."""

    Options: ClassVar[type[DebounceOptions]] = DebounceOptions
    remembers: str = "how long each key has held"

    def __init__(self, options: DebounceOptions) -> None:
        self._options = options
        self._expression = None if options.holds is None else Expression(options.holds, "debounce: holds")
        self._hold_ns = 0 if options.hold is None else options.hold.ns
        self._count = 1 if options.count is None else options.count
        self._runs: Keyed[_Run] = Keyed(_Run, options.max_keys)

    def open(self, context: Context) -> None:
        """Start anew for every key."""
        self._runs.clear()

    def process(self, record: Record) -> Outcome:
        """Return the record or ``None``; raises ``StageError`` where the condition is neither true nor false."""
        options = self._options
        held = self._held(record.fields)
        now = time_ns(record, options.time, options.time_unit)
        run = self._runs.get(key_of(record.fields, options.key))
        if not held:
            run.count, run.passed = 0, False
            return None
        if run.count == 0:
            run.began_ns = now
        run.count += 1
        if run.count < self._count or now - run.began_ns < self._hold_ns or (run.passed and options.once):
            return None
        run.passed = True
        return record

    def close(self) -> None:
        """Nothing to give back."""

    def _held(self, fields: dict[str, Any]) -> bool:
        if self._expression is not None:
            return self._expression.test(fields)
        name = self._options.field or ""
        if name not in fields:
            raise missing_field(fields, name)
        value = fields[name]
        if value is True or value is False:
            return value
        if type(value).__name__ in {"bool", "bool_"}:  # a numpy truth value
            return bool(value)
        raise StageError(
            f"field {name!r} is {value!r:.60}", expected="true or false", hint="write a condition: `holds: score > 0.5`"
        )
