"""SQLite: records as rows of a table, whose columns follow the fields."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from skerry.run.encoding import Encoder
from skerry.spec.errors import SinkError, SinkFullError, SinkUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Log, Options
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_OWN = ("skerry_time", "skerry_source", "skerry_sequence", "skerry_rest")
_LARGEST = 2**63 - 1
_EXACT = 2**53  # up to here every integer is a float too
_SMALLEST_SIZE = 65536  # an empty table with its schema takes four pages of 4096 B

Kind = Literal["INTEGER", "REAL", "TEXT", "BLOB"]


class SqliteOptions(Options, frozen=True, kw_only=True):
    """Where rows go and how many stay.

    Parameters
    ----------
    table:
        The table, made when it is missing; letters, digits and underscores. Default ``events``.
    max_rows:
        The number of rows above which the oldest are deleted; default no limit.
    max_size:
        The size of what the database holds, in bytes and without its write-ahead log (up to 4 MB more), above which
        the oldest rows are deleted, a tenth at a time; default no limit.
    max_columns:
        How many columns fields may make; a field beyond goes to the JSON column ``skerry_rest``. Default 100, well
        under the 2000 that SQLite takes: a stage that makes up field names must not wear out the table.
    timeout:
        How long a lock of another program is waited for; default 2 s.
    array_items:
        The largest array that is written out, in numbers; default 1024, so that an embedding is kept.
    """

    table: str = "events"
    max_rows: int | None = None
    max_size: Size | None = None
    max_columns: int = 100
    timeout: Duration = Duration(2.0)
    array_items: int = 1024


class SqliteSink:
    """Inserts each write as one durable transaction (WAL, ``synchronous=FULL``), so a flush has nothing left to do.

    Numbers, text and bytes get typed columns, lists and mappings are JSON text, ``None`` and NaN are NULL. A column is
    added when a field is first seen. What does not fit the type of its column is kept in ``skerry_rest`` as JSON under
    the field's name: nothing is converted into something else.
    """

    Options: ClassVar[type[SqliteOptions]] = SqliteOptions
    blocking: ClassVar[bool] = True

    def __init__(self, address: Address, options: SqliteOptions) -> None:
        # Three slashes are relative to the pipeline file, four are absolute.
        self._given = address.path.removeprefix("/")
        if not self._given:
            raise SpecError(f"{address.text!r} names no file", expected="sqlite:///state.db or sqlite:////var/lib/x.db")
        if not _TABLE.fullmatch(options.table) or options.table.lower().startswith("sqlite_"):
            raise SpecError(
                f"{options.table!r} is no table name",
                where=address.text,
                expected="letters, digits and underscores, at most 63, not beginning with a digit or sqlite_",
            )
        if options.max_rows is not None and options.max_rows < 1:
            raise SpecError("`max_rows` is at least 1", where=address.text)
        if options.max_size is not None and options.max_size < _SMALLEST_SIZE:
            raise SpecError("`max_size` is at least 64KiB", where=address.text)
        self._options = options
        self._encoder = Encoder(options.array_items)
        self._connection: sqlite3.Connection | None = None
        self._columns: _Columns | None = None
        self._path = Path(self._given)
        self._context: Context | None = None
        self._identity: tuple[int, int] | None = None
        self.evicted = 0
        """How many rows were deleted to keep ``max_rows`` and ``max_size``."""

    def open(self, context: Context) -> None:
        """Open the database and make its table.

        Raises ``SinkUnavailableError`` when it is locked or cannot be opened, ``SinkError`` when it is no database.
        """
        self.close()
        self._context = context
        self._path = context.home / self._given
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkUnavailableError(f"{self._path.parent} cannot be made: {error.strerror}") from error
        try:
            self._connection = _connect(self._path, self._options.timeout, context.log)
            self._begin(self._connection)
            self._columns = _Columns.of_table(self._connection, self._options.table, self._options.max_columns)
            self._connection.execute("COMMIT")
            self._identity = _identity(self._path)
        except sqlite3.Error as error:
            self.close()
            raise self._sink_error(error) from error

    def write(self, records: Sequence[Record]) -> None:
        """Insert the records durably, all in one transaction.

        Raises ``SinkFullError`` on a full disk, ``SinkUnavailableError`` on a lock, with the table as it was.
        """
        if self._connection is not None and self._context is not None and _identity(self._path) != self._identity:
            self._context.log.warning("%s was moved away; a new one is begun", self._path)
            self.open(self._context)
        connection, columns = self._connection, self._columns
        if connection is None or columns is None:
            raise SinkUnavailableError(f"{self._path} is not open")
        if not records:
            return
        known = columns.copy()
        try:
            self._begin(connection)
            for record in records:
                self._insert(connection, known, record)
            gone = self._evict(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            _roll_back(connection)
            raise self._sink_error(error) from error
        self._columns = known
        self.evicted += gone

    def flush(self) -> None:
        """Do nothing more: what was written is durable already."""
        if self._connection is None:
            raise SinkUnavailableError(f"{self._path} is not open")

    def close(self) -> None:
        """Close the database; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")

    def _insert(self, connection: sqlite3.Connection, columns: _Columns, record: Record) -> None:
        row: dict[str, Any] = {
            "skerry_time": _time_read(record),
            "skerry_source": record.source,
            "skerry_sequence": record.sequence,
        }
        rest: dict[str, Any] = {}
        for name, value in record.fields.items():
            kind, stored = self._stored(value)
            column = columns.place(connection, str(name), kind, stored)
            if column is not None:
                row[column] = stored
            elif kind is not None:
                rest[str(name)] = value
        row["skerry_rest"] = self._encoder.encode(rest).decode() if rest else None
        names = ", ".join(map(_quoted, row))
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {_quoted(self._options.table)} ({names}) VALUES ({marks})", [*row.values()])

    def _stored(self, value: Any) -> tuple[Kind | None, Any]:
        """Return the column type that a value needs, and the value as SQLite takes it; no type for NULL."""
        if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
            value = value.item()
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None, None
        if isinstance(value, str):
            return "TEXT", value.encode("utf-8", "replace").decode()
        if isinstance(value, bytes | bytearray | memoryview):
            return "BLOB", bytes(value)
        if isinstance(value, int) and abs(value) <= _LARGEST:
            return "INTEGER", int(value)
        if isinstance(value, float):
            return "REAL", float(value)
        return "TEXT", self._encoder.encode(value).decode()

    def _evict(self, connection: sqlite3.Connection) -> int:
        """Delete the oldest rows beyond the limits; return how many."""
        table, gone = _quoted(self._options.table), 0
        if self._options.max_rows is not None:
            newest = f"(SELECT max(rowid) FROM {table})"
            gone += connection.execute(
                f"DELETE FROM {table} WHERE rowid <= {newest} - ?", [self._options.max_rows]
            ).rowcount
        if self._options.max_size is not None:
            while _used_bytes(connection) > self._options.max_size:
                tenth = f"(SELECT rowid FROM {table} ORDER BY rowid LIMIT (SELECT 1 + count(*) / 10 FROM {table}))"
                deleted = connection.execute(f"DELETE FROM {table} WHERE rowid IN {tenth}").rowcount
                if deleted <= 0:
                    break
                gone += deleted
        return gone

    def _sink_error(self, error: Exception) -> SinkError:
        """Return the sink error that an error of SQLite amounts to."""
        code = getattr(error, "sqlite_errorname", "")
        message = f"{self._path}: {error}"
        if code == "SQLITE_FULL" or (code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and _is_full(self._path)):
            return SinkFullError(message, hint="free some space, or limit the sink with max_rows or max_size")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY")):
            return SinkUnavailableError(message)
        return SinkError(message)


