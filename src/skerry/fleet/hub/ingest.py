"""Ingest: what happens to one batch, inside one transaction, and what the device is told about it.

The key that tells a repetition (device, epoch, number and digest), the record itself, every further effect and the
audit are written in the same transaction; only when it is durable may the receipt leave. Nothing here waits, reads a
clock or knows a network: it takes values and a transaction, and returns values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from skerry.fleet.hub.clock import Offset, learn, place
from skerry.fleet.hub.store import MASK, Account, DeadLetter, StoredRecord, Transaction, UnfitError
from skerry.spec.errors import SkerryError, WireError
from skerry.wire.batch import Batch, Header, decode, encode
from skerry.wire.limits import DEFAULT_LIMITS, Limits
from skerry.wire.ranges import from_numbers
from skerry.wire.receipt import Receipt
from skerry.wire.record import WireRecord, record_digest

LARGEST_NUMBER = 2**62
"""What a sequence number or a clock may be at most: databases hold 63 bits, and sums of two must fit as well."""
LOSS_KINDS = 256
"""How many kinds of loss are kept of one epoch; an outbox has some 20, and nobody may fill a store with names."""
LONGEST_REASON = 200
"""Characters of a reason that travel back to the device; the link may be thin."""

REPLAYED = "taken in by the hub later, from its dead letters"
"""What a device is told whose record was replayed here: it must not send it again as a new one."""


class Effect(Protocol):
    """What records do to the hub beyond being stored: the same transaction, so exactly once."""

    def __call__(self, transaction: Transaction, records: Sequence[StoredRecord]) -> None:
        """Apply records; any error but of the system marks one of them as poison, and a smaller part is tried."""


class Fates(msgspec.Struct):
    """How many records of a batch met which fate."""

    committed: int = 0
    duplicate: int = 0
    dead: int = 0
    forked: int = 0


class Ingest:
    """Takes batches into the open transaction of a store.

    Parameters
    ----------
    effects:
        What records do beyond being stored, in order.
    limits:
        What a batch may be; a dead letter is a batch of one record.
    """

    def __init__(self, effects: Sequence[Effect] = (), limits: Limits = DEFAULT_LIMITS) -> None:
        self._effects, self.limits = tuple(effects), limits

    def take(self, batch: Batch, transaction: Transaction, now_ms: int) -> tuple[Receipt, Fates]:
        """Store what is new of a batch and return the receipt, which is true once the transaction is durable.

        Parameters
        ----------
        batch:
            A batch whose signature was checked.
        transaction:
            The open one; when this raises, all of it has to be undone.
        now_ms:
            The hub's clock, in ms of Unix time.

        Raises
        ------
        WireError
            A number of the batch cannot be, or comes twice.
        HubError
            The store cannot be written now.
        """
        header = batch.header
        check_numbers(batch)
        account = transaction.account(header.device, header.epoch, now_ms)
        sorting = _sort(batch.records, account, transaction)
        offsets = self._offsets(header, sorting.fresh, transaction, now_ms)
        rows = [_stored(each, header, account, offsets, now_ms) for each in sorting.fresh]
        stored, poison = self.apply(rows, transaction)
        dead = {letter.seq: letter.reason for letter in sorting.dead.values()}
        if poison:
            by_seq = {record.seq: record for record, _ in sorting.fresh}
            transaction.bury(
                [_letter(row, self._packed(by_seq[row.seq], header), reason, now_ms) for row, reason in poison]
            )
            dead |= {row.seq: reason for row, reason in poison}
        account = _counted(account, stored, header, now_ms)
        transaction.update_account(account)
        receipt = Receipt(
            epoch=header.epoch,
            committed=from_numbers([*sorting.duplicates, *(row.seq for row in stored)]),
            dead=sorted((seq, reason[:LONGEST_REASON]) for seq, reason in dead.items()),
            forked=from_numbers(sorting.forked),
            count=account.count,
            checksum=account.checksum,
            hub_ms=now_ms,
        )
        return receipt, Fates(len(stored), len(sorting.duplicates), len(dead), len(sorting.forked))

    def apply(
        self, rows: Sequence[StoredRecord], transaction: Transaction
    ) -> tuple[list[StoredRecord], list[tuple[StoredRecord, str]]]:
        """Store records with every effect; return those that took effect, and the poison among them with reasons.

        A part that fails is undone and halved until what fails is one record: a batch of n with k such costs about
        k log2 n attempts.
        """
        if not rows:
            return [], []
        try:
            with transaction.savepoint():
                transaction.insert(rows)
                for effect in self._effects:
                    _guarded(effect, transaction, rows)
        except UnfitError as error:
            if len(rows) == 1:
                return [], [(rows[0], str(error))]
            middle = len(rows) // 2
            left, bad_left = self.apply(rows[:middle], transaction)
            right, bad_right = self.apply(rows[middle:], transaction)
            return left + right, bad_left + bad_right
        return list(rows), []

    def _packed(self, record: WireRecord, header: Header) -> bytes:
        """Return a batch of one record, so that it can be replayed as it came."""
        return encode(header, [record], None, self.limits)

    def _offsets(
        self, header: Header, fresh: Sequence[tuple[WireRecord, int]], transaction: Transaction, now_ms: int
    ) -> dict[str, Offset]:
        """Return the clock offsets of every boot that is named, the header's one renewed by this batch."""
        boots = {header.boot, *(record.moment.boot for record, _ in fresh)}
        known = transaction.offsets(header.device, boots)
        renewed = learn(known.get(header.boot), header, now_ms)
        if renewed != known.get(header.boot):
            transaction.learn_offset(header.device, header.boot, renewed)
        return {**known, header.boot: renewed}


