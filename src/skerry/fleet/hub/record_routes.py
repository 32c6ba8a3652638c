"""Records of a hub: lists, the audit."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.guard import known_caller, operators_only
from skerry.fleet.hub.parts import Parts
from skerry.fleet.hub.store import Filter, StoredRecord

MOST = 10_000
"""Records of one answer; whoever wants more asks again with ``after``."""


def record_view(record: StoredRecord) -> dict[str, Any]:
    """Return a record as people read it."""
    return {
        "id": record.id, "device": record.device, "epoch": record.epoch, "seq": record.seq, "stream": record.stream,
        "fields": msgspec.Raw(record.fields), "at_ms": record.at_ms, "at_from": record.at_from,
        "received_ms": record.received_ms, "priority": record.priority, "release": record.release,
    }  # fmt: skip


def filter_of(query: dict[str, str]) -> Filter:
    """Return the filter of a query; raises ``Refusal`` (400) for a name or value that is none."""
    try:
        return msgspec.convert(query, Filter, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the query cannot be read: {error}") from error


def number_of(query: dict[str, str], name: str, default: int, most: int) -> int:
    """Take a number out of a query; raises ``Refusal`` (400) for one out of range."""
    text = query.pop(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise Refusal(400, f"{name} is a number from 0 to {most}")
    return int(text)


def handlers(parts: Parts) -> list[Any]:
    """Return the handlers."""
    operators = [operators_only(parts.access)]

    @get("/v1/records", sync_to_thread=True, guards=operators)
    def records(request: Request[Any, Any, Any]) -> dict[str, Any]:
        query = dict(request.query_params.items())
        after = number_of(query, "after", 0, 2**62)
        limit = number_of(query, "limit", 1000, MOST)
        newest = query.pop("newest", "") in {"1", "true"}
        found = parts.store.records(after=after, limit=limit, only=filter_of(query), newest=newest)
        return {"records": [record_view(each) for each in found], "next": found[-1].id if found else after}

    @get("/v1/audit", sync_to_thread=True)
    def audit(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Tell what is here of each epoch; a device is told of its own only."""
        caller = known_caller(parts.access, request.scope)
        device = request.query_params.get("device")
        if not caller.operates and device not in {None, caller.name}:
            raise Refusal(403, "a device may ask for its own records only")
        device = device if caller.operates else caller.name
        accounts = parts.store.accounts(device, request.query_params.get("epoch"))
        return {
            "accounts": [
                {"device": each.device, "epoch": each.epoch, "count": each.count, "checksum": f"{each.checksum:016x}",
                 "losses": each.losses, "seen_ms": each.seen_ms}
                for each in accounts
            ]
        }  # fmt: skip

    return [records, audit]
