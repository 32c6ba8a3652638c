"""The store in SQLite: one file beside the hub, safe against power cuts (WAL, ``synchronous=FULL``)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
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

VERSION = 1
"""The form of the tables, kept in the file itself (``user_version``)."""

_TABLES = """
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL, count INTEGER NOT NULL,
    checksum INTEGER NOT NULL, losses TEXT NOT NULL, seen_ms INTEGER NOT NULL, UNIQUE (device, epoch));
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, seq INTEGER NOT NULL, digest INTEGER NOT NULL,
    stream TEXT NOT NULL, fields BLOB NOT NULL, at_ms INTEGER, at_from TEXT NOT NULL, mono_us INTEGER NOT NULL,
    boot TEXT NOT NULL, offset_ms INTEGER NOT NULL, synced INTEGER NOT NULL, priority INTEGER NOT NULL,
    release TEXT NOT NULL, received_ms INTEGER NOT NULL, UNIQUE (account, seq));
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, seq INTEGER NOT NULL, digest INTEGER NOT NULL,
    reason TEXT NOT NULL, content BLOB NOT NULL, at_ms INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, seq));
CREATE TABLE boots (
    device TEXT NOT NULL, boot TEXT NOT NULL, offset_ms INTEGER NOT NULL, measured_ms INTEGER NOT NULL,
    PRIMARY KEY (device, boot)) WITHOUT ROWID;
CREATE TABLE keys (
    device TEXT NOT NULL, key_id BLOB NOT NULL, public_key BLOB NOT NULL,
    seen_ms INTEGER NOT NULL, PRIMARY KEY (device, key_id)) WITHOUT ROWID;
CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = (
    "r.id, r.account, a.device, a.epoch, r.seq, r.digest, r.stream, r.fields, r.at_ms, r.at_from, r.mono_us, r.boot,"
    " r.offset_ms, r.synced, r.priority, r.release, r.received_ms"
)
_JOINED = f"SELECT {_COLUMNS} FROM records r JOIN accounts a ON a.id = r.account WHERE r.id > ?"
_INSERT = (
    "INSERT INTO records (account, seq, digest, stream, fields, at_ms, at_from, mono_us, boot, offset_ms, synced,"
    " priority, release, received_ms) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_DEAD = (
    "SELECT d.id, d.account, a.device, a.epoch, d.seq, d.digest, d.reason, d.content, d.at_ms"
    " FROM dead d JOIN accounts a ON a.id = d.account WHERE"
)


