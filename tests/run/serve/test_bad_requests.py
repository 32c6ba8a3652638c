"""Bad requests: whatever a client sends, it is told in the protocol's own form, and others are not disturbed."""

from __future__ import annotations

import gzip
import json
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.run.serve.server import Server
from skerry.spec.units import Duration, Size
from tests.run.serve.parts import PATIENCE_S, Adder, ask, question, serving, text_model, wait_for

INFER = "/v2/models/adder/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    words = text_model(tmp_path_factory.mktemp("words"))
    with serving(Adder(), words, max_body=Size(100_000), patience=Duration(0.6), max_head=Size(8192)) as found:
        yield found


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not read"),
        (b"{", "not read"),
        (b"[]", "not read"),
        (b"\xff\xfe", "not read"),
        (b"[" * 50_000, "not read"),
        ({}, "missing required field `inputs`"),
        ({"inputs": []}, "input 'x' is missing"),
        (tensor(name="y"), "no input 'y'"),
        (tensor(datatype="FP33"), "'FP33', which is not known here"),
        (tensor(datatype="FP64"), "dtype float64"),
        (tensor(datatype="INT32", data=[1, 2, 3, 1.5]), "no INT32"),
        (tensor(datatype="INT8", data=[1, 2, 3, 300]), "INT8 cannot hold"),
        (tensor(datatype="UINT8", data=[1, 2, 3, -1]), "UINT8 cannot hold"),
        (tensor(datatype="BOOL", data=[1, 2, 3, 4]), "no BOOL"),
        (tensor(data=["1", "2", "3", "4"]), "no FP32"),
        (tensor(data=[1, 2, 3]), "3 elements; the shape [1, 4] takes 4"),
        (tensor(data=None), "no FP32"),
        (tensor(data=[[1, 2], [3, 4]]), "not nested as the shape"),
        (tensor(data=[[1, 2, 3]]), "not nested as the shape"),
        (tensor(shape=[1, -4]), "no array has"),
        (tensor(shape=[0, 2**70], data=[]), "no array has"),
        (tensor(shape=[1] * 99), "no array has"),
        (tensor(shape=[1, 3], data=[1, 2, 3]), "size 3 on axis 1"),
        (tensor(shape=[4]), "1 axes"),
        (tensor(data=[1, 2, 3, 1e39]), "not finite, at element 3"),
        (tensor(parameters={"shared_memory_region": "r"}), "shared memory"),
        (tensor(parameters={"binary_data_size": 16}), "Inference-Header-Content-Length is missing"),
        ({"inputs": tensor()["inputs"] * 2}, "twice"),
        ({**tensor(), "outputs": [{"name": "q"}]}, "no output 'q'"),
        ({**tensor(), "outputs": [{"name": "y", "parameters": {"classification": 2}}]}, "classification is not"),
        ({**tensor(), "parameters": {"binary_data_output": "yes"}}, "true or false"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,NaN]}]}', "not read"),
    ],
)
def test_what_is_wrong_is_said(server: Server, body: Any, said: str) -> None:
    answer = ask(server, INFER, body, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"error"} and said in answer.json["error"]


def test_nested_data_are_taken(server: Server) -> None:
    answer = ask(server, INFER, tensor(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7, 8]]))
    assert answer.json["outputs"][0]["data"] == [2, 3, 4, 5, 6, 7, 8, 9]


def binary(head: dict[str, Any], rest: bytes, length: int | None = None) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(head).encode()
    size = len(text) if length is None else length
    return text + rest, {
        "Inference-Header-Content-Length": str(size), "Content-Type": "application/octet-stream",
    }  # fmt: skip


def bytes_tensor(rest: bytes, count: int = 1) -> tuple[bytes, dict[str, str]]:
    head = {"name": "text", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": len(rest)}}
    return binary({"inputs": [head]}, rest)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (binary(tensor(data=None, parameters={"binary_data_size": 16}), b"12345678"), "8 bytes are left"),
        (binary(tensor(parameters={"binary_data_size": 12}), b"x" * 12), "takes 16"),
        (binary(tensor(parameters={"binary_data_size": 16}), b"x" * 20), "4 bytes after the last input"),
        (binary(tensor(parameters={"binary_data_size": -1}), b""), "binary_data_size of -1"),
        (binary(tensor(parameters={"binary_data_size": "16"}), b"x" * 16), "binary_data_size of 16"),
        (binary(tensor(), b"", length=10**6), "the body has"),
        (binary(tensor(), b"", length=-1), "the body has"),
        (binary(tensor(), b"", length=5), "not read"),
    ],
)
def test_binary_data_that_do_not_fit(server: Server, sent: tuple[bytes, dict[str, str]], said: str) -> None:
    answer = ask(server, INFER, sent[0], headers=sent[1])
    assert answer.status == 400 and said in answer.json["error"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (bytes_tensor(struct.pack("<I", 100) + b"short"), "cut short"),
        (bytes_tensor(struct.pack("<I", 2) + b"ok" + b"\1\0"), "cut short"),
        (bytes_tensor(struct.pack("<I", 2) + b"ok", count=2), "1 elements; the shape [2] takes 2"),
        (bytes_tensor(struct.pack("<I", 2) + b"\xff\xfe"), "no text in UTF-8"),
        (bytes_tensor(struct.pack("<I", 2**32 - 1)), "cut short"),
    ],
)
def test_binary_texts_that_do_not_fit(server: Server, sent: tuple[bytes, dict[str, str]], said: str) -> None:
    answer = ask(server, "/v2/models/words/infer", sent[0], headers=sent[1])
    assert answer.status == 400 and said in answer.json["error"]


