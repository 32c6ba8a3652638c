"""The database file of an outbox: opened safely, with the errors of SQLite turned into what has to be done."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.run.outbox.options import PRIORITIES
from skerry.spec.errors import DependencyError, OutboxError

if TYPE_CHECKING:
    import apsw

APPLICATION_ID = 0x534B5259
"""``SKRY``: tells our file from any other database."""
SCHEMA_VERSION = 1
_BUSY_MS = 5000  # another process only ever reads, or leaves a request: a wait that long means that it hangs
_LONGEST_LOG = 8_000_000  # bytes: a log that one large commit made longer gives the rest back
_CLASS_TABLE = """
CREATE TABLE {name} (
    seq INTEGER PRIMARY KEY,
    digest INTEGER NOT NULL,
    born_ms INTEGER NOT NULL,
    wall_ms INTEGER,
    ttl_ms INTEGER,
    payload BLOB NOT NULL
);
"""
_SCHEMA = (
    "".join(_CLASS_TABLE.format(name=name) for name in PRIORITIES)
    + """
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    reason TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE store (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE loss (name TEXT PRIMARY KEY, count INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE request (id INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, letter INTEGER);
"""
)


class DamagedError(OutboxError):
    """The file is no database any more, or a page of it cannot be right."""


class DiskFullError(OutboxError):
    """No space is left where the database is."""


def load_apsw() -> Any:
    """Import the package of the store; raises ``DependencyError`` where it is missing."""
    try:
        import apsw
    except ImportError as error:
        raise DependencyError("the outbox needs the package apsw", hint="pip install 'skerry[sync]'") from error
    return apsw


def open_database(path: Path, *, synchronous: str = "FULL", vfs: str | None = None) -> apsw.Connection:
    """Open or make a store for writing: write-ahead log, every commit synced.

    Raises
    ------
    DamagedError
        There is a file, and it is no store that can be read.
    OutboxError
        The store was made by a newer Skerry, or cannot be opened at all.
    """
    sqlite = load_apsw()
    flags = sqlite.SQLITE_OPEN_READWRITE | sqlite.SQLITE_OPEN_CREATE
    try:
        connection: apsw.Connection = sqlite.Connection(str(path), flags, vfs, statementcachesize=300)
    except sqlite.Error as error:
        raise translated(error, path) from error
    try:
        _configure(connection, sqlite, synchronous)
        _check_schema(connection, path)
    except sqlite.Error as error:
        connection.close(True)
        raise translated(error, path) from error
    except OutboxError:
        connection.close(True)
        raise
    return connection


def open_reader(path: Path, *, vfs: str | None = None) -> apsw.Connection:
    """Open a store for reading only, while its process writes; raises as :func:`open_database` does."""
    sqlite = load_apsw()
    try:
        connection: apsw.Connection = sqlite.Connection(str(path), sqlite.SQLITE_OPEN_READONLY, vfs)
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("SELECT count(*) FROM store").fetchall()
    except sqlite.Error as error:
        raise translated(error, path) from error
    return connection


def _configure(connection: apsw.Connection, sqlite: Any, synchronous: str) -> None:
    connection.set_busy_timeout(_BUSY_MS)
    # The log stays where it is, at its size: a commit into space that exists needs no change of the file's own data.
    flag = ctypes.c_int(1)
    connection.file_control("main", sqlite.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(flag))
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()  # the outbox chooses the moment
    connection.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}").fetchall()
    connection.execute("PRAGMA cell_size_check = ON")  # a damaged page is found when it is read, not when it crashes


def _check_schema(connection: apsw.Connection, path: Path) -> None:
    version = one_row(connection, "PRAGMA user_version")[0]
    if version == SCHEMA_VERSION:
        return
    if version:
        raise OutboxError(
            f"this store has the form {version}",
            where=str(path),
            expected=f"form {SCHEMA_VERSION} at most",
            hint="it was made by a newer Skerry: install that again, or move the file away",
        )
    if one_row(connection, "SELECT count(*) FROM sqlite_schema")[0]:
        raise DamagedError("this database is no outbox", where=str(path))
    connection.execute(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


def one_row(connection: apsw.Connection, query: str, bindings: Sequence[Any] = ()) -> tuple[Any, ...]:
    """Return the row of a query that has one, or nothing where there is none."""
    row: tuple[Any, ...] | None = connection.execute(query, bindings).fetchone()
    return () if row is None else row


def translated(error: Exception, path: Path) -> OutboxError:
    """Return what an error of SQLite means for the outbox."""
    apsw = load_apsw()
    text = str(error) or type(error).__name__
    if isinstance(error, UnicodeDecodeError | apsw.CorruptError | apsw.NotADBError | apsw.SchemaChangeError):
        return DamagedError(f"the store is damaged: {text}", where=str(path))
    if isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        return DiskFullError("the disk is full", where=str(path))
    if isinstance(error, apsw.BusyError):
        return OutboxError(f"the store is locked by another program: {text}", where=str(path), hint="end that program")
    if isinstance(error, apsw.CantOpenError) and not path.parent.is_dir():
        return OutboxError("the folder of the store is not there", where=str(path.parent))
    return OutboxError(f"the store cannot be used: {text}", where=str(path))
