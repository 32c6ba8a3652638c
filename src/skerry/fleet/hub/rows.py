"""Rows: records, dead letters and accounts as either database holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.fleet.hub.store import Account, DeadLetter, StoredRecord, signed, unsigned


def row_of(record: StoredRecord) -> tuple[Any, ...]:
    """Return what is written of a record, without its number."""
    return (
        record.account, record.seq, signed(record.digest), record.stream, record.fields, record.at_ms, record.at_from,
        record.mono_us, record.boot, record.offset_ms, record.synced, record.priority, record.release,
        record.received_ms,
    )  # fmt: skip


def record_of(row: Sequence[Any]) -> StoredRecord:
    """Return the record of a row of either database."""
    number, account, device, epoch, seq, digest, stream, fields, at_ms, at_from, mono_us, *rest = row
    content = fields.encode() if isinstance(fields, str) else bytes(fields)
    boot, offset_ms, synced, priority, release, received_ms = rest
    return StoredRecord(
        number, account, device, epoch, seq, unsigned(digest), stream, content, at_ms, at_from, mono_us, boot,
        offset_ms, bool(synced), priority, release, received_ms,
    )  # fmt: skip


def dead_of(row: Sequence[Any]) -> DeadLetter:
    """Return the dead letter of a row of either database."""
    number, account, device, epoch, seq, digest, reason, content, at_ms = row
    return DeadLetter(number, account, device, epoch, seq, unsigned(digest), reason, bytes(content), at_ms)


def account_of(row: Sequence[Any]) -> Account:
    """Return the account of a row of either database."""
    number, device, epoch, count, checksum, losses, seen_ms = row
    return Account(number, device, epoch, count, unsigned(checksum), msgspec.json.decode(losses), seen_ms)
