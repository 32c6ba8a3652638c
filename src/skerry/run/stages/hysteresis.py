"""Hysteresis: a state that switches on at one limit and off at another, so that noise does not make it flap."""

from __future__ import annotations

from typing import ClassVar

from skerry.run.keyed import MAX_KEYS, Keyed, key_of
from skerry.run.reading import number
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class HysteresisOptions(Options, frozen=True, kw_only=True):
    """When the state switches.

    Parameters
    ----------
    field:
        The numeric field; the limits are in its unit.
    on, off:
        Where the state switches on and off, both reached by equality. ``on`` above ``off`` watches for high values,
        ``on`` below ``off`` for low ones.
    state:
        The field that takes the state, true or false.
    changed:
        The field that tells whether this very record switched it.
    only_changes:
        Whether records that do not switch the state are stopped.
    key:
        A field that keeps states apart, such as the name of a sensor.
    max_keys:
        How many of them; the one used longest ago is forgotten, and starts as off again.
    """

    field: str
    on: float
    off: float
    state: str = "active"
    changed: str = "changed"
    only_changes: bool = False
    key: str | None = None
    max_keys: int = MAX_KEYS

    def __post_init__(self) -> None:
        if self.on == self.off:
            raise ValueError("on and off that differ (use threshold for one limit)")


class _Switch:
    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = False


class HysteresisStage:
    """Switch a state on and off at two limits. It starts off; a NaN leaves it as it is."""

    Options: ClassVar[type[HysteresisOptions]] = HysteresisOptions
    remembers: str = "whether each key is on"

    def __init__(self, options: HysteresisOptions) -> None:
        self._options = options
        self._high = options.on > options.off
        self._switches: Keyed[_Switch] = Keyed(_Switch, options.max_keys)

    def open(self, context: Context) -> None:
        """Start with every state off."""
        self._switches.clear()

    def process(self, record: Record) -> Outcome:
        """Set the state in place; raises ``StageError`` where the field is no number."""
        options, fields = self._options, record.fields
        value = number(fields, options.field)
        switch = self._switches.get(key_of(fields, options.key))
        limit = options.off if switch.active else options.on
        rising = self._high != switch.active
        changed = value >= limit if rising else value <= limit
        switch.active ^= changed
        fields[options.state] = switch.active
        fields[options.changed] = changed
        return record if changed or not options.only_changes else None

    def close(self) -> None:
        """Nothing to give back."""
