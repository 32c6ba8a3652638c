"""The store in PostgreSQL: for fleets whose records have to be where others already look for them."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from skerry.fleet.hub.clock import Offset
from skerry.fleet.hub.rows import account_of, dead_of, record_of, row_of
from skerry.fleet.hub.store import (
    Account,
    DeadLetter,
    Filter,
    KnownKey,
    StoredRecord,
    Transaction,
    UnfitError,
    conditions,
    signed,
    unsigned,
    within_bytes,
)
from skerry.spec.errors import DependencyError, HubError

LOCK = 0x736B6572
"""The advisory lock that a hub holds: two writers would not number records in the order of their commits."""
VERSION = 1
_ROWS = 50
"""Rows that a cursor at the server hands over at once."""
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
"""Seconds (and, the last one, ms) until a server that says nothing any more counts as gone: devices wait meanwhile."""
_log = logging.getLogger("skerry.hub")

_TABLES = """
CREATE TABLE IF NOT EXISTS hub_version (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL,
    count BIGINT NOT NULL, checksum BIGINT NOT NULL, losses TEXT NOT NULL, seen_ms BIGINT NOT NULL,
    UNIQUE (device, epoch));
CREATE TABLE IF NOT EXISTS records (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account BIGINT NOT NULL, seq BIGINT NOT NULL,
    digest BIGINT NOT NULL, stream TEXT NOT NULL, fields JSON NOT NULL, at_ms BIGINT, at_from TEXT NOT NULL,
    mono_us BIGINT NOT NULL, boot TEXT NOT NULL, offset_ms BIGINT NOT NULL, synced BOOLEAN NOT NULL,
    priority SMALLINT NOT NULL, release TEXT NOT NULL, received_ms BIGINT NOT NULL, UNIQUE (account, seq));
CREATE TABLE IF NOT EXISTS dead (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account BIGINT NOT NULL, seq BIGINT NOT NULL,
    digest BIGINT NOT NULL, reason TEXT NOT NULL, content BYTEA NOT NULL, at_ms BIGINT NOT NULL,
    dropped BOOLEAN NOT NULL DEFAULT FALSE, UNIQUE (account, seq));
CREATE TABLE IF NOT EXISTS boots (
    device TEXT NOT NULL, boot TEXT NOT NULL, offset_ms BIGINT NOT NULL, measured_ms BIGINT NOT NULL,
    PRIMARY KEY (device, boot));