def test_paths_methods_and_types(server: Server) -> None:
    assert ask(server, "/v2/models/nobody/infer", {}).status == 404
    assert "there is adder, words" in ask(server, "/v2/models/nobody").json["error"]
    assert "no version '2'" in ask(server, "/v2/models/adder/versions/2").json["error"]
    assert ask(server, "/elsewhere").status == 404
    refused = ask(server, INFER)
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    wrong = ask(server, INFER, b"x=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert wrong.status == 415 and "application/json" in wrong.json["error"]
    assert ask(server, "/v2/health/ready", method="HEAD").body == b""
    assert ask(server, "/v2/models/%61dder").json["name"] == "adder"
    assert ask(server, f"{server.url}/v2/models/adder?x=1").json["name"] == "adder"
    assert ask(server, "/v2/models/adder/versions/1/infer", question([1, 2, 3, 4])).status == 200


def test_bodies_that_are_too_large(server: Server) -> None:
    assert ask(server, INFER, b"x" * 100_001).status == 413
    told = raw(server, b"POST /v2/models/adder/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 413 ") and b"connection: close" in told and b'{"error":' in told
    chunks = b"POST /v2/models/adder/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(server, chunks + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 5).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b" " * 10_000_000, mtime=0), "gzip", 413),
        (zlib.compress(b" " * 10_000_000), "deflate", 413),
        (gzip.compress(b"{}", mtime=0)[:-9], "gzip", 400),
        (b"no gzip", "gzip", 400),
        (b"{}", "br", 415),
    ],
    ids=["gzip-bomb", "deflate-bomb", "cut", "not-packed", "unknown"],
)
def test_packed_bodies_that_are_wrong(server: Server, body: bytes, encoding: str, status: int) -> None:
    answer = ask(server, INFER, body, headers={"Content-Encoding": encoding, "Content-Type": "application/json"})
    assert answer.status == status and answer.json["error"]


def raw(server: Server, data: bytes, *, then: bytes = b"") -> bytes:
    """Send bytes and return everything that comes back until the server closes."""
    place = urlsplit(server.url)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=PATIENCE_S) as wire:
        try:
            wire.sendall(data)
            if then:
                wire.sendall(then)
        except OSError:
            pass  # it has answered and closed already
        found = b""
        try:
            while part := wire.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


def test_a_slow_client_is_told_and_let_go(server: Server) -> None:
    assert raw(server, b"POST /v2/models/adder/infer HT").startswith(b"HTTP/1.1 408 ")
    half = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
    told = raw(server, half)
    assert told.startswith(b"HTTP/1.1 408 ") and b'"type":"invalid_request_error"' in told


def test_a_client_that_says_nothing_is_let_go(server: Server) -> None:
    assert raw(server, b"") == b""


def test_heads_that_are_too_large(server: Server) -> None:
    assert raw(server, b"GET /v2 HTTP/1.1\r\nA: " + b"x" * 10_000).startswith(b"HTTP/1.1 431 ")
    assert raw(server, b"GET /v2 HTTP/1.1\r\nA: " + b"x" * 10_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
    assert raw(server, b"GET /v2 HTTP/1.1\r\n" + b"A: 1\r\n" * 9_000 + b"\r\n").startswith(b"HTTP/1.1 431 ")
    many = b"".join(b"A%d: 1\r\n" % number for number in range(101))
    assert raw(server, b"GET /v2 HTTP/1.1\r\n" + many + b"\r\n").startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_told_and_closed(server: Server, data: bytes) -> None:
    assert raw(server, data).startswith(b"HTTP/1.1 400 ")


def test_several_requests_at_once_are_answered_in_order(server: Server) -> None:
    bodies = [json.dumps(question([number] * 4)).encode() for number in range(20)]
    sent = b"".join(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (INFER.encode(), len(body), body)
        for body in bodies
    )
    told = raw(server, sent, then=b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
    parts = [json.loads(part[part.index(b"{") :]) for part in told.split(b"HTTP/1.1 200 OK")[1:-1]]
    assert [part["outputs"][0]["data"][0] for part in parts] == [number + 1 for number in range(20)]
    assert told.endswith(b"ok\n")


def test_continue_is_said_to_who_waits_for_it(server: Server) -> None:
    body = json.dumps(question([1, 2, 3, 4])).encode()
    place = urlsplit(server.url)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=PATIENCE_S) as wire:
        wire.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            % (INFER.encode(), len(body))
        )
        assert wire.recv(100).startswith(b"HTTP/1.1 100 ")
        wire.sendall(body)
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_others_are_answered_while_slow_ones_hold_connections(server: Server) -> None:
    place = urlsplit(server.url)
    slow = [socket.create_connection((str(place.hostname), int(place.port or 0))) for _ in range(20)]
    try:
        for wire in slow:
            wire.sendall(b"POST /v2 HTTP/1.1\r\nContent-Le")
        assert ask(server, INFER, question([1, 2, 3, 4])).status == 200
    finally:
        for wire in slow:
            wire.close()