class SqliteStore:
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
            if version == 0:
                connection.execute(_TABLES + f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise HubError(f"{self._path} has tables of version {version}", expected=f"version {VERSION}")
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

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading, self._told("read"):
            return list(self._reader.execute(statement, values))

    def records(
        self, *, after: int = 0, limit: int = 1000, only: Filter | None = None, newest: bool = False
    ) -> list[StoredRecord]:
        """Return records beyond a number, in rising order."""
        clauses, values = conditions(only, "?")
        order = "DESC" if newest else "ASC"
        statement = f"{_JOINED}{clauses} ORDER BY r.id {order} LIMIT ?"
        with self._reading, self._told("read"):
            found = within_bytes(map(record_of, self._reader.execute(statement, [after, *values, limit])))
        return found[::-1] if newest else found

    def last_id(self) -> int:
        """Return the number of the newest record."""
        return int(self._read("SELECT coalesce(max(id), 0) FROM records")[0][0])

    def accounts(self, device: str | None = None, epoch: str | None = None) -> list[Account]:
        """Return accounts, the last seen first."""
        rows = self._read(
            "SELECT id, device, epoch, count, checksum, losses, seen_ms FROM accounts"
            " WHERE (?1 IS NULL OR device = ?1) AND (?2 IS NULL OR epoch = ?2) ORDER BY seen_ms DESC, id",
            (device, epoch),
        )
        return [account_of(row) for row in rows]

    def dead_letters(self, *, device: str | None = None, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Return dead letters that were not dropped."""
        rows = self._read(
            f"{_DEAD} d.dropped = 0 AND d.id > ?1 AND (?2 IS NULL OR a.device = ?2) ORDER BY d.id LIMIT ?3",
            (after, device, limit),
        )
        return [dead_of(row) for row in rows]

    def cursor(self, name: str) -> int | None:
        """Return how far an egress has come."""
        rows = self._read("SELECT position FROM cursors WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else None

    def recompute_audit(self, device: str, epoch: str) -> tuple[int, int]:
        """Return count and sum of digests as the records themselves give them."""
        rows = self._read(
            "SELECT r.digest FROM records r JOIN accounts a ON a.id = r.account WHERE a.device = ? AND a.epoch = ?",
            (device, epoch),
        )
        return len(rows), unsigned(sum(unsigned(row[0]) for row in rows))

    def close(self) -> None:
        """Close both connections; the log is folded into the file."""
        if not self._closed:
            self._closed = True
            with self._writing, self._reading:
                self._reader.close()
                self._writer.close()


class SqliteTransaction:
    """The open transaction of a :class:`SqliteStore`."""

    def __init__(self, connection: Any, apsw: Any) -> None:
        self._connection = connection
        # What no repetition mends; everything else (full, busy, damaged) is the store's own trouble.
        self._unfit = (
            apsw.TooBigError, apsw.MismatchError, apsw.ConstraintError, OverflowError, TypeError, ValueError,
        )  # fmt: skip

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done inside when it raises."""
        with self._connection:
            yield

    def account(self, device: str, epoch: str, now_ms: int) -> Account:
        """Return the account of a (device, epoch), new if need be."""
        row = self._connection.execute(
            "INSERT INTO accounts (device, epoch, count, checksum, losses, seen_ms) VALUES (?,?,0,0,'{}',?)"
            " ON CONFLICT (device, epoch) DO UPDATE SET seen_ms = excluded.seen_ms"
            " RETURNING id, device, epoch, count, checksum, losses, seen_ms",
            (device, epoch, now_ms),
        ).fetchall()[0]
        return account_of(row)

    def update_account(self, account: Account) -> None:
        """Write an account's count, checksum, losses and time."""
        self._connection.execute(
            "UPDATE accounts SET count = ?, checksum = ?, losses = ?, seen_ms = ? WHERE id = ?",
            (account.count, signed(account.checksum), json.dumps(account.losses), account.seen_ms, account.id),
        )

    def digests(self, account: int, seqs: Sequence[int]) -> dict[int, int]:
        """Return the digests of those numbers whose records are here."""
        rows = self._connection.execute(
            "SELECT seq, digest FROM records WHERE account = ? AND seq IN (SELECT value FROM json_each(?))",
            (account, json.dumps(list(seqs))),
        )
        return {seq: unsigned(digest) for seq, digest in rows}

    def insert(self, records: Sequence[StoredRecord]) -> None:
        """Write records."""
        try:
            self._connection.executemany(_INSERT, map(row_of, records))
        except self._unfit as error:
            raise UnfitError(f"the store does not take it: {error}") from error

    def dead(self, account: int, seqs: Sequence[int]) -> dict[int, DeadLetter]:
        """Return the dead letters among those numbers."""
        rows = self._connection.execute(
            f"{_DEAD} d.account = ? AND d.seq IN (SELECT value FROM json_each(?))", (account, json.dumps(list(seqs)))
        )
        return {letter.seq: letter for letter in map(dead_of, rows)}

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters."""
        self._connection.executemany(
            "INSERT INTO dead (account, seq, digest, reason, content, at_ms) VALUES (?,?,?,?,?,?)",
            [(each.account, each.seq, signed(each.digest), each.reason, each.content, each.at_ms) for each in letters],
        )

    def unbury(self, letter: int) -> None:
        """Remove a dead letter."""
        self._connection.execute("DELETE FROM dead WHERE id = ?", (letter,))

    def drop_dead(self, letter: int, reason: str) -> None:
        """Empty a dead letter, but remember that it was here."""
        self._connection.execute(
            "UPDATE dead SET dropped = 1, content = x'', reason = ? WHERE id = ?", (reason, letter)
        )

    def offsets(self, device: str, boots: Iterable[str]) -> dict[str, Offset]:
        """Return the known clock offsets of a device's boots."""
        rows = self._connection.execute(
            "SELECT boot, offset_ms, measured_ms FROM boots"
            " WHERE device = ? AND boot IN (SELECT value FROM json_each(?))",
            (device, json.dumps(list(boots))),
        )
        return {boot: Offset(offset_ms, measured_ms) for boot, offset_ms, measured_ms in rows}

    def learn_offset(self, device: str, boot: str, offset: Offset) -> None:
        """Remember the clock offset of a boot."""
        self._connection.execute(
            "INSERT INTO boots VALUES (?,?,?,?) ON CONFLICT (device, boot) DO UPDATE"
            " SET offset_ms = excluded.offset_ms, measured_ms = excluded.measured_ms",
            (device, boot, offset.offset_ms, offset.measured_ms),
        )

    def keys(self, device: str) -> list[KnownKey]:
        """Return the public keys of a device."""
        statement = "SELECT device, key_id, public_key, seen_ms FROM keys WHERE device = ? ORDER BY seen_ms"
        return [KnownKey(*row) for row in self._connection.execute(statement, (device,))]

    def forget_keys(self, device: str) -> int:
        """Forget the keys of a device; return how many there were."""
        self._connection.execute("DELETE FROM keys WHERE device = ?", (device,))
        return int(self._connection.changes())

    def add_key(self, key: KnownKey) -> None:
        """Remember a public key of a device."""
        self._connection.execute(
            "INSERT OR IGNORE INTO keys VALUES (?,?,?,?)", (key.device, key.key_id, key.public_key, key.seen_ms)
        )

    def move_cursor(self, name: str, position: int) -> None:
        """Remember how far an egress has come."""
        self._connection.execute(
            "INSERT INTO cursors VALUES (?,?) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            (name, position),
        )
