"""The ledger of an authority: tokens, certificates, keys and revocations, in one database that processes share.

The command line and a running hub write into the same file: a revocation counts from the moment it is written, and
two hubs cannot both take one token.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from skerry.spec.errors import CertificateRefusedError, EnrolmentRefusedError, HubError, TrustError
from skerry.trust.names import Role, SpiffeId

_BUSY_S = 10.0
"""How long to wait for another process that writes; its transactions take milliseconds."""
_READ_BUSY_S = 3.0
"""The same for whoever reads: a hub asks at each request, and others wait behind it."""
_MOST = 1000
"""Certificates and keys of one member; one that renews in a loop fills no disk. In 90 days one with a chip has 270."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    digest BLOB PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL,
    used REAL, key_id BLOB, void INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS certificates (
    number INTEGER PRIMARY KEY AUTOINCREMENT, serial TEXT NOT NULL UNIQUE, role TEXT NOT NULL, name TEXT NOT NULL,
    key_id BLOB NOT NULL, authority BLOB NOT NULL, issued REAL NOT NULL, ends REAL NOT NULL, revoked REAL,
    renewals INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS certificates_of ON certificates (role, name, number);
CREATE INDEX IF NOT EXISTS certificates_by_key ON certificates (key_id, number);
CREATE TABLE IF NOT EXISTS keys (
    key_id BLOB NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, public_key BLOB NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (key_id));
CREATE TABLE IF NOT EXISTS revocations (
    role TEXT NOT NULL, name TEXT NOT NULL, revoked REAL NOT NULL, PRIMARY KEY (role, name));
"""


class Entry(NamedTuple):
    """A certificate to be noted down: ``issued`` and ``ends`` in seconds since 1970, ``authority`` its key's id."""

    who: SpiffeId
    serial: str
    key_id: bytes
    public_key: bytes
    authority: bytes
    issued: float
    ends: float


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A device or an operator as the ledger knows it; times are seconds since 1970.

    ``twins`` counts renewals from a certificate that had been renewed before: a copy of the device's disk may be in
    use elsewhere, or an answer of the hub got lost.
    """

    role: Role
    name: str
    state: str
    serial: str = ""
    issued: float | None = None
    ends: float | None = None
    revoked: float | None = None
    token_expires: float | None = None
    twins: int = 0


class Ledger:
    """What an authority remembers; safe to use from several threads and processes.

    Every method raises ``HubError`` when the file cannot be read or written for the moment: that says nothing about
    whoever asks. Those who read do not wait for those who write, but for the instant in which a change is made.

    Parameters
    ----------
    path:
        The file.
    make:
        Whether to make it. Otherwise a file that is missing is an error: an empty one would forget all revocations.

    Raises
    ------
    TrustError
        The file is missing, is no ledger, others may write it, or it cannot be opened or written.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self._path = path
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            if make:
                _make_file(path)
            _require_file(path)
            self._database, self._reader = _connect(path, _BUSY_S), _connect(path, _READ_BUSY_S)
            # No write-ahead log: below SQLite 3.51.3 two processes that reset it can damage it (decision 15).
            self._database.execute("PRAGMA journal_mode=DELETE")
            self._database.execute("PRAGMA synchronous=EXTRA")
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise TrustError(f"the authority's ledger cannot be opened: {error}", where=str(path)) from error

    def close(self) -> None:
        """Close the database; safe to call twice."""
        with self._lock, self._read_lock:
            self._database.close()
            self._reader.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the database in one transaction, durable when the block ends."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:  # a full disk ends it, a reader that does not let go does not
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise HubError(f"the authority's ledger cannot be written: {error}", where=str(self._path)) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the database to read."""
        with self._read_lock:
            try:
                yield self._reader
            except sqlite3.Error as error:
                raise HubError(f"the authority's ledger cannot be read: {error}", where=str(self._path)) from error

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._reading() as database:
            return database.execute(query, values).fetchall()

    def add_token(self, digest: bytes, role: Role, name: str, issued: float, expires: float) -> None:
        """Note that a token was given out; times in seconds since 1970."""
        with self._writing() as database:
            database.execute("DELETE FROM tokens WHERE expires < ?", (issued - 30 * 86400.0,))
            database.execute(
                "INSERT INTO tokens (digest, role, name, issued, expires) VALUES (?, ?, ?, ?, ?)",
                (digest, role, name, issued, expires),
            )

    def admit(self, entry: Entry, *, token: bytes | None = None, keep_s: float) -> None:
        """Note the first certificate of somebody, and revoke those of whoever had this name with another key.

        One transaction: a revocation comes before all of it, or takes the new certificate back too. With ``token`` (its
        digest), that is used up; the same key may come again until it expires, as its answer may have got lost.

        Raises
        ------
        EnrolmentRefusedError
            The token is unknown, used, expired or withdrawn, or the key is another's.
        """
        who, now = entry.who, entry.issued
        with self._writing() as database:
            if token is not None:
                _use_token(database, token, entry.key_id, now)
            ended = database.execute(
                "UPDATE certificates SET revoked = ? WHERE role = ? AND name = ? AND key_id != ? AND revoked IS NULL",
                (now, who.role, who.name, entry.key_id),
            ).rowcount
            if ended:
                database.execute("INSERT OR REPLACE INTO revocations VALUES (?, ?, ?)", (who.role, who.name, now))
            _note(database, entry, keep_s)

    def renew(self, entry: Entry, old: str, *, counts: bool, an_hour: int, keep_s: float) -> None:
        """Note a certificate that was got by an older one, whose serial is ``old``.

        One transaction: nobody gets a certificate by one that is revoked at the same moment. ``counts`` says whether
        the old one is over by that, ``an_hour`` how many certificates somebody may get in one.

        Raises
        ------
        CertificateRefusedError
            The old one was revoked.
        EnrolmentRefusedError
            The key is another's.
        HubError
            Not so often.
        """
        with self._writing() as database:
            _require_patience(database, entry, an_hour)
            if _is_revoked(database, entry.who.role, entry.who.name, old):
                raise CertificateRefusedError(f"the certificate of {entry.who.name!r} was revoked")
            if counts:
                database.execute("UPDATE certificates SET renewals = renewals + 1 WHERE serial = ?", (old,))
            _note(database, entry, keep_s)

    def key(self, key_id: bytes) -> tuple[Role, str, bytes] | None:
        """Return whose key it is and the public key (DER), or ``None`` when it is unknown or was revoked."""
        rows = self._rows(
            "SELECT role, name, public_key FROM keys WHERE key_id = ? AND NOT coalesce("
            "(SELECT revoked IS NOT NULL FROM certificates WHERE certificates.key_id = keys.key_id"
            " ORDER BY number DESC LIMIT 1),"
            " EXISTS (SELECT 1 FROM revocations WHERE revocations.role = keys.role AND revocations.name = keys.name))",
            key_id,
        )
        return rows[0] if rows else None  # type: ignore[return-value]

    def is_revoked(self, role: Role, name: str, serial: str) -> bool:
        """Tell whether a certificate was revoked; one that is not known here was, if its holder ever was."""
        with self._reading() as database:
            return _is_revoked(database, role, name, serial)

    def is_out(self, who: str) -> bool:
        """Tell whether a certificate (by its serial in hex) or a device's newest one (by its id) was revoked."""
        rows = self._rows(
            "SELECT revoked FROM certificates WHERE serial = ?1 OR (role = 'device' AND name = ?1)"
            " ORDER BY serial = ?1 DESC, number DESC LIMIT 1",
            who,
        )
        if rows:
            return rows[0][0] is not None
        return bool(self._rows("SELECT 1 FROM revocations WHERE role = 'device' AND name = ?", who))

    def knows_serial(self, serial: str) -> bool:
        """Tell whether a certificate of this serial number (hex) was noted."""
        return bool(self._rows("SELECT 1 FROM certificates WHERE serial = ?", serial))

    def revoke(self, role: Role, name: str, now: float) -> int:
        """Revoke every certificate of a member and withdraw its tokens; return how many were still unrevoked."""
        with self._writing() as database:
            database.execute("INSERT OR REPLACE INTO revocations VALUES (?, ?, ?)", (role, name, now))
            database.execute("UPDATE tokens SET void = 1 WHERE role = ? AND name = ?", (role, name))
            return database.execute(
                "UPDATE certificates SET revoked = ? WHERE role = ? AND name = ? AND revoked IS NULL", (now, role, name)
            ).rowcount

    def revoke_serial(self, serial: str, now: float) -> int:
        """Revoke one certificate; return 0 when it is not known or was revoked before."""
        with self._writing() as database:
            return database.execute(
                "UPDATE certificates SET revoked = ? WHERE serial = ? AND revoked IS NULL", (now, serial)
            ).rowcount

    def holders(self, authority: bytes, now: float) -> list[str]:
        """Return the names of the unrevoked whose newest certificate an authority (its key's id) signed.

        Operators whose certificate is over are not among them: nobody waits for them.
        """
        rows = self._rows(
            "SELECT name, authority, max(number) FROM certificates WHERE revoked IS NULL"
            " AND (role != 'operator' OR ends > ?) GROUP BY role, name",
            now,
        )
        return sorted(str(name) for name, signed, _ in rows if signed == authority)

    def members(self, now: float) -> list[Member]:
        """Return everybody who was ever certified or given a token, by role and name."""
        newest = self._rows(
            "SELECT role, name, serial, issued, ends, revoked, max(number) FROM certificates GROUP BY role, name"
        )
        twins = self._rows("SELECT role, name, sum(max(renewals - 1, 0)) FROM certificates GROUP BY role, name")
        waiting = self._rows(
            "SELECT role, name, max(expires) FROM tokens WHERE used IS NULL AND NOT void AND expires > ?"
            " GROUP BY role, name",
            now,
        )
        found: dict[tuple[object, object], dict[str, object]] = {}
        for role, name, serial, issued, ends, revoked, _ in newest:
            over = isinstance(ends, float) and ends <= now
            state = "revoked" if revoked is not None else "away" if over else "enrolled"
            found[role, name] = {"serial": serial, "issued": issued, "ends": ends, "revoked": revoked, "state": state}
        for role, name, expires in waiting:
            found.setdefault((role, name), {"state": "waiting"})["token_expires"] = expires
        for role, name, count in twins:
            found[role, name]["twins"] = count
        return [
            msgspec.convert({"role": role, "name": name, **fields}, Member)
            for (role, name), fields in sorted(found.items(), key=str)
        ]


def _connect(path: Path, busy_s: float) -> sqlite3.Connection:
    place = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(place, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)


def _make_file(path: Path) -> None:
    """Make an empty file that only its owner may read; sqlite3 itself would let others."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _require_file(path: Path) -> None:
    """Raise ``TrustError`` unless there is a file that others cannot write.

    It is looked at and not opened: to close it would end the locks that this process holds on it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise TrustError(
            "the authority's ledger is missing: it says who was revoked", where=str(path),
            hint=f"put it back from your copy; if nobody was ever revoked: (umask 077; touch '{path}')",
        ) from error  # fmt: skip
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TrustError(
            "other users may write into the authority's ledger, so nothing in it can be trusted", where=str(path),
            expected="mode 0600", hint=f"look who did that, then: chmod 600 '{path}'",
        )  # fmt: skip


def _is_revoked(database: sqlite3.Connection, role: Role, name: str, serial: str) -> bool:
    known = database.execute("SELECT revoked FROM certificates WHERE serial = ?", (serial,)).fetchone()
    if known:
        return known[0] is not None
    held = database.execute("SELECT 1 FROM revocations WHERE role = ? AND name = ?", (role, name)).fetchone()
    return held is not None


def _require_patience(database: sqlite3.Connection, entry: Entry, an_hour: int) -> None:
    """Raise ``HubError`` for whoever got too many certificates of late: each one costs the hub's disk."""
    count = database.execute(
        "SELECT count(*) FROM certificates WHERE role = ? AND name = ? AND issued BETWEEN ? AND ?",
        (entry.who.role, entry.who.name, entry.issued - 3600.0, entry.issued),
    ).fetchone()[0]
    if count >= an_hour:
        raise HubError(
            f"{entry.who.name!r} got {count} certificates within an hour: not so often",
            hint="its newest one counts; does it renew in a loop, or is there a copy of its disk?",
        )


def _note(database: sqlite3.Connection, entry: Entry, keep_s: float) -> None:
    """Note a certificate and its key, and forget what is too old or too much; raise for a key that is another's."""
    who, old = entry.who, entry.issued - keep_s
    owner = database.execute("SELECT role, name FROM keys WHERE key_id = ?", (entry.key_id,)).fetchone()
    if owner is not None and owner != (who.role, who.name):
        raise EnrolmentRefusedError("this key is another's already", hint="delete the key and enrol again")
    database.execute(
        "INSERT INTO certificates (serial, role, name, key_id, authority, issued, ends) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (entry.serial, who.role, who.name, entry.key_id, entry.authority, entry.issued, entry.ends),
    )
    database.execute(
        "INSERT INTO keys (key_id, role, name, public_key, used) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (key_id) DO UPDATE SET used = excluded.used",
        (entry.key_id, who.role, who.name, entry.public_key, entry.issued),
    )
    # What was revoked stays: a certificate that is not known counts as long as its holder was never revoked.
    database.execute(
        "DELETE FROM certificates WHERE role = ?1 AND name = ?2 AND revoked IS NULL AND (ends < ?3 OR number <="
        " (SELECT number FROM certificates WHERE role = ?1 AND name = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?4))",
        (who.role, who.name, old, _MOST),
    )
    database.execute(
        "DELETE FROM keys WHERE role = ?1 AND name = ?2 AND (used < ?3 OR used <"
        " (SELECT used FROM keys WHERE role = ?1 AND name = ?2 ORDER BY used DESC LIMIT 1 OFFSET ?4))",
        (who.role, who.name, old, _MOST),
    )


def _use_token(database: sqlite3.Connection, digest: bytes, key_id: bytes, now: float) -> None:
    taken = database.execute(
        "UPDATE tokens SET used = coalesce(used, ?), key_id = ? WHERE digest = ? AND NOT void AND expires > ?"
        " AND (used IS NULL OR key_id = ?)",
        (now, key_id, digest, now, key_id),
    ).rowcount
    if not taken:
        known = database.execute("SELECT used, expires, void FROM tokens WHERE digest = ?", (digest,)).fetchone()
        raise _refusal(known, now)


def _refusal(known: tuple[float | None, float, int] | None, now: float) -> EnrolmentRefusedError:
    """Return why a token was not taken."""
    if known is None:
        return EnrolmentRefusedError(
            "this token is not known here", hint="is it for another hub? `skerry keys token NAME` makes a new one"
        )
    used, expires, void = known
    if void:
        return EnrolmentRefusedError("this token was withdrawn when its device was revoked")
    if used is not None:
        return EnrolmentRefusedError(
            "this token was used before, and a token works once",
            hint="if it was not you, revoke that device; `skerry keys token NAME` makes a new one",
        )
    return EnrolmentRefusedError(
        f"this token expired {(now - expires) / 60:.0f} minutes ago", hint="`skerry keys token NAME` makes a new one"
    )
