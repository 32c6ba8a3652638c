"""The store in SQLite: one file beside the hub, safe against power cuts (WAL, ``synchronous=FULL``)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from skerry.fleet.hub.rows import record_of, row_of
from skerry.fleet.hub.store import READ_BYTES, Filter, StoredRecord, Transaction, UnfitError, conditions, within_bytes
from skerry.fleet.hub.tables import COLUMNS, TABLES, VERSION, Row, SqlReading, SqlTransaction
from skerry.spec.errors import DependencyError, HubError

NARROW = 50_000
"""Up to how many records of a time or a device an index is used: they are sorted, for every page of an answer."""
_TYPES = {
    "number": "INTEGER PRIMARY KEY AUTOINCREMENT", "int": "INTEGER", "small": "INTEGER", "bool": "INTEGER",
    "bytes": "BLOB", "json": "BLOB",
}  # fmt: skip
_JOINED = (
    "SELECT r.id, r.account, a.device, a.epoch, r.seq, r.digest, r.stream, r.fields, r.at_ms, r.at_from, r.mono_us,"
    " r.boot, r.offset_ms, r.synced, r.priority, r.release, r.received_ms"
    " FROM records r {} CROSS JOIN accounts a ON a.id = r.account WHERE"
)
_AMONG = "IN (SELECT value FROM json_each(?))"


class SqliteStore(SqlReading):
    """A store in one file.

    Parameters
    ----------
    path:
        The file; made if it is not there.

    Raises
    ------
    DependencyError
        apsw is not installed.
    HubError
        The file cannot be opened, is none of SQLite, or was written by a newer version.
    """

    kind = "sqlite"
    AMONG, BYTES_OF_FIELDS = _AMONG, "length(fields)"

    def __init__(self, path: Path) -> None:
        try:
            import apsw
        except ImportError as error:
            raise DependencyError("a hub needs the package apsw", hint="pip install 'skerry[hub]'") from error
        self._apsw = apsw
        self._path = path
        self._writing, self._reading = threading.Lock(), threading.Lock()
        with self._told("opened"):
            self._writer, self._reader = self._connect(), self._connect()
        self._closed = False

    def _connect(self) -> Any:
        connection = self._apsw.Connection(str(self._path))
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864")
        with connection:
            version = connection.execute("PRAGMA user_version").get
            if version > VERSION:
                raise HubError(f"{self._path} has tables of version {version}", expected=f"version {VERSION}")
            if version < VERSION:
                connection.execute(TABLES.format(**_TYPES) + f"PRAGMA user_version={VERSION}")
        return connection

    @contextlib.contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        """Turn an error of the database into one that names the file."""
        try:
            yield
        except self._apsw.Error as error:
            raise HubError(f"the hub's store cannot be {verb}: {error}", where=str(self._path)) from error

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Open the transaction; see :class:`~skerry.fleet.hub.store.Store`."""
        with self._writing, self._told("written"):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield SqliteTransaction(self._writer, self._apsw)
                self._writer.execute("COMMIT")
            except BaseException:
                # A commit that failed (full disk) may have rolled back by itself already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._reading, self._told("read"):
            return list(self._reader.execute(statement, values))

    def _list(self, values: Iterable[Any]) -> str:
        return json.dumps(list(values))

    def records(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        only: Filter | None = None,
        newest: bool = False,
        most_bytes: int = READ_BYTES,
    ) -> list[StoredRecord]:
        """Return records beyond a number, in rising order."""
        clauses, values = conditions(only, "?")
        # SQLite cannot tell whether an index leads to few records, which are then sorted for every page, or to most of
        # them: then it is better to walk along the numbers. A plus keeps it from that, NOT INDEXED makes it do that.
        number, index = ("+r.id", "") if only is not None and self._is_narrow(only) else ("r.id", "NOT INDEXED")
        order = "DESC" if newest else "ASC"
        statement = f"{_JOINED.format(index)} {number} > ?{clauses} ORDER BY {number} {order} LIMIT ?"
        with self._reading, self._told("read"):
            found = within_bytes(map(record_of, self._reader.execute(statement, [after, *values, limit])), most_bytes)
        return found[::-1] if newest else found

    def _is_narrow(self, only: Filter) -> bool:
        """Tell whether a time or a device leaves few records, by looking at no more of an index than that."""
        named = Filter(device=only.device, epoch=only.epoch), Filter(since=only.since, until=only.until)
        for part in named:
            clauses, values = conditions(part, "?")
            statement = f"SELECT count(*) FROM (SELECT 1 FROM records r WHERE 1{clauses} LIMIT ?)"
            if clauses and self._read(statement, [*values, NARROW])[0][0] < NARROW:
                return True
        return False

    def close(self) -> None:
        """Close both connections; the log is folded into the file."""
        if not self._closed:
            self._closed = True
            with self._writing, self._reading:
                self._reader.close()
                self._writer.close()


class SqliteTransaction(SqlTransaction):
    """The open transaction of a :class:`SqliteStore`."""

    AMONG = _AMONG

    def __init__(self, connection: Any, apsw: Any) -> None:
        self._connection, self._depth = connection, 0
        # What is the store's own trouble, also where an effect comes upon it.
        self._trouble = (
            apsw.FullError, apsw.IOError, apsw.BusyError, apsw.CorruptError, apsw.NoMemError, apsw.ReadOnlyError,
            apsw.CantOpenError, apsw.InterruptError,
        )  # fmt: skip
        # What no repetition mends; everything else (full, busy, damaged) is the store's own trouble.
        self._unfit = (
            apsw.TooBigError, apsw.MismatchError, apsw.ConstraintError, OverflowError, TypeError, ValueError,
        )  # fmt: skip

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return list(self._connection.execute(statement, values))
        except self._trouble as error:
            raise HubError(f"the hub's store cannot be written: {error}") from error

    def _list(self, values: Iterable[Any]) -> str:
        return json.dumps(list(values))

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done inside when it raises."""
        self._depth += 1
        name = f"s{self._depth}"
        self._connection.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            # A full disk undoes the whole transaction by itself; then there is nothing to go back to.
            if self._connection.in_transaction:
                self._connection.execute(f"ROLLBACK TO {name}; RELEASE {name}")
            raise
        finally:
            self._depth -= 1
        self._connection.execute(f"RELEASE {name}")

    def insert(self, records: Sequence[StoredRecord]) -> None:
        """Write records."""
        try:
            self._connection.executemany(
                f"INSERT INTO records ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", map(row_of, records)
            )
        except self._unfit as error:
            raise UnfitError(f"the store does not take it: {error}") from error
