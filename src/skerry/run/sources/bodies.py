"""Bodies: the items that a request to the http source carries, and the refusals it may meet."""

from __future__ import annotations

import base64
import binascii
import http
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from skerry.spec.ports import Fields

Headers = dict[str, str]
"""A request's headers; the names are in lower case."""

Sized = list[tuple[Fields, int]]
"""Items with their size in bytes."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not taken: the status, why, headers and further members of its problem (RFC 9457)."""

    def __init__(
        self, status: int, detail: str, *, headers: Headers | None = None, more: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}
        self._detail = detail
        self._more = more or {}

    def problem(self) -> dict[str, Any]:
        """Return the problem document."""
        title = http.HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self._detail, **self._more}


def items_of(headers: Headers, body: bytes) -> Sized:
    """Return the items of a request, none of them taken yet; raises ``Refusal`` when any of them is bad."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "a compressed body is not taken", headers={"accept-encoding": "identity"})
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if "ce-specversion" in headers and not kind.startswith("application/cloudevents"):
        return _binary_event(headers, kind, body)
    return _reader(kind)(body)


def _reader(kind: str) -> Callable[[bytes], Sized]:
    if kind in READERS:
        return READERS[kind]
    if kind.endswith("+json"):
        return _json_items
    raise Refusal(415, f"{kind} is not taken", headers={"accept-post": ", ".join(READERS)})


def _decode(text: bytes, what: str = "the body") -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"{what} is not JSON: {error}") from error


def _object(value: Any, what: str) -> Fields:
    if not isinstance(value, dict):
        raise Refusal(400, f"{what} is not a JSON object")
    return value


def _json_items(body: bytes) -> Sized:
    value = _decode(body)
    if not isinstance(value, list):
        return [(_object(value, "the body"), len(body))]
    size = len(body) // max(1, len(value))
    return [(_object(entry, f"item {index}"), size) for index, entry in enumerate(value)]


def _json_lines(body: bytes) -> Sized:
    lines = ((number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip())
    return [
        (_object(_decode(line, f"line {number}"), f"line {number}"), len(line)) for number, line in lines
    ]  # fmt: skip


def _text(body: bytes) -> Sized:
    try:
        return [({"text": body.decode()}, len(body))]
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the text is not UTF-8: {error}") from error


def _event(value: Any, size: int, what: str) -> tuple[Fields, int]:
    """Take a CloudEvent in JSON apart: its data become the fields, its attributes the field ``cloudevent``."""
    event = _object(value, what)
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise Refusal(400, f"{what} is no CloudEvent: it has no {name}")
    attributes = {name: entry for name, entry in event.items() if name not in {"data", "data_base64"}}
    data = event.get("data")
    if "data_base64" in event:
        try:
            data = base64.b64decode(event["data_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise Refusal(400, f"data_base64 of {what} cannot be read: {error}") from error
    fields: Fields = dict(data) if isinstance(data, dict) else {} if data is None else {"data": data}
    return {**fields, "cloudevent": attributes}, size


def _events(body: bytes) -> Sized:
    value = _decode(body)
    if not isinstance(value, list):
        raise Refusal(400, "the body is not a list of CloudEvents")
    size = len(body) // max(1, len(value))
    return [_event(entry, size, f"event {index}") for index, entry in enumerate(value)]


def _binary_event(headers: Headers, kind: str, body: bytes) -> Sized:
    """Take a CloudEvent apart whose attributes are headers and whose data are the body."""
    attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    event: dict[str, Any] = {**attributes, "datacontenttype": kind}
    if body:
        event["data"] = _decode(body) if kind == "application/json" or kind.endswith("+json") else _data(kind, body)
    return [_event(event, len(body), "the request")]


def _data(kind: str, body: bytes) -> Any:
    return _text(body)[0][0] if kind.startswith("text/") else body


READERS: dict[str, Callable[[bytes], Sized]] = {
    "application/json": _json_items,
    "application/x-ndjson": _json_lines,
    "application/jsonl": _json_lines,
    "text/plain": _text,
    "application/cloudevents+json": lambda body: [_event(_decode(body), len(body), "the body")],
    "application/cloudevents-batch+json": _events,
}
"""What reads a body, by its content type."""
