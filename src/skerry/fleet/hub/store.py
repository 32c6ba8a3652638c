"""The store of a hub: what it has to keep, as one protocol with two files behind it (SQLite, PostgreSQL).

One writer holds one transaction at a time; readers never wait for it. Numbers of records (``id``) rise in the order
of their commits, so whoever reads beyond the last number that he saw skips nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from skerry.fleet.hub.clock import Offset, TimeFrom

MASK = (1 << 64) - 1

READ_BYTES = 4_000_000
"""Bytes of fields that are read at once: what a reader holds in memory, whatever the records are like."""


class UnfitError(ValueError):
    """A record that can never be stored or take effect, whatever is done: poison. Never raised for a full disk."""


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as it lies in the store.

    Parameters
    ----------
    id:
        Its number at this hub, rising in the order of arrival; 0 before it is stored.
    account:
        The number of its (device, epoch).
    digest:
        The 64-bit digest of its content, unsigned.
    fields:
        Its fields as a JSON object in UTF-8.
    at_ms:
        When it was made, in ms of Unix time, by the best clock there is (``at_from``); ``None`` where none is.
    mono_us, boot, offset_ms, synced:
        What the device's own clocks said, kept as they came.
    received_ms:
        When the hub took it, in ms of Unix time.
    """

    id: int
    account: int
    device: str
    epoch: str
    seq: int
    digest: int
    stream: str
    fields: bytes
    at_ms: int | None
    at_from: TimeFrom
    mono_us: int
    boot: str
    offset_ms: int
    synced: bool
    priority: int
    release: str
    received_ms: int


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that could not take effect: why, and a batch that holds it alone (empty once dropped)."""

    id: int
    account: int
    device: str
    epoch: str
    seq: int
    digest: int
    reason: str
    content: bytes
    at_ms: int


class Account(msgspec.Struct, frozen=True):
    """What a hub holds of one (device, epoch): the audit and the losses that the device reported."""

    id: int
    device: str
    epoch: str
    count: int
    checksum: int
    losses: dict[str, int]
    seen_ms: int


class KnownKey(msgspec.Struct, frozen=True):
    """The public key (DER) of a device that was trusted at first use."""

    device: str
    key_id: bytes
    public_key: bytes
    seen_ms: int


class Extent(msgspec.Struct, frozen=True):
    """How much there is: the first and the last number, and the mean bytes of the fields of a record."""

    first: int
    last: int
    mean_bytes: float

    @property
    def count(self) -> int:
        """At most how many records there are."""
        return self.last - self.first + 1 if self.last else 0


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records are meant; everything that is not given is.

    ``since`` and ``until`` are in ms of Unix time, of the record's own time; records of unknown time are then left out.
    """

    device: str | None = None
    epoch: str | None = None
    stream: str | None = None
    release: str | None = None
    since: int | None = None
    until: int | None = None
    priority: int | None = None


class Transaction(Protocol):
    """The one open transaction; everything in it becomes durable at once or not at all."""

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo what is done inside when it raises; savepoints may be nested."""

    def account(self, device: str, epoch: str, now_ms: int) -> Account:
        """Return the account of a (device, epoch), new if need be."""

    def update_account(self, account: Account) -> None:
        """Write an account's count, checksum, losses and time."""

    def digests(self, account: int, seqs: Sequence[int]) -> dict[int, int]:
        """Return the digests of those numbers whose records are here, or were until retention deleted them."""

    def insert(self, records: Sequence[StoredRecord]) -> None:
        """Write records.

        Raises ``UnfitError`` when one of them can never be written, ``HubError`` for what may pass (a full disk).
        """

    def forget(self, up_to: int, before_ms: int, limit: int) -> int:
        """Delete the oldest records but keep their digests, so that a repetition is still known; return how many.

        Those with a number up to ``up_to``, from the first one on up to one that was received at ``before_ms`` or
        later, at most ``limit``.
        """

    def dead(self, account: int, seqs: Sequence[int]) -> dict[int, DeadLetter]:
        """Return the dead letters, dropped ones included, among those numbers."""

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters."""

    def drop_dead(self, letter: int, reason: str) -> None:
        """Empty a dead letter, but remember that it was here."""

    def offsets(self, device: str, boots: Iterable[str]) -> dict[str, Offset]:
        """Return the known clock offsets of a device's boots."""

    def learn_offset(self, device: str, boot: str, offset: Offset) -> None:
        """Remember the clock offset of a boot."""

    def keys(self, device: str) -> list[KnownKey]:
        """Return the public keys of a device."""

    def add_key(self, key: KnownKey) -> None:
        """Remember a public key of a device."""

    def forget_keys(self, device: str) -> int:
        """Forget the keys of a device, so that the next one is trusted; return how many there were."""

    def move_cursor(self, name: str, position: int) -> None:
        """Remember how far an egress has come."""

    def forget_cursor(self, name: str) -> bool:
        """Forget an egress, so that records need not be kept for it; tell whether it was known."""


