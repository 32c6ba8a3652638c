"""Merging: the envelope of a record that was made of several."""

from __future__ import annotations

from typing import Any

from skerry.spec.record import Merged, Record


def without_fields(record: Record, carry: tuple[str, ...] = ()) -> Record:
    """Return the envelope of a record with none but the fields to carry: what a window keeps must not hold a frame."""
    fields = record.fields
    return record.with_fields({name: fields[name] for name in carry if name in fields})


def merged(last: Record, fields: dict[str, Any], items: int, now_ns: int | None) -> Merged:
    """Return a record made of ``items`` held ones in the envelope of the last of them.

    It is as old as the moment ``now_ns`` at which it was made: a window that was open for a minute must not miss a
    deadline of a second. ``None`` stands for the end of the run, when nothing expires any more.
    """
    if now_ns is None:
        read_ns, deadline_ns = last.read_ns, 0
    else:
        read_ns = max(now_ns, last.read_ns)
        deadline_ns = read_ns + last.deadline_ns - last.read_ns if last.deadline_ns else 0
    record = Record(
        fields, last.source, last.sequence, read_ns, deadline_ns, last.size, last.position, last.lineage
    )  # fmt: skip
    return Merged(record, items)
