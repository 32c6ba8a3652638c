"""Extract: fields from nested values and from JSON text; rename, keep and drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from skerry.run.reading import missing_field
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record
from skerry.spec.units import Size

_MISSING: Final = object()


class ExtractOptions(Options, frozen=True, kw_only=True):
    """What becomes a field, in this order: ``json``, ``fields``, ``rename``, ``keep``, ``drop``.

    Parameters
    ----------
    json:
        A field with JSON text (or bytes). The keys of its object become fields.
    into:
        The field that takes the whole JSON value instead, which then need not be an object.
    fields:
        New field: the path of its value, dotted (``a.b.0``) or a JSON pointer (RFC 6901, ``/a/b/0``).
    rename:
        Old name: new name.
    keep:
        The only fields that stay; empty for all.
    drop:
        Fields that go; one that is not there is no error.
    on_missing:
        Where a path or an old name leads nowhere: ``fail``, leave the field out (``skip``) or set it to ``null``.
    max_size:
        The longest JSON text; 8 MB is far above any message of a sensor and bounds the memory of one record.
    """

    shorthand: ClassVar[str] = "json"

    json: str | None = None
    into: str | None = None
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    rename: dict[str, str] = msgspec.field(default_factory=dict)
    keep: list[str] = msgspec.field(default_factory=list)
    drop: list[str] = msgspec.field(default_factory=list)
    on_missing: Literal["fail", "skip", "null"] = "fail"
    max_size: Size = Size(8e6)

    def __post_init__(self) -> None:
        if not (self.json or self.fields or self.rename or self.keep or self.drop):
            raise ValueError("one of json, fields, rename, keep or drop, or the stage does nothing")
        if self.into and not self.json:
            raise ValueError("json beside into")


class ExtractStage:
    """Turn nested values and JSON text into fields."""

    Options: ClassVar[type[ExtractOptions]] = ExtractOptions

    def __init__(self, options: ExtractOptions) -> None:
        self._options = options
        self._paths = [(name, path, _split(path)) for name, path in options.fields.items()]
        self._keep = frozenset(options.keep)
        self._decoder = msgspec.json.Decoder()

    def open(self, context: Context) -> None:
        """Nothing to get ready."""

    def process(self, record: Record) -> Outcome:
        """Change the fields in place; where it raises ``StageError`` they are as they were."""
        options = self._options
        fields = record.fields
        new = self._from_json(fields) if options.json else {}
        for name, path, steps in self._paths:
            start = new if steps[0] in new else fields
            value = _follow(start, steps)
            if value is not _MISSING:
                new[name] = value
            else:
                self._missing(new, name, f"path {path!r} leads nowhere")
        for old in options.rename:
            if old not in fields and old not in new and options.on_missing == "fail":
                raise missing_field(fields, old)
        fields.update(new)
        self._rename(fields)
        if self._keep:
            for name in [name for name in fields if name not in self._keep]:
                del fields[name]
        for name in options.drop:
            fields.pop(name, None)
        return record

    def close(self) -> None:
        """Nothing to give back."""

    def _from_json(self, fields: dict[str, Any]) -> dict[str, Any]:
        name = self._options.json or ""
        value = fields.get(name, _MISSING)
        if value is _MISSING:
            if self._options.on_missing == "fail":
                raise missing_field(fields, name)
            return {}
        if not isinstance(value, str | bytes | bytearray | memoryview):
            raise StageError(f"field {name!r} is a {type(value).__name__}", expected="JSON text")
        if len(value) > self._options.max_size:
            raise StageError(f"field {name!r} has {len(value)} bytes", expected=f"at most {self._options.max_size}")
        try:
            decoded = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise StageError(f"field {name!r} is not JSON: {error}") from error
        if self._options.into:
            return {self._options.into: decoded}
        if not isinstance(decoded, dict):
            raise StageError(
                f"field {name!r} holds a JSON {type(decoded).__name__}",
                expected="an object, whose keys become fields",
                hint="name a field for it: into: value",
            )
        return decoded

    def _missing(self, new: dict[str, Any], name: str, why: str) -> None:
        if self._options.on_missing == "fail":
            raise StageError(f"{why} (field {name!r})")
        if self._options.on_missing == "null":
            new[name] = None

    def _rename(self, fields: dict[str, Any]) -> None:
        taken = {new: fields.pop(old) for old, new in self._options.rename.items() if old in fields}
        if self._options.on_missing == "null":
            for new in self._options.rename.values():
                taken.setdefault(new, None)
        fields.update(taken)


def _split(path: str) -> list[str]:
    """Split a dotted path or a JSON pointer into its steps."""
    if path.startswith("/"):
        return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
    steps = path.split(".")
    if not all(steps):
        raise SpecError(
            f"{path!r} is not a path", where="extract: fields", expected="a path such as sensor.values.0 or /sensor/id"
        )
    return steps


def _follow(value: Any, steps: Sequence[str]) -> Any:
    """Walk from ``value`` through mappings by key and lists by index."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, _MISSING)
        elif isinstance(value, list | tuple):
            value = value[int(step)] if step.isdecimal() and int(step) < len(value) else _MISSING
        else:
            return _MISSING
        if value is _MISSING:
            return _MISSING
    return value
