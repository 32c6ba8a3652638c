"""The store in PostgreSQL: for fleets whose records have to be where others already look for them."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from skerry.fleet.hub.rows import record_of, row_of
from skerry.fleet.hub.store import READ_BYTES, Filter, StoredRecord, Transaction, UnfitError, conditions, within_bytes
from skerry.fleet.hub.tables import COLUMNS, TABLES, VERSION, Row, SqlReading, SqlTransaction
from skerry.spec.errors import DependencyError, HubError

LOCK = 0x736B6572
"""The advisory lock that a hub holds: two writers would not number records in the order of their commits."""
_ROWS = 50
"""Rows that a cursor at the server hands over at once."""
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
"""Seconds (and, the last one, ms) until a server that says nothing any more counts as gone: devices wait meanwhile."""
_ITS_PATIENCE = (
    "SET synchronous_commit TO on; SET tcp_keepalives_idle TO 10; SET tcp_keepalives_interval TO 5;"
    " SET tcp_keepalives_count TO 3; SET tcp_user_timeout TO 30000"
)
"""A server whose default is to answer before it is durable would make every receipt a lie. And it has to notice as soon
as the hub does that a connection is gone: until then it keeps the lock, by default for two hours."""
_log = logging.getLogger("skerry.hub")
_TYPES = {
    "number": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "int": "BIGINT", "small": "SMALLINT",
    "bool": "BOOLEAN", "bytes": "BYTEA", "json": "JSON",
}  # fmt: skip
_JOINED = (
    "SELECT r.id, r.account, a.device, a.epoch, r.seq, r.digest, r.stream, r.fields::text, r.at_ms, r.at_from,"
    " r.mono_us, r.boot, r.offset_ms, r.synced, r.priority, r.release, r.received_ms"
    " FROM records r JOIN accounts a ON a.id = r.account WHERE r.id > ?"
)


@functools.cache
def _own(statement: str) -> str:
    """Return a statement with psycopg's placeholders."""
    return statement.replace("?", "%s")


class PostgresqlStore(SqlReading):
    """A store in a database of PostgreSQL, which one hub has to itself.

    A connection that breaks is made again at the next use; what was not committed was not answered either.

    Parameters
    ----------
    url:
        ``postgresql://user@host/database``, as libpq takes it.

    Raises
    ------
    DependencyError
        psycopg is not installed.
    HubError
        The database cannot be reached, another hub works in it, or its tables are of another version.
    """

    kind = "postgresql"
    AMONG, BYTES_OF_FIELDS = "= ANY(?)", "octet_length(fields::text)"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise DependencyError(
                "a hub with PostgreSQL needs the package psycopg", hint="pip install 'skerry[postgresql]'"
            ) from error
        self._psycopg, self._url = psycopg, url
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._writer: Any = None
        self._reader: Any = None
        with self._told("opened"):
            self._writer = self._connect_writer()

    def _connect(self) -> Any:
        connection = self._psycopg.connect(self._url, autocommit=True, **_PATIENCE)
        connection.execute(_ITS_PATIENCE)
        return connection

    def _connect_writer(self) -> Any:
        connection = self._connect()
        try:
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()[0]:
                raise HubError("another hub works in this database", expected="one database for each hub")
            if connection.execute("SHOW fsync").fetchone()[0] != "on":
                _log.warning("this PostgreSQL has fsync off: a power cut loses what devices have already forgotten")
            with connection.transaction():
                connection.execute("CREATE TABLE IF NOT EXISTS hub_version (version INTEGER NOT NULL)")
                row = connection.execute("SELECT version FROM hub_version").fetchone()
                if row is not None and row[0] > VERSION:
                    raise HubError(f"the database has tables of version {row[0]}", expected=f"version {VERSION}")
                if row is None or row[0] < VERSION:
                    connection.execute("DELETE FROM hub_version")
                    connection.execute("INSERT INTO hub_version VALUES (%s)", (VERSION,))
                    connection.execute(TABLES.format(**_TYPES))
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        """Turn an error of the database into one of the tree; the URL may hold a password and is not named."""
        try:
            yield
        except self._psycopg.Error as error:
            raise HubError(f"the hub's database cannot be {verb}: {error}") from error

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Open the transaction; see :class:`~skerry.fleet.hub.store.Store`."""
        with self._writing, self._told("written"):
            if self._writer is None or self._writer.broken or self._writer.closed:
                self._writer = self._connect_writer()
            with self._writer.transaction():
                yield PostgresqlTransaction(self._writer, self._psycopg)

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._reading, self._told("read"):
            return list(self._reading_connection().execute(_own(statement), values))

    def _list(self, values: Iterable[Any]) -> list[Any]:
        return list(values)

    def _reading_connection(self) -> Any:
        if self._reader is None or self._reader.broken or self._reader.closed:
            self._reader = self._connect()
        return self._reader

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
        order = "DESC" if newest else "ASC"
        statement = f"{_JOINED}{clauses} ORDER BY r.id {order} LIMIT ?"
        with self._reading, self._told("read"):
            found = self._read_records(statement, [after, *values, limit], most_bytes)
        return found[::-1] if newest else found

    def _read_records(self, statement: str, values: Sequence[Any], most_bytes: int) -> list[StoredRecord]:
        """Read records by a cursor at the server, so that only what is looked at comes here."""
        connection = self._reading_connection()
        with connection.transaction(), connection.cursor(name="records") as rows:
            rows.itersize = _ROWS
            rows.execute(_own(statement), values)
            return within_bytes(map(record_of, rows), most_bytes)

    def close(self) -> None:
        """Close both connections; safe to call twice."""
        with self._writing, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()


class PostgresqlTransaction(SqlTransaction):
    """The open transaction of a :class:`PostgresqlStore`."""

    AMONG = "= ANY(?)"

    def __init__(self, connection: Any, psycopg: Any) -> None:
        self._connection = connection
        # What is the server's own trouble, also where an effect comes upon it.
        self._trouble = (psycopg.OperationalError, psycopg.InternalError)
        # What no repetition mends: values that no column takes. A full disk or a lost server is an OperationalError.
        self._unfit = (psycopg.DataError, psycopg.IntegrityError, OverflowError, TypeError, ValueError)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            cursor = self._connection.execute(_own(statement), values)
        except self._trouble as error:
            raise HubError(f"the hub's database cannot be written: {error}") from error
        return list(cursor) if cursor.description is not None else []

    def _list(self, values: Iterable[Any]) -> list[Any]:
        return list(values)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done inside when it raises."""
        with self._connection.transaction():
            yield

    def insert(self, records: Sequence[StoredRecord]) -> None:
        """Write records."""
        try:
            with self._connection.cursor() as cursor, cursor.copy(f"COPY records ({COLUMNS}) FROM STDIN") as copy:
                for record in records:
                    row = row_of(record)
                    copy.write_row((*row[:4], row[4].decode(), *row[5:]))
        except self._unfit as error:
            raise UnfitError(f"the store does not take it: {str(error).splitlines()[0]}") from error
