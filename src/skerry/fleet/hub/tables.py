"""The tables of a hub's store, and the statements that SQLite and PostgreSQL share; each brings what differs.

Statements are written with ``?``; a list of numbers is compared by the dialect's ``AMONG``.
"""

from __future__ import annotations

import array
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from skerry.fleet.hub.clock import Offset
from skerry.fleet.hub.rows import account_of, dead_of
from skerry.fleet.hub.store import MASK, Account, DeadLetter, Extent, KnownKey, signed, unsigned

VERSION = 2
"""The form of the tables; those of version 1 are brought to it by adding what is missing."""
RUN = 1024
"""The most digests of one row of ``gone``: a batch looks at a few of them."""
SAMPLE = 500
"""Records that are looked at to tell how large they are on average."""

TABLES = """
CREATE TABLE IF NOT EXISTS accounts (
    id {number}, device TEXT NOT NULL, epoch TEXT NOT NULL, count {int} NOT NULL, checksum {int} NOT NULL,
    losses TEXT NOT NULL, seen_ms {int} NOT NULL, UNIQUE (device, epoch));
CREATE TABLE IF NOT EXISTS records (
    id {number}, account {int} NOT NULL, seq {int} NOT NULL, digest {int} NOT NULL, stream TEXT NOT NULL,
    fields {json} NOT NULL, at_ms {int}, at_from TEXT NOT NULL, mono_us {int} NOT NULL, boot TEXT NOT NULL,
    offset_ms {int} NOT NULL, synced {bool} NOT NULL, priority {small} NOT NULL, release TEXT NOT NULL,
    received_ms {int} NOT NULL, UNIQUE (account, seq));
CREATE INDEX IF NOT EXISTS records_at ON records (at_ms, account);
CREATE TABLE IF NOT EXISTS gone (
    account {int} NOT NULL, first_seq {int} NOT NULL, digests {bytes} NOT NULL, PRIMARY KEY (account, first_seq));
CREATE TABLE IF NOT EXISTS dead (
    id {number}, account {int} NOT NULL, seq {int} NOT NULL, digest {int} NOT NULL, reason TEXT NOT NULL,
    content {bytes} NOT NULL, at_ms {int} NOT NULL, dropped {bool} NOT NULL, UNIQUE (account, seq));
CREATE TABLE IF NOT EXISTS boots (
    device TEXT NOT NULL, boot TEXT NOT NULL, offset_ms {int} NOT NULL, measured_ms {int} NOT NULL,
    PRIMARY KEY (device, boot));
CREATE TABLE IF NOT EXISTS keys (
    device TEXT NOT NULL, key_id {bytes} NOT NULL, public_key {bytes} NOT NULL, seen_ms {int} NOT NULL,
    PRIMARY KEY (device, key_id));
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, position {int} NOT NULL);
"""
COLUMNS = (
    "account, seq, digest, stream, fields, at_ms, at_from, mono_us, boot, offset_ms, synced, priority, release,"
    " received_ms"
)
"""What is written of a record, in the order of :func:`~skerry.fleet.hub.rows.row_of`."""
_ACCOUNT = "id, device, epoch, count, checksum, losses, seen_ms"
_DEAD = (
    "SELECT d.id, d.account, a.device, a.epoch, d.seq, d.digest, d.reason, d.content, d.at_ms"
    " FROM dead d JOIN accounts a ON a.id = d.account WHERE"
)
Row = tuple[Any, ...]


