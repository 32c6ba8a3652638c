"""Map: set fields from expressions, keep some, drop others."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from skerry.run.expression import Expression
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class MapOptions(Options, frozen=True, kw_only=True):
    """What becomes of the fields, in this order: ``set``, then ``keep``, then ``drop``.

    Parameters
    ----------
    set:
        New or changed fields and the CEL expressions of their values. Each one sees what those above it have set.
    keep:
        The only fields that stay; empty for all.
    drop:
        Fields that go; one that is not there is no error.
    missing:
        Whether a field that an expression needs and the record lacks fails the record, or reads as ``null``.
    """

    set: dict[str, str] = msgspec.field(default_factory=dict)
    keep: list[str] = msgspec.field(default_factory=list)
    drop: list[str] = msgspec.field(default_factory=list)
    missing: Literal["fail", "null"] = "fail"

    def __post_init__(self) -> None:
        if not (self.set or self.keep or self.drop):
            raise ValueError("one of set, keep or drop, or the stage does nothing")


class MapStage:
    """Set, keep and drop fields."""

    Options: ClassVar[type[MapOptions]] = MapOptions

    def __init__(self, options: MapOptions) -> None:
        self._values = [
            (name, Expression(source, f"map: set.{name}", missing=options.missing).value)
            for name, source in options.set.items()
        ]
        self._keep = frozenset(options.keep)
        self._drop = tuple(options.drop)

    def open(self, context: Context) -> None:
        """Nothing to get ready: the expressions were compiled with the options."""

    def process(self, record: Record) -> Outcome:
        """Change the fields in place; a failing expression raises ``StageError`` and leaves them as they were."""
        fields = record.fields
        if len(self._values) == 1:
            name, value = self._values[0]
            fields[name] = value(fields)
        elif self._values:
            changed = dict(fields)
            for name, value in self._values:
                changed[name] = value(changed)
            fields.update(changed)
        if self._keep:
            for name in [name for name in fields if name not in self._keep]:
                del fields[name]
        for name in self._drop:
            fields.pop(name, None)
        return record

    def close(self) -> None:
        """Nothing to give back."""