class Store(Protocol):
    """The database of one hub."""

    kind: str
    """``sqlite`` or ``postgresql``."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """Open the transaction: committed, and durable, when the block ends, undone when it raises; one at a time."""

    def records(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        only: Filter | None = None,
        newest: bool = False,
        most_bytes: int = READ_BYTES,
    ) -> list[StoredRecord]:
        """Return records with a number beyond ``after``, in rising order; the last ones with ``newest``.

        At most ``limit``, and no more once their fields have ``most_bytes``: fewer need not be all.
        """

    def last_id(self) -> int:
        """Return the number of the newest record; 0 where there is none."""

    def accounts(self, device: str | None = None, epoch: str | None = None) -> list[Account]:
        """Return accounts, the last seen first."""

    def dead_letters(self, *, device: str | None = None, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Return dead letters that were not dropped."""

    def cursor(self, name: str) -> int | None:
        """Return how far an egress has come, or ``None`` for one that never ran."""

    def cursors(self) -> dict[str, int]:
        """Return how far every egress has come that ever ran and was not forgotten."""

    def extent(self) -> Extent:
        """Return how much there is."""

    def recompute_audit(self, device: str, epoch: str) -> tuple[int, int]:
        """Return count and sum of digests mod 2^64 as the records themselves give them, deleted ones included."""

    def close(self) -> None:
        """Give everything back; safe to call twice."""


def signed(digest: int) -> int:
    """Return an unsigned 64-bit number as a database holds it: signed."""
    return digest - (1 << 64) if digest >> 63 else digest


def unsigned(number: int) -> int:
    """Return the 64-bit number that :func:`signed` made signed."""
    return number & MASK


def conditions(only: Filter | None, placeholder: str) -> tuple[str, list[Any]]:
    """Return ``AND …`` clauses and their values for a filter; columns are those of the table of records."""
    if only is None:
        return "", []
    owner: Mapping[str, Any] = {"device": only.device, "epoch": only.epoch}
    own: Mapping[str, Any] = {
        "r.stream = ": only.stream, "r.release = ": only.release, "r.at_ms >= ": only.since, "r.at_ms < ": only.until,
        "r.priority >= ": only.priority,
    }  # fmt: skip
    owners = {name: value for name, value in owner.items() if value is not None}
    given = {clause: value for clause, value in own.items() if value is not None}
    clauses = [f"{clause}{placeholder}" for clause in given]
    if owners:
        named = " AND ".join(f"{name} = {placeholder}" for name in owners)
        clauses.insert(0, f"r.account IN (SELECT id FROM accounts WHERE {named})")
    return "".join(f" AND {clause}" for clause in clauses), [*owners.values(), *given.values()]


def within_bytes(rows: Iterable[StoredRecord], most_bytes: int) -> list[StoredRecord]:
    """Return the first records up to some bytes of fields, at least one; no more rows are asked for."""
    found: list[StoredRecord] = []
    held = 0
    for row in rows:
        found.append(row)
        held += len(row.fields)
        if held >= most_bytes:
            break
    return found