def replay(letter: DeadLetter, ingest: Ingest, transaction: Transaction) -> str:
    """Try a dead letter again; return nothing when its record took effect now, else the reason why it did not.

    Its number stays dead, for its device may have been told so already, or may be told so when it asks again: what a
    device and its hub count has to be the same, whatever answer got lost. So the audit does not count it.
    """
    if not transaction.dead(letter.account, [letter.seq])[letter.seq].content:
        return "it was replayed or dropped meanwhile"
    batch = decode(letter.content, None, ingest.limits)
    header, record = batch.header, batch.records[0]
    offsets = transaction.offsets(header.device, {header.boot, record.moment.boot})
    account = Account(letter.account, letter.device, letter.epoch, 0, 0, {}, 0)
    row = _stored((record, letter.digest), header, account, offsets, letter.at_ms)
    _, poison = ingest.apply([row], transaction)
    if poison:
        return poison[0][1]
    transaction.drop_dead(letter.id, REPLAYED)
    return ""


class _Sorting(msgspec.Struct):
    """The records of a batch by what is known of them already."""

    fresh: list[tuple[WireRecord, int]]
    duplicates: list[int]
    forked: list[int]
    dead: dict[int, DeadLetter]


def check_numbers(batch: Batch) -> None:
    """Raise ``WireError`` when a number of the batch cannot be, or comes twice."""
    header = batch.header
    if not 0 < header.first <= header.last <= LARGEST_NUMBER or not 0 <= header.sent_mono_us <= LARGEST_NUMBER:
        raise WireError("a batch whose numbers cannot be", where=header.device, expected=f"1 to {LARGEST_NUMBER}")
    if len({record.seq for record in batch.records}) != len(batch.records):
        raise WireError("a batch that names a number twice", where=header.device)


def _sort(records: Sequence[WireRecord], account: Account, transaction: Transaction) -> _Sorting:
    seqs = [record.seq for record in records]
    here = transaction.digests(account.id, seqs)
    dead = transaction.dead(account.id, seqs)
    sorting = _Sorting([], [], [], {})
    for record in records:
        digest, seq = record_digest(record), record.seq
        known = dead[seq].digest if seq in dead else here.get(seq)
        if known is None:
            sorting.fresh.append((record, digest))
        elif known != digest:
            sorting.forked.append(seq)
        elif seq in dead:
            sorting.dead[seq] = dead[seq]  # also where it took effect later: its device may have counted it as dead
        else:
            sorting.duplicates.append(seq)
    return sorting


def _guarded(effect: Effect, transaction: Transaction, rows: Sequence[StoredRecord]) -> None:
    try:
        effect(transaction, rows)
    except (UnfitError, OSError, MemoryError, SkerryError):
        raise  # a full disk or a lost database is no fault of the records
    except Exception as error:  # effects are anybody's code: whatever it does not take is poison, not the hub's end
        raise UnfitError(f"{type(error).__name__}: {error}") from error


def _stored(
    pair: tuple[WireRecord, int], header: Header, account: Account, offsets: dict[str, Offset], now_ms: int
) -> StoredRecord:
    record, digest = pair
    at_ms, at_from = place(record, header, offsets)
    moment = record.moment
    return StoredRecord(
        0, account.id, header.device, header.epoch, record.seq, digest, record.stream, fields_json(record.fields),
        at_ms, at_from, record.mono_us, moment.boot, moment.offset_ms, moment.synced, record.priority, record.release,
        now_ms,
    )  # fmt: skip


def fields_json(fields: dict[str, Any]) -> bytes:
    """Return fields as JSON in UTF-8, integers of any size included."""
    return msgspec.json.encode(fields)


def _letter(row: StoredRecord, content: bytes, reason: str, now_ms: int) -> DeadLetter:
    return DeadLetter(0, row.account, row.device, row.epoch, row.seq, row.digest, reason, content, now_ms)


def _counted(account: Account, stored: Sequence[StoredRecord], header: Header, now_ms: int) -> Account:
    """Return the account with these records in its audit and the losses merged: each only ever rises."""
    losses = dict(account.losses)
    for name, number in header.losses.items():
        if name in losses or len(losses) < LOSS_KINDS:
            losses[name] = max(losses.get(name, 0), number)
    return Account(
        account.id, account.device, account.epoch, account.count + len(stored),
        (account.checksum + sum(row.digest for row in stored)) & MASK, losses, now_ms,
    )  # fmt: skip
