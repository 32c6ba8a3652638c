"""Blobs arrive whole over links that break, and only whole ones are there."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.blob_routes import range_of
from skerry.fleet.hub.blobs import Blobs, Wanted
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.server import Hub
from skerry.spec.units import Duration, Size
from tests.fleet.hub.devices import Reply, request

CONTENT = os.urandom(300_000)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub(start_hub: Callable[..., Hub]) -> Hub:
    return start_hub(options=HubOptions(max_blob=Size(1e6), max_uploads=3, patience=Duration(1)))


def begin(hub: Hub, content: bytes = CONTENT, **changes: Any) -> Reply:
    wanted = {"digest": digest_of(content), "size": len(content), "type": "image/jpeg", "name": "a.jpg", **changes}
    return request(hub.port, "POST", "/v1/blobs", json.dumps(wanted).encode())


def patch(hub: Hub, place: str, offset: int, piece: bytes) -> Reply:
    return request(hub.port, "PATCH", place, piece, {"Upload-Offset": str(offset)})


def offset_of(hub: Hub, place: str) -> int:
    return int(request(hub.port, "HEAD", place).headers["upload-offset"])


def test_a_blob_arrives_in_pieces_and_is_read_by_range(hub: Hub) -> None:
    begun = begin(hub)
    place = begun.headers["location"]
    assert begun.status == 201 and begun.headers["upload-offset"] == "0"
    assert patch(hub, place, 0, CONTENT[:100_000]).headers["upload-offset"] == "100000"
    wrong = patch(hub, place, 0, CONTENT)
    assert (wrong.status, wrong.headers["upload-offset"]) == (409, "100000")
    assert begin(hub).headers["location"] == place and begin(hub).headers["upload-offset"] == "100000"
    last = patch(hub, place, 100_000, CONTENT[100_000:])
    whole = f"/v1/blobs/{digest_of(CONTENT)}"
    assert (last.status, last.headers["location"]) == (200, whole)
    assert offset_of(hub, place) == len(CONTENT) == offset_of(hub, whole)  # where the last answer was lost
    assert request(hub.port, "GET", whole).body == CONTENT
    part = request(hub.port, "GET", whole, headers={"Range": "bytes=1000-1999"})
    assert (part.status, part.body) == (206, CONTENT[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
    assert request(hub.port, "GET", whole, headers={"Range": "bytes=900000-"}).status == 416
    assert begin(hub).headers["upload-offset"] == str(len(CONTENT))
    assert request(hub.port, "GET", "/v1/blobs").json()["blobs"][0]["names"] == ["a.jpg"]


def test_a_connection_that_breaks_leaves_what_arrived(hub: Hub) -> None:
    place, sent = begin(hub).headers["location"], 0
    while sent < len(CONTENT):
        with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as link:
            left = len(CONTENT) - sent
            head = (
                f"PATCH {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpload-Offset: {sent}\r\nContent-Length: {left}\r\n\r\n"
            )
            link.sendall(head.encode() + CONTENT[sent : sent + 70_000])
            if left <= 70_000:
                assert b" 200 " in link.recv(1000)
        sent = offset_of(hub, place)
    assert request(hub.port, "GET", f"/v1/blobs/{digest_of(CONTENT)}").body == CONTENT


def test_a_half_open_transfer_is_taken_over(hub: Hub) -> None:
    place = begin(hub).headers["location"]
    with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as half_open:
        head = f"PATCH {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpload-Offset: 0\r\nContent-Length: 300000\r\n\r\n"
        half_open.sendall(head.encode())
        offset = offset_of(hub, place)
        assert patch(hub, place, offset, CONTENT[offset:]).status == 200
        half_open.sendall(CONTENT)  # too late
        assert b" 409 " in half_open.recv(1000)
    assert request(hub.port, "GET", f"/v1/blobs/{digest_of(CONTENT)}").body == CONTENT


def test_another_content_than_was_told_begins_anew(hub: Hub) -> None:
    place = begin(hub).headers["location"]
    wrong = patch(hub, place, 0, CONTENT[::-1])
    assert (wrong.status, wrong.headers["upload-offset"]) == (422, "0")
    assert request(hub.port, "GET", f"/v1/blobs/{digest_of(CONTENT)}").status == 404
    assert patch(hub, place, 0, CONTENT).status == 200


def test_more_than_was_told_is_not_taken(hub: Hub) -> None:
    place = begin(hub).headers["location"]
    assert patch(hub, place, 0, CONTENT + b"x").status == 400
    assert offset_of(hub, place) <= len(CONTENT)


def test_too_much_is_refused(hub: Hub) -> None:
    assert begin(hub, size=1_000_001).status == 413
    assert begin(hub, digest="sha256:../../etc/passwd").status == 400
    assert begin(hub, size=-1).status == 400
    for number in range(3):
        assert begin(hub, CONTENT + bytes([number])).status == 201
    assert begin(hub, CONTENT + b"more").status == 429
    for path in ("/v1/blobs/../hub.db", "/v1/blobs/sha256:0", "/v1/blobs/" + "0" * 32):
        assert request(hub.port, "GET", path).status in {400, 404}
    assert request(hub.port, "HEAD", "/v1/blobs/" + "0" * 32).status == 404


def test_an_empty_blob_is_one(hub: Hub) -> None:
    place = begin(hub, b"").headers["location"]
    assert offset_of(hub, place) == 0
    assert request(hub.port, "GET", f"/v1/blobs/{digest_of(b'')}").body == b""


def test_a_hub_that_starts_again_continues(start_hub: Callable[..., Hub]) -> None:
    first = start_hub()
    place = begin(first).headers["location"]
    patch(first, place, 0, CONTENT[:123_456])
    first.close()
    again = start_hub()
    assert offset_of(again, place) == 123_456
    assert patch(again, place, 123_456, CONTENT[123_456:]).status == 200


def test_a_crash_at_any_step_of_the_end_is_mended(tmp_path: Path) -> None:
    """Whole but not checked, and stored but not noted as done: the two places where a kill can fall."""
    wanted = Wanted(digest=digest_of(CONTENT), size=len(CONTENT))
    blobs = Blobs(tmp_path, HubOptions())
    number, _ = blobs.begin(wanted, "a", 0)
    (tmp_path / "uploads" / number).write_bytes(CONTENT)
    assert Blobs(tmp_path, HubOptions()).offset(number, "a") == (len(CONTENT), len(CONTENT))
    assert blobs.find(wanted.digest, "a", all_of_them=False)[1].read_bytes() == CONTENT


def test_devices_see_their_own_blobs_and_those_of_operators(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, HubOptions())

    def store(content: bytes, owner: str) -> str:
        number, _ = blobs.begin(Wanted(digest=digest_of(content), size=len(content)), owner, 0)
        with blobs.open(number, owner, 0) as file:
            file.write(content)
        return blobs.finish(number, owner)

    mine, release = store(b"frame", "pump-1"), store(b"release", "operator:ann")
    assert blobs.find(mine, "pump-1", all_of_them=False)[0].size == 5
    assert blobs.find(release, "pump-2", all_of_them=False)[0].size == 7
    assert blobs.find(mine, "operator:ann", all_of_them=True)
    with pytest.raises(Refusal):
        blobs.find(mine, "pump-2", all_of_them=False)
    # To know a digest is not to have the content: another device has to bring it itself.
    number, offset = blobs.begin(Wanted(digest=mine, size=5), "pump-2", 0)
    assert offset == 0
    with pytest.raises(Refusal):
        blobs.offset(number, "pump-1")


def test_uploads_that_nobody_continues_are_removed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, HubOptions(upload_life=Duration(100)))
    blobs.begin(Wanted(digest=digest_of(CONTENT), size=5), "a", 0)
    assert blobs.sweep(time.time()) == 0
    assert blobs.sweep(time.time() + 200) == 1
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("", (0, 9)), ("bytes=2-4", (2, 4)), ("bytes=2-", (2, 9)), ("bytes=-3", (7, 9)), ("bytes=5-99", (5, 9)),
     ("bytes=-99", (0, 9))],
)  # fmt: skip
def test_ranges(text: str, found: tuple[int, int]) -> None:
    assert range_of(text, 10) == found


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=4-2", "bytes=-", "lines=1-2", "bytes=1-2,4-5", "bytes=-0"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(Refusal, match="range"):
        range_of(text, 10)


def test_a_slow_piece_does_not_hold_others_up(hub: Hub) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    place = begin(hub).headers["location"]
    connection.putrequest("PATCH", place)
    connection.putheader("Upload-Offset", "0")
    connection.putheader("Content-Length", "300000")
    connection.endheaders(CONTENT[:1000])
    assert request(hub.port, "GET", "/healthz").status == 200
    answer = connection.getresponse()  # once its patience is over
    assert answer.status == 408 and answer.headers["upload-offset"] == "1000"
    connection.close()