def test_too_many_connections_are_told() -> None:
    with serving(Adder(), connections=2) as server:
        place = urlsplit(server.url)
        held = [socket.create_connection((str(place.hostname), int(place.port or 0))) for _ in range(2)]
        for wire in held:
            wire.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert wire.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert raw(server, b"GET /healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        for wire in held:
            wire.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 250))
def test_no_bytes_end_the_server(server: Server, body: bytes, size: int) -> None:
    headers = {"Inference-Header-Content-Length": str(size), "Content-Type": "application/json"}
    assert ask(server, INFER, body, headers=headers).status == 400


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "shape", "data", "datatype"]), inner)
), max_leaves=8)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=JSON, data=JSON, kind=st.sampled_from(["FP32", "BYTES", "INT8", "BOOL", 7]))
def test_no_json_ends_the_server(server: Server, shape: Any, data: Any, kind: Any) -> None:
    answer = ask(server, INFER, tensor(shape=shape, data=data, datatype=kind))
    assert answer.status in {200, 400} and isinstance(answer.json, dict)


@pytest.mark.parametrize("padding", [0, 1_500_000])
def test_a_client_that_leaves_is_forgotten(padding: int) -> None:
    adder = Adder()
    with serving(adder) as server:
        adder.may_run.clear()
        first = threading.Thread(target=ask, args=(server, INFER, question([1, 2, 3, 4])))
        first.start()
        assert adder.has_begun.wait(PATIENCE_S)
        body = json.dumps(question([1, 2, 3, 4], id="x" * padding)).encode()
        place = urlsplit(server.url)
        with socket.create_connection((str(place.hostname), int(place.port or 0))) as wire:
            wire.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (INFER.encode(), len(body), body))
            wait_for(server, "skerry_serve_queued_rows", 1)
        wait_for(server, "skerry_serve_cancelled_total", 1)
        adder.may_run.set()
        first.join(PATIENCE_S)
        assert ask(server, INFER, question([1, 2, 3, 4])).status == 200
    assert adder.runs == [1, 1]


def test_a_client_that_does_not_take_its_answers_is_let_go() -> None:
    with serving(Adder(), patience=Duration(0.5)) as server:
        body = json.dumps(question(*([1.5, 2.5, 3.5, 4.5] for _ in range(1000)))).encode()
        request = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (INFER.encode(), len(body), body)
        place = urlsplit(server.url)
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=PATIENCE_S) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with pytest.raises(OSError):  # at the latest when the server has let go
                for _ in range(2000):
                    wire.sendall(request)
        assert ask(server, INFER, question([1, 2, 3, 4])).status == 200


def test_large_bodies_share_their_room() -> None:
    with serving(Adder(), max_body=Size(2_000_000), patience=Duration(20.0)) as server:
        place = urlsplit(server.url)
        head = b"POST %b HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" % INFER.encode()
        held = [socket.create_connection((str(place.hostname), int(place.port or 0))) for _ in range(5)]
        try:
            for wire in held:  # four of them fit, whichever they are
                wire.sendall(head + b"x" * 1_900_000)
            readable, _, _ = select.select(held, [], [], PATIENCE_S)
            told = readable[0].recv(65536)
            assert told.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in told
            assert b"too many large requests" in told
            assert ask(server, INFER, question([1, 2, 3, 4])).status == 200  # small ones are not concerned
        finally:
            for wire in held:
                wire.close()
        padded = question([1, 2, 3, 4], id="x" * 1_500_000)
        ends = time.monotonic() + PATIENCE_S
        while ask(server, INFER, padded).status == 503:  # until the server has seen that they left
            assert time.monotonic() < ends
        assert ask(server, INFER, padded).status == 200