CREATE TABLE IF NOT EXISTS keys (
    device TEXT NOT NULL, key_id BYTEA NOT NULL, public_key BYTEA NOT NULL, seen_ms BIGINT NOT NULL,
    PRIMARY KEY (device, key_id));
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, position BIGINT NOT NULL);
"""
_COLUMNS = (
    "r.id, r.account, a.device, a.epoch, r.seq, r.digest, r.stream, r.fields::text, r.at_ms, r.at_from,"
    " r.mono_us, r.boot, r.offset_ms, r.synced, r.priority, r.release, r.received_ms"
)
_JOINED = f"SELECT {_COLUMNS} FROM records r JOIN accounts a ON a.id = r.account WHERE r.id > %s"
_COPY = (
    "COPY records (account, seq, digest, stream, fields, at_ms, at_from, mono_us, boot, offset_ms, synced, priority,"
    " release, received_ms) FROM STDIN"
)
_DEAD = (
    "SELECT d.id, d.account, a.device, a.epoch, d.seq, d.digest, d.reason, d.content, d.at_ms"
    " FROM dead d JOIN accounts a ON a.id = d.account WHERE"
)


class PostgresqlStore:
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
        # A server whose default is to answer before it is durable would make every receipt a lie.
        connection.execute("SET synchronous_commit TO on")
        return connection

    def _connect_writer(self) -> Any:
        connection = self._connect()
        try:
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()[0]:
                raise HubError("another hub works in this database", expected="one database for each hub")
            if connection.execute("SHOW fsync").fetchone()[0] != "on":
                _log.warning("this PostgreSQL has fsync off: a power cut loses what devices have already forgotten")
            with connection.transaction():
                connection.execute(_TABLES)
                row = connection.execute("SELECT version FROM hub_version").fetchone()
                if row is None:
                    connection.execute("INSERT INTO hub_version VALUES (%s)", (VERSION,))
                elif row[0] != VERSION:
                    raise HubError(f"the database has tables of version {row[0]}", expected=f"version {VERSION}")
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

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading, self._told("read"):
            return list(self._reading_connection().execute(statement, values))

    def _reading_connection(self) -> Any:
        if self._reader is None or self._reader.broken or self._reader.closed:
            self._reader = self._connect()
        return self._reader

    def records(
        self, *, after: int = 0, limit: int = 1000, only: Filter | None = None, newest: bool = False
    ) -> list[StoredRecord]:
        """Return records beyond a number, in rising order."""
        clauses, values = conditions(only, "%s")
        order = "DESC" if newest else "ASC"
        statement = f"{_JOINED}{clauses} ORDER BY r.id {order} LIMIT %s"
        with self._reading, self._told("read"):
            found = self._read_records(statement, [after, *values, limit])
        return found[::-1] if newest else found

    def _read_records(self, statement: str, values: Sequence[Any]) -> list[StoredRecord]:
        """Read records by a cursor at the server, so that only what is looked at comes here."""
        connection = self._reading_connection()
        with connection.transaction(), connection.cursor(name="records") as rows:
            rows.itersize = _ROWS
            rows.execute(statement, values)
            return within_bytes(map(record_of, rows))

    def last_id(self) -> int:
        """Return the number of the newest record."""
        return int(self._read("SELECT coalesce(max(id), 0) FROM records")[0][0])

    def accounts(self, device: str | None = None, epoch: str | None = None) -> list[Account]:
        """Return accounts, the last seen first."""
        rows = self._read(
            "SELECT id, device, epoch, count, checksum, losses, seen_ms FROM accounts"
            " WHERE (%s::text IS NULL OR device = %s) AND (%s::text IS NULL OR epoch = %s) ORDER BY seen_ms DESC, id",
            (device, device, epoch, epoch),
        )
        return [account_of(row) for row in rows]

    def dead_letters(self, *, device: str | None = None, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Return dead letters that were not dropped."""
        rows = self._read(
            f"{_DEAD} NOT d.dropped AND d.id > %s AND (%s::text IS NULL OR a.device = %s) ORDER BY d.id LIMIT %s",
            (after, device, device, limit),
        )
        return [dead_of(row) for row in rows]

    def cursor(self, name: str) -> int | None:
        """Return how far an egress has come."""
        rows = self._read("SELECT position FROM cursors WHERE name = %s", (name,))
        return int(rows[0][0]) if rows else None

    def recompute_audit(self, device: str, epoch: str) -> tuple[int, int]:
        """Return count and sum of digests as the records themselves give them."""
        rows = self._read(
            "SELECT r.digest FROM records r JOIN accounts a ON a.id = r.account WHERE a.device = %s AND a.epoch = %s",
            (device, epoch),
        )
        return len(rows), unsigned(sum(unsigned(row[0]) for row in rows))

    def close(self) -> None:
        """Close both connections; safe to call twice."""
        with self._writing, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()


