"""The event: a record as others take it, in the envelope of CloudEvents 1.0.

See https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. The id is the same whenever a record is sent
again, on any egress: whoever has seen the id has seen the record.
"""

from __future__ import annotations

import time

import msgspec

from skerry.fleet.hub.store import StoredRecord

EVENT_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"


class Event(msgspec.Struct, frozen=True):
    """A record and its event in JSON."""

    record: StoredRecord
    id: str
    body: bytes


def event_of(record: StoredRecord, kind: str) -> Event:
    """Return the event of a record; ``kind`` is its ``type``.

    ``time`` is when the record was made, where that is known, and ``recordedby`` says by which clock; ``sequence`` is
    its number at the device.
    """
    number = f"{record.device}/{record.epoch}/{record.seq}"
    body = {
        "specversion": "1.0", "id": number, "source": f"/devices/{record.device}", "type": kind,
        "subject": record.stream, "datacontenttype": "application/json", "sequence": str(record.seq),
        "priority": record.priority, "recordedby": record.at_from, "data": msgspec.Raw(record.fields),
    }  # fmt: skip
    if record.at_ms is not None and 0 <= record.at_ms < 253_402_300_800_000:  # years that RFC 3339 can say
        body["time"] = rfc3339(record.at_ms)
    if record.release:
        body["release"] = record.release
    return Event(record, number, msgspec.json.encode(body))


def rfc3339(at_ms: int) -> str:
    """Return a moment as text in UTC, with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03d}Z"


def as_batch(bodies: list[bytes]) -> bytes:
    """Return events as one JSON array."""
    return b"[" + b",".join(bodies) + b"]"