class SqlReading(ABC):
    """What is read of a store beside its records."""

    AMONG: ClassVar[str]
    BYTES_OF_FIELDS: ClassVar[str]

    @abstractmethod
    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a statement; raises ``HubError``."""

    @abstractmethod
    def _list(self, values: Iterable[Any]) -> Any:
        """Return a list as ``AMONG`` takes it."""

    def last_id(self) -> int:
        """Return the number of the newest record."""
        return int(self._read("SELECT coalesce(max(id), 0) FROM records")[0][0])

    def accounts(self, device: str | None = None, epoch: str | None = None) -> list[Account]:
        """Return accounts, the last seen first."""
        given = [(name, value) for name, value in (("device", device), ("epoch", epoch)) if value is not None]
        clauses = " AND ".join(f"{name} = ?" for name, _ in given) or "1 = 1"
        statement = f"SELECT {_ACCOUNT} FROM accounts WHERE {clauses} ORDER BY seen_ms DESC, id"
        return [account_of(row) for row in self._read(statement, [value for _, value in given])]

    def dead_letters(self, *, device: str | None = None, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Return dead letters that were not dropped."""
        clause, values = (" AND a.device = ?", [device]) if device is not None else ("", [])
        statement = f"{_DEAD} d.dropped = ? AND d.id > ?{clause} ORDER BY d.id LIMIT ?"
        return [dead_of(row) for row in self._read(statement, [False, after, *values, limit])]

    def cursor(self, name: str) -> int | None:
        """Return how far an egress has come."""
        return self.cursors().get(name)

    def cursors(self) -> dict[str, int]:
        """Return how far every egress has come that ever ran and was not forgotten."""
        return {name: int(position) for name, position in self._read("SELECT name, position FROM cursors")}

    def extent(self) -> Extent:
        """Return how much there is, by the mean of some records that are spread over all of them."""
        ((first, last),) = self._read("SELECT min(id), max(id) FROM records")
        if first is None:
            return Extent(0, 0, 0.0)
        step = max(1, (last - first) // SAMPLE)
        statement = f"SELECT avg({self.BYTES_OF_FIELDS}) FROM records WHERE id {self.AMONG}"
        ((mean,),) = self._read(statement, (self._list([*range(first, last, step), last]),))
        return Extent(first, last, float(mean))

    def recompute_audit(self, device: str, epoch: str) -> tuple[int, int]:
        """Return count and sum of digests as the records themselves give them."""
        found = self.accounts(device, epoch)
        if not found:
            return 0, 0
        number = (found[0].id,)
        digests = {
            seq: unsigned(d) for seq, d in self._read("SELECT seq, digest FROM records WHERE account = ?", number)
        }
        for first, packed in self._read("SELECT first_seq, digests FROM gone WHERE account = ?", number):
            digests |= dict(enumerate(unpacked(packed), first))
        for (seq,) in self._read("SELECT seq FROM dead WHERE account = ?", number):
            digests.pop(seq, None)  # its device was told that it is dead, and never counts it
        return len(digests), sum(digests.values()) & MASK


class SqlTransaction(ABC):
    """The open transaction, but for savepoints and the writing of records, which each database does in its own way."""

    AMONG: ClassVar[str]

    @abstractmethod
    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Do a statement and return its rows."""

    @abstractmethod
    def _list(self, values: Iterable[Any]) -> Any:
        """Return a list as ``AMONG`` takes it."""

    def account(self, device: str, epoch: str, now_ms: int) -> Account:
        """Return the account of a (device, epoch), new if need be."""
        (row,) = self._run(
            "INSERT INTO accounts (device, epoch, count, checksum, losses, seen_ms) VALUES (?,?,0,0,'{}',?)"
            f" ON CONFLICT (device, epoch) DO UPDATE SET seen_ms = excluded.seen_ms RETURNING {_ACCOUNT}",
            (device, epoch, now_ms),
        )
        return account_of(row)

    def update_account(self, account: Account) -> None:
        """Write an account's count, checksum, losses and time."""
        self._run(
            "UPDATE accounts SET count = ?, checksum = ?, losses = ?, seen_ms = ? WHERE id = ?",
            (account.count, signed(account.checksum), json.dumps(account.losses), account.seen_ms, account.id),
        )

    def digests(self, account: int, seqs: Sequence[int]) -> dict[int, int]:
        """Return the digests of those numbers whose records are or were here."""
        statement = f"SELECT seq, digest FROM records WHERE account = ? AND seq {self.AMONG}"
        found = {seq: unsigned(digest) for seq, digest in self._run(statement, (account, self._list(seqs)))}
        missing = sorted(seq for seq in seqs if seq not in found)
        return {**found, **self._gone(account, missing)}

    def _gone(self, account: int, seqs: Sequence[int]) -> dict[int, int]:
        """Return the digests of those numbers, in rising order, whose records retention deleted."""
        statement = "SELECT first_seq, digests FROM gone WHERE account = ? AND first_seq > ? AND first_seq <= ?"
        found: dict[int, int] = {}
        for stretch in stretches(seqs):
            wanted = set(stretch)
            for first, packed in self._run(statement, (account, stretch[0] - RUN, stretch[-1])):
                found |= {seq: digest for seq, digest in enumerate(unpacked(packed), first) if seq in wanted}
        return found

    def forget(self, up_to: int, before_ms: int, limit: int) -> int:
        """Delete the oldest records but keep their digests; return how many."""
        rows = self._run(
            "SELECT id, account, seq, digest, received_ms FROM records WHERE id <= ? ORDER BY id LIMIT ?",
            (up_to, limit),
        )
        young = next((place for place, row in enumerate(rows) if row[4] >= before_ms), len(rows))
        if not young:
            return 0
        for account, first, digests in runs((row[1], row[2], row[3]) for row in rows[:young]):
            self._run(
                "INSERT INTO gone (account, first_seq, digests) VALUES (?,?,?)", (account, first, packed(digests))
            )
        self._run("DELETE FROM records WHERE id <= ?", (rows[young - 1][0],))
        return young

    def dead(self, account: int, seqs: Sequence[int]) -> dict[int, DeadLetter]:
        """Return the dead letters among those numbers."""
        rows = self._run(f"{_DEAD} d.account = ? AND d.seq {self.AMONG}", (account, self._list(seqs)))
        return {letter.seq: letter for letter in map(dead_of, rows)}

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters."""
        for each in letters:
            self._run(
                "INSERT INTO dead (account, seq, digest, reason, content, at_ms, dropped) VALUES (?,?,?,?,?,?,?)",
                (each.account, each.seq, signed(each.digest), _text(each.reason), each.content, each.at_ms, False),
            )

    def drop_dead(self, letter: int, reason: str) -> None:
        """Empty a dead letter, but remember that it was here."""
        self._run(
            "UPDATE dead SET dropped = ?, content = ?, reason = ? WHERE id = ?", (True, b"", _text(reason), letter)
        )

    def offsets(self, device: str, boots: Iterable[str]) -> dict[str, Offset]:
        """Return the known clock offsets of a device's boots."""
        statement = f"SELECT boot, offset_ms, measured_ms FROM boots WHERE device = ? AND boot {self.AMONG}"
        rows = self._run(statement, (device, self._list(boot for boot in boots if "\0" not in boot)))
        return {boot: Offset(offset_ms, measured_ms) for boot, offset_ms, measured_ms in rows}

    def learn_offset(self, device: str, boot: str, offset: Offset) -> None:
        """Remember the clock offset of a boot."""
        self._run(
            "INSERT INTO boots (device, boot, offset_ms, measured_ms) VALUES (?,?,?,?) ON CONFLICT (device, boot)"
            " DO UPDATE SET offset_ms = excluded.offset_ms, measured_ms = excluded.measured_ms",
            (device, boot, offset.offset_ms, offset.measured_ms),
        )

    def keys(self, device: str) -> list[KnownKey]:
        """Return the public keys of a device."""
        statement = "SELECT device, key_id, public_key, seen_ms FROM keys WHERE device = ? ORDER BY seen_ms"
        return [KnownKey(*row) for row in self._run(statement, (device,))]

    def add_key(self, key: KnownKey) -> None:
        """Remember a public key of a device."""
        self._run(
            "INSERT INTO keys (device, key_id, public_key, seen_ms) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
            (key.device, key.key_id, key.public_key, key.seen_ms),
        )

    def forget_keys(self, device: str) -> int:
        """Forget the keys of a device; return how many there were."""
        return len(self._run("DELETE FROM keys WHERE device = ? RETURNING seen_ms", (device,)))

    def move_cursor(self, name: str, position: int) -> None:
        """Remember how far an egress has come."""
        self._run(
            "INSERT INTO cursors (name, position) VALUES (?,?)"
            " ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            (name, position),
        )

    def forget_cursor(self, name: str) -> bool:
        """Forget an egress; tell whether it was known."""
        return bool(self._run("DELETE FROM cursors WHERE name = ? RETURNING position", (name,)))


def _text(text: str) -> str:
    """Return text as every database takes it: PostgreSQL's holds no NUL."""
    return text.replace("\0", "␀")


def stretches(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield rising numbers in parts whose neighbours are at most :data:`RUN` apart."""
    begin = 0
    for place in range(1, len(seqs) + 1):
        if place == len(seqs) or seqs[place] - seqs[place - 1] > RUN:
            yield seqs[begin:place]
            begin = place


def runs(marks: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (account, first number, digests) of numbers without a gap, at most :data:`RUN` each."""
    open_run: tuple[int, int, list[int]] | None = None
    for account, seq, digest in sorted(marks):
        if (
            open_run is None
            or (account, seq) != (open_run[0], open_run[1] + len(open_run[2]))
            or len(open_run[2]) >= RUN
        ):
            if open_run is not None:
                yield open_run
            open_run = (account, seq, [])
        open_run[2].append(digest)
    if open_run is not None:
        yield open_run


def packed(digests: Sequence[int]) -> bytes:
    """Return signed digests as 8 bytes each, little-endian."""
    return _little(array.array("q", digests)).tobytes()


def unpacked(content: bytes) -> list[int]:
    """Return the unsigned digests that :func:`packed` wrote."""
    return _little(array.array("Q", bytes(content))).tolist()


def _little(numbers: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