class PostgresqlTransaction:
    """The open transaction of a :class:`PostgresqlStore`."""

    def __init__(self, connection: Any, psycopg: Any) -> None:
        self._connection = connection
        # What no repetition mends: values that no column takes. A full disk or a lost server is an OperationalError.
        self._unfit = (psycopg.DataError, psycopg.IntegrityError, OverflowError, TypeError, ValueError)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done inside when it raises."""
        with self._connection.transaction():
            yield

    def account(self, device: str, epoch: str, now_ms: int) -> Account:
        """Return the account of a (device, epoch), new if need be."""
        row = self._connection.execute(
            "INSERT INTO accounts (device, epoch, count, checksum, losses, seen_ms) VALUES (%s,%s,0,0,'{}',%s)"
            " ON CONFLICT (device, epoch) DO UPDATE SET seen_ms = excluded.seen_ms"
            " RETURNING id, device, epoch, count, checksum, losses, seen_ms",
            (device, epoch, now_ms),
        ).fetchone()
        return account_of(row)

    def update_account(self, account: Account) -> None:
        """Write an account's count, checksum, losses and time."""
        self._connection.execute(
            "UPDATE accounts SET count = %s, checksum = %s, losses = %s, seen_ms = %s WHERE id = %s",
            (account.count, signed(account.checksum), json.dumps(account.losses), account.seen_ms, account.id),
        )

    def digests(self, account: int, seqs: Sequence[int]) -> dict[int, int]:
        """Return the digests of those numbers whose records are here."""
        rows = self._connection.execute(
            "SELECT seq, digest FROM records WHERE account = %s AND seq = ANY(%s)", (account, list(seqs))
        )
        return {seq: unsigned(digest) for seq, digest in rows}

    def insert(self, records: Sequence[StoredRecord]) -> None:
        """Write records."""
        try:
            with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                for record in records:
                    row = row_of(record)
                    copy.write_row((*row[:4], row[4].decode(), *row[5:]))
        except self._unfit as error:
            raise UnfitError(f"the store does not take it: {str(error).splitlines()[0]}") from error

    def dead(self, account: int, seqs: Sequence[int]) -> dict[int, DeadLetter]:
        """Return the dead letters among those numbers."""
        rows = self._connection.execute(f"{_DEAD} d.account = %s AND d.seq = ANY(%s)", (account, list(seqs)))
        return {letter.seq: letter for letter in map(dead_of, rows)}

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters."""
        for each in letters:
            self._connection.execute(
                "INSERT INTO dead (account, seq, digest, reason, content, at_ms) VALUES (%s,%s,%s,%s,%s,%s)",
                (each.account, each.seq, signed(each.digest), each.reason.replace("\0", "␀"), each.content, each.at_ms),
            )

    def unbury(self, letter: int) -> None:
        """Remove a dead letter."""
        self._connection.execute("DELETE FROM dead WHERE id = %s", (letter,))

    def drop_dead(self, letter: int, reason: str) -> None:
        """Empty a dead letter, but remember that it was here."""
        self._connection.execute(
            "UPDATE dead SET dropped = TRUE, content = '', reason = %s WHERE id = %s", (reason, letter)
        )

    def offsets(self, device: str, boots: Iterable[str]) -> dict[str, Offset]:
        """Return the known clock offsets of a device's boots."""
        rows = self._connection.execute(
            "SELECT boot, offset_ms, measured_ms FROM boots WHERE device = %s AND boot = ANY(%s)",
            (device, [boot for boot in boots if "\0" not in boot]),
        )
        return {boot: Offset(offset_ms, measured_ms) for boot, offset_ms, measured_ms in rows}

    def learn_offset(self, device: str, boot: str, offset: Offset) -> None:
        """Remember the clock offset of a boot."""
        self._connection.execute(
            "INSERT INTO boots VALUES (%s,%s,%s,%s) ON CONFLICT (device, boot) DO UPDATE"
            " SET offset_ms = excluded.offset_ms, measured_ms = excluded.measured_ms",
            (device, boot, offset.offset_ms, offset.measured_ms),
        )

    def keys(self, device: str) -> list[KnownKey]:
        """Return the public keys of a device."""
        statement = "SELECT device, key_id, public_key, seen_ms FROM keys WHERE device = %s ORDER BY seen_ms"
        return [KnownKey(*row) for row in self._connection.execute(statement, (device,))]

    def add_key(self, key: KnownKey) -> None:
        """Remember a public key of a device."""
        self._connection.execute(
            "INSERT INTO keys VALUES (%s,%s,%s,%s) ON CONFLICT DO NOTHING",
            (key.device, key.key_id, key.public_key, key.seen_ms),
        )

    def forget_keys(self, device: str) -> int:
        """Forget the keys of a device; return how many there were."""
        return int(self._connection.execute("DELETE FROM keys WHERE device = %s", (device,)).rowcount)

    def move_cursor(self, name: str, position: int) -> None:
        """Remember how far an egress has come."""
        self._connection.execute(
            "INSERT INTO cursors VALUES (%s,%s) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            (name, position),
        )
