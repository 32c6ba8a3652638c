"""State: counters and values that survive a restart."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from skerry.run.expression import Expression
from skerry.spec.errors import StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Emission, Outcome, Record
from skerry.spec.units import Duration

OTHER: Final = "(other)"
"""The key that takes the counts of all keys beyond ``max_keys``."""
MAX_VALUE = 65_536
"""Bytes of one remembered value as JSON: this is a memory for facts, not a store for frames."""


class StateOptions(Options, frozen=True, kw_only=True):
    """What is remembered. A record meets ``get`` first, then ``count``, then ``set``.

    Parameters
    ----------
    get:
        Fields that take remembered values: ``{previous: last_label}``; ``null`` where nothing was remembered yet.
    count:
        The name of a counter that goes up by ``by``.
    key:
        A CEL expression that keeps counts (and values) apart, such as ``label``.
    by:
        A CEL expression of how much a record counts; 1 by default.
    into:
        The field that takes the new count; by default the counter's name.
    set:
        Values to remember by name, and their CEL expressions.
    commit:
        How often what was remembered is made durable. A power cut loses at most this much; ``0s`` loses nothing, at the
        price of waiting for the disk at every record.
    max_keys:
        How many keys are kept apart, in memory and on disk; the counts of further ones are added up as ``(other)``.
    """

    get: dict[str, str] = msgspec.field(default_factory=dict)
    count: str | None = None
    key: str | None = None
    by: str = "1"
    into: str | None = None
    set: dict[str, str] = msgspec.field(default_factory=dict)
    commit: Duration = Duration(1.0)
    max_keys: int = 100_000

    def __post_init__(self) -> None:
        if not (self.get or self.count or self.set):
            raise ValueError("one of get, count or set, or the stage does nothing")
        if self.max_keys < 1:
            raise ValueError("max_keys of at least 1")


Entry = tuple[str, str]
"""A name and a key."""


class StateStage:
    """Remember values and counts in a SQLite file (WAL, ``synchronous=FULL``), committed in batches.

    Answers come from memory, so that a record does not wait for the disk. The file is open in one run at a time. After
    a crash, counts are those of the last commit; the source then repeats what it had not settled.
    """

    Options: ClassVar[type[StateOptions]] = StateOptions

    def __init__(self, options: StateOptions) -> None:
        self._options = options
        self._key = None if options.key is None else Expression(options.key, "state: key")
        self._by = Expression(options.by, "state: by")
        self._set = [(name, Expression(source, f"state: set.{name}")) for name, source in options.set.items()]
        self._into = options.into or options.count or ""
        self._lock = threading.Lock()
        self._values: dict[Entry, Any] = {}
        self._keys: set[str] = set()
        self._changed: set[Entry] = set()
        self._database: sqlite3.Connection | None = None
        self.tick_s = float(options.commit)

    def open(self, context: Context) -> None:
        """Read what is remembered; raises ``StageError`` where the file is damaged or another run has it open."""
        self.close()
        path = context.state / "state.sqlite"
        try:
            self._database = _open_database(path)
            rows = self._database.execute("SELECT name, key, value FROM state").fetchall()
            self._values = {(name, key): msgspec.json.decode(value) for name, key, value in rows}
        except (sqlite3.Error, msgspec.DecodeError) as error:
            self.close()
            busy = "locked" in str(error)
            raise StageError(
                f"{path} cannot be read: {error}",
                where=context.name,
                hint="another run (or worker: use workers: 1) has it open"
                if busy
                else "move the file away to begin anew",
            ) from error
        self._keys = {key for _, key in self._values if key != OTHER}
        self._changed.clear()

    def process(self, record: Record) -> Outcome:
        """Set the fields in place; where it raises ``StageError``, nothing was counted or remembered."""
        fields, options = record.fields, self._options
        with self._lock:
            key = self._key_of(fields)
            results = {field: self._values.get((name, key)) for field, name in options.get.items()}
            changes: dict[Entry, Any] = {}
            if options.count is not None:
                count = (self._values.get((options.count, key)) or 0) + self._amount(fields)
                results[self._into] = changes[options.count, key] = count
            if self._set:
                seen = fields | results
                for name, expression in self._set:
                    changes[name, key] = _storable(name, expression.value(seen))
            if changes and key != OTHER:
                self._keys.add(key)
            self._values.update(changes)
            self._changed.update(changes)
            if self.tick_s == 0.0 and changes:
                self._commit()
        fields.update(results)
        return record

    def tick(self, now_ns: int) -> Sequence[Emission]:
        """Make durable what has changed; raises ``StageError`` where the disk refuses, and tries again next time."""
        with self._lock:
            self._commit()
        return []

    def flush(self) -> Sequence[Emission]:
        """Make durable what has changed."""
        return self.tick(0)

    def close(self) -> None:
        """Make durable what has changed and close the file."""
        with self._lock:
            database = self._database
            try:
                self._commit()
            finally:
                self._database = None
                if database is not None:
                    database.close()

    def _key_of(self, fields: dict[str, Any]) -> str:
        if self._key is None:
            return ""
        value = _plain(self._key.value(fields))
        if not isinstance(value, str | int | float):
            raise StageError(
                f"the key {self._options.key!r} gave {value!r:.60}", expected="text, a number, true or false"
            )
        key = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return key if key in self._keys or len(self._keys) < self._options.max_keys else OTHER

    def _amount(self, fields: dict[str, Any]) -> float:
        amount = _plain(self._by.value(fields))
        if isinstance(amount, int | float) and not isinstance(amount, bool) and abs(amount) < 2**53:
            return amount
        raise StageError(f"by: {self._options.by!r} gave {amount!r:.60}", expected="a finite number, below 2^53")

    def _commit(self) -> None:
        """Write what has changed in one transaction; the caller holds the lock."""
        if self._database is None or not self._changed:
            return
        rows = [(name, key, msgspec.json.encode(self._values[name, key])) for name, key in self._changed]
        try:
            with self._database:
                self._database.executemany(
                    "INSERT INTO state (name, key, value) VALUES (?, ?, ?) "
                    "ON CONFLICT (name, key) DO UPDATE SET value = excluded.value",
                    rows,
                )
        except sqlite3.Error as error:
            raise StageError(f"what was counted cannot be made durable: {error}") from error
        self._changed.clear()


def _open_database(path: Path) -> sqlite3.Connection:
    """Open the file for this process alone; the lock is in one connection, which any thread may use in turn."""
    database = sqlite3.connect(path, timeout=2.0, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS state "
            "(name TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID"
        )
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            database.close()
        raise
    return database


def _plain(value: Any) -> Any:
    """Return a numpy scalar or array as numbers and lists, and everything else as it is."""
    return value.tolist() if hasattr(value, "tolist") and value.size <= MAX_VALUE else value


def _storable(name: str, value: Any) -> Any:
    """Return ``value`` if it can be remembered; raises ``StageError`` otherwise."""
    try:
        encoded = msgspec.json.encode(_plain(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StageError(
            f"set.{name}: {value!r:.60} cannot be remembered: {error}", expected="text or numbers"
        ) from error
    if len(encoded) > MAX_VALUE:
        raise StageError(f"set.{name}: a value of {len(encoded)} bytes", expected=f"at most {MAX_VALUE}")
    return msgspec.json.decode(encoded)