class _Columns:
    """Which field goes to which column, and of what type each is."""

    def __init__(self, table: str, limit: int, kinds: dict[str, str]) -> None:
        self._table, self._limit = table, limit
        self._kinds = kinds
        self._names = {name.lower(): name for name in kinds}

    @classmethod
    def of_table(cls, connection: sqlite3.Connection, table: str, limit: int) -> _Columns:
        """Make the table and the columns of its own that it lacks, and read the others."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_quoted(table)} (skerry_id INTEGER PRIMARY KEY, skerry_time TEXT,"
            " skerry_source TEXT, skerry_sequence INTEGER, skerry_rest TEXT)"
        )
        kinds = _table_kinds(connection, table)
        for name in _OWN:
            if name not in kinds:
                kind = "INTEGER" if name == "skerry_sequence" else "TEXT"
                connection.execute(f"ALTER TABLE {_quoted(table)} ADD COLUMN {name} {kind}")
        return cls(table, limit, _table_kinds(connection, table))

    def copy(self) -> _Columns:
        """Return a copy, to be kept only when the transaction is."""
        return _Columns(self._table, self._limit, dict(self._kinds))

    def place(self, connection: sqlite3.Connection, name: str, kind: Kind | None, stored: Any) -> str | None:
        """Return the column for a field, added when there is none yet; ``None`` when the value has to go elsewhere."""
        found = self._names.get(name.lower())
        if found is not None:
            # SQLite does not tell Label from label: the second of them must not overwrite the first.
            fits = found == name and not name.startswith("skerry_") and _fits(kind, stored, self._kinds[found])
            return name if fits else None
        if name.startswith("skerry_") or not _is_column_name(name):
            return None
        if kind is None or len(self._kinds) - len(_OWN) - 1 >= self._limit:
            return None
        connection.execute(f"ALTER TABLE {_quoted(self._table)} ADD COLUMN {_quoted(name)} {kind}")
        self._kinds[name] = kind
        self._names[name.lower()] = name
        return name


def _fits(kind: Kind | None, stored: Any, declared: str) -> bool:
    """Tell whether a column keeps a value as it is, under SQLite's rules of type affinity."""
    if kind in {None, "BLOB"} or declared == "BLOB":
        return True
    if kind == "INTEGER" and declared == "REAL":
        return bool(abs(stored) <= _EXACT)
    if kind in {"INTEGER", "REAL"}:
        return declared in {"INTEGER", "REAL", "NUMERIC"}
    return declared == kind


def _table_kinds(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """Return each column's affinity, by the rules of https://www.sqlite.org/datatype3.html section 3.1."""
    rows: Iterable[tuple[Any, ...]] = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    return {row[1]: _affinity(row[2].upper()) for row in rows}


def _affinity(declared: str) -> str:
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if declared == "" or "BLOB" in declared:
        return "BLOB"
    return "REAL" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _is_column_name(name: str) -> bool:
    return bool(name) and len(name) <= 128 and name.isprintable()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _connect(path: Path, timeout_s: float, log: Log) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            log.warning("%s cannot use a write-ahead log here; it uses %s", path, mode)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_size_limit=4194304")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, by which a database that was replaced is told; ``None`` when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_full(path: Path) -> bool:
    try:
        status = os.statvfs(path.parent)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < 65536


def _time_read(record: Record) -> str:
    """Return when the record was read, in UTC by the wall clock of now."""
    age_s = (time.monotonic_ns() - record.read_ns) / 1e9 if record.read_ns else 0.0
    moment = time.time() - max(0.0, age_s)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
