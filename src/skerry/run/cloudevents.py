"""A CloudEvent: a record in the envelope of CloudEvents 1.0, JSON format."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any

from skerry.run.encoding import Encoder
from skerry.spec.record import Record

BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"

_RUN = uuid.uuid4().hex[:16]
"""This process: sequence numbers begin at 1 in each, and an id has to be unique for ever."""


def cloud_event(record: Record, fields: dict[str, Any], encoder: Encoder, *, kind: str, source: str) -> dict[str, Any]:
    """Return the event, made of plain JSON values.

    The id is the same when the same record is sent again by this process, so that a receiver can tell a repetition; it
    covers the content, because a stage may make several records of one. See
    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md for the attributes.
    """
    content = hashlib.blake2b(encoder.encode(fields), digest_size=8).hexdigest()
    return {
        "specversion": "1.0",
        "id": f"{_RUN}-{record.source or 'pipeline'}-{record.sequence}-{content}",
        "source": source,
        "type": kind,
        "time": _time(record),
        "datacontenttype": "application/json",
        "data": fields,
    }


def _time(record: Record) -> str:
    age_s = (time.monotonic_ns() - record.read_ns) / 1e9 if record.read_ns else 0.0
    moment = time.time() - max(0.0, age_s)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
