"""The http source over loopback, with good and bad senders."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.sources.bodies import READERS, Refusal, items_of
from skerry.run.sources.http import HttpSource
from skerry.spec.errors import SpecError
from skerry.testing.certificates import make_certificate
from skerry.testing.sources import Collector, Run, build_source, make_context

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


class Served:
    """A running source and how to talk to it."""

    def __init__(
        self, folder: Path, emit: Collector, uri: str = "http+listen://127.0.0.1:0/in", **options: Any
    ) -> None:
        source = build_source(uri, **options)
        assert isinstance(source, HttpSource)
        self.source = source
        self.emit = emit
        source.open(make_context(folder), None)
        self.run = Run(source, emit)

    def close(self) -> None:
        self.run.__exit__()
        self.source.close()

    def send(
        self,
        body: bytes = b"{}",
        kind: str = "application/json",
        method: str = "POST",
        path: str = "/in",
        **headers: str,
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Send a request; return the status, the answer's JSON and its headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.source.bound_port, timeout=20)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Content-Type": kind, **names})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else {}, {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()

    def fields(self) -> list[dict[str, Any]]:
        return [item.fields for item in self.emit.items]


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    opened: list[Served] = []

    def start(emit: Collector | None = None, **options: Any) -> Served:
        opened.append(Served(tmp_path, emit or Collector(), **options))
        return opened[-1]

    yield start
    for served in opened:
        served.close()


class TestTaking:
    @pytest.mark.parametrize(
        ("kind", "body", "expected"),
        [
            ("application/json", b'{"a": 1}', [{"a": 1}]),
            ("application/json; charset=utf-8", b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
            ("application/vnd.x+json", b"[]", []),
            ("application/x-ndjson", b'{"a": 1}\n\n{"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
            ("text/plain", "zwölf".encode(), [{"text": "zwölf"}]),
        ],
    )
    def test_bodies(self, serve: Serve, kind: str, body: bytes, expected: list[dict[str, Any]]) -> None:
        served = serve()
        status, answer, _ = served.send(body, kind)
        assert (status, answer) == (202, {"accepted": len(expected)})
        assert served.fields() == expected

    def test_cloud_events(self, serve: Serve) -> None:
        served = serve()
        structured = json.dumps({**EVENT, "data": {"a": 1}}).encode()
        assert served.send(structured, "application/cloudevents+json")[0] == 202
        encoded = base64.b64encode(b"\x00\xff").decode()
        batch = json.dumps([{**EVENT, "data_base64": encoded}, EVENT]).encode()
        assert served.send(batch, "application/cloudevents-batch+json")[0] == 202
        binary = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t", "ce_note": "a%20b"}
        assert served.send(b'{"b": 2}', **binary)[0] == 202
        assert served.fields() == [
            {"a": 1, "cloudevent": EVENT},
            {"data": b"\x00\xff", "cloudevent": EVENT},
            {"cloudevent": EVENT},
            {"b": 2, "cloudevent": {**EVENT, "note": "a b", "datacontenttype": "application/json"}},
        ]

    def test_answer_settled_waits_for_the_commit(self, serve: Serve) -> None:
        served = serve(answer="settled")
        answers: list[tuple[int, dict[str, Any]]] = []
        sender = threading.Thread(target=lambda: answers.append(served.send(b'[{"a": 1}, {"a": 2}]')[:2]))
        sender.start()
        first, second = served.run.wait(2)
        served.source.commit({"session": "earlier", "item": 9})
        served.source.commit(first.position)
        assert answers == []
        served.source.commit(second.position)
        sender.join(20)
        assert answers == [(200, {"accepted": 2, "settled": True})]

    def test_what_is_not_settled_in_time_says_so(self, serve: Serve) -> None:
        served = serve(answer="settled", patience="50ms")
        assert served.send()[0] == 504
        assert served.fields() == [{}]

    def test_health(self, serve: Serve) -> None:
        served = serve(token="secret")
        assert served.send(method="GET", path="/healthz")[:2] == (200, {"status": "ok"})
        assert served.send(method="HEAD", path="/healthz")[0] == 200

    def test_answers_on_a_kept_connection_are_sent_at_once(self, serve: Serve) -> None:
        """Held back for an acknowledgement they would take 40 ms every time; the best of twenty is free of noise."""
        connection = http.client.HTTPConnection("127.0.0.1", serve().source.bound_port, timeout=20)
        times = []
        for _ in range(20):
            begin = time.monotonic()
            connection.request("POST", "/in", b"{}", {"Content-Type": "application/json"})
            connection.getresponse().read()
            times.append(time.monotonic() - begin)
        connection.close()
        assert min(times[1:]) < 0.03

    def test_many_senders_at_once(self, serve: Serve) -> None:
        served = serve()

        def sender(number: int) -> None:
            for index in range(20):
                assert served.send(json.dumps({"n": number * 20 + index}).encode())[0] == 202

        threads = [threading.Thread(target=sender, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(fields["n"] for fields in served.fields()) == list(range(160))


class TestRefusing:
    def test_a_full_pipeline_answers_503_and_how_far_it_got(self, serve: Serve) -> None:
        served = serve(Collector(refuse=lambda offer: offer >= 2), retry_after="3s")
        status, problem, headers = served.send(b'[{"a": 1}, {"a": 2}, {"a": 3}]')
        assert (status, problem["accepted"], headers["retry-after"]) == (503, 2, "3")
        assert headers["content-type"] == "application/problem+json"
        assert served.fields() == [{"a": 1}, {"a": 2}]

    @pytest.mark.parametrize(
        ("kind", "body", "detail"),
        [
            ("application/json", b"{", "not JSON"),
            ("application/json", b"", "not JSON"),
            ("application/json", b"\xff\x00garbage", "not JSON"),
            ("application/json", b"3", "not a JSON object"),
            ("application/json", b'[{"a": 1}, 2]', "item 1 is not a JSON object"),
            ("application/json", b"[" * 100_000, "not JSON"),
            ("application/x-ndjson", b'{"a": 1}\n{', "line 2 is not JSON"),
            ("text/plain", b"\xff", "not UTF-8"),
            ("application/cloudevents+json", b"{}", "no specversion"),
            ("application/cloudevents-batch+json", b"{}", "not a list"),
        ],
    )
    def test_bad_bodies_are_explained_and_nothing_is_taken(
        self, serve: Serve, kind: str, body: bytes, detail: str
    ) -> None:
        served = serve()
        status, problem, headers = served.send(body, kind)
        assert status == problem["status"] == 400
        assert detail in problem["detail"]
        assert headers["content-type"] == "application/problem+json"
        assert served.fields() == []

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            ({"path": "/other"}, 404),
            ({"method": "GET"}, 405),
            ({"method": "PUT"}, 405),
            ({"kind": "image/png"}, 415),
            ({"Content_Encoding": "gzip"}, 415),
        ],
    )
    def test_other_requests(self, serve: Serve, request_: dict[str, str], status: int) -> None:
        served = serve()
        got, problem, headers = served.send(**request_)  # type: ignore[arg-type]
        assert got == problem["status"] == status
        assert problem["title"]
        assert headers.get("allow") == ("POST" if status == 405 else None)
        assert served.fields() == []

    def test_a_large_body_is_refused_announced_or_not(self, serve: Serve) -> None:
        served = serve(max_body="1kB")
        assert served.send(b"x" * 1001, "text/plain")[0] == 413
        connection = http.client.HTTPConnection("127.0.0.1", served.source.bound_port, timeout=20)
        connection.request("POST", "/in", iter([b"x" * 600] * 2), {"Content-Type": "text/plain"}, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()
        assert served.send(b"x" * 1000, "text/plain")[0] == 202

    def test_ten_megabytes_are_taken(self, serve: Serve) -> None:
        served = serve()
        assert served.send(b"x" * 10_000_000, "text/plain")[0] == 202
        assert len(served.fields()[0]["text"]) == 10_000_000

    def test_a_token_is_asked_for(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SKERRY_TEST_TOKEN", "sécret")
        served = serve(token_env="SKERRY_TEST_TOKEN")
        status, _, headers = served.send()
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert served.send(Authorization="Bearer wrong")[0] == 401
        assert served.send(Authorization="Basic sécret".encode().decode("latin-1"))[0] == 401
        assert served.send(Authorization="Bearer sécret".encode().decode("latin-1"))[0] == 202

    def test_a_slow_sender_is_sent_away(self, serve: Serve) -> None:
        served = serve(patience="100ms")
        with socket.create_connection(("127.0.0.1", served.source.bound_port), timeout=20) as slow:
            slow.sendall(b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            assert b" 408 " in slow.recv(1000)

    @pytest.mark.parametrize(
        "garbage", [b"\x00\xff\xfe" * 100 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n"]
    )
    def test_garbage_on_the_line_hurts_nobody(self, serve: Serve, garbage: bytes) -> None:
        served = serve()
        with socket.create_connection(("127.0.0.1", served.source.bound_port), timeout=20) as stray:
            stray.sendall(garbage)
            stray.recv(1000)
        assert served.send()[0] == 202

    @settings(max_examples=300)
    @given(st.sampled_from([*READERS, "application/x+json"]), st.binary(max_size=60), st.booleans())
    def test_any_body_is_taken_or_refused(self, kind: str, body: bytes, is_event: bool) -> None:
        headers = {"content-type": kind}
        if is_event:
            headers |= {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
        try:
            items = items_of(headers, body)
        except Refusal as refusal:
            json.dumps(refusal.problem())
            return
        assert all(isinstance(fields, dict) for fields, _ in items)


class TestOpening:
    def test_a_plain_port_open_to_others_is_refused(self, tmp_path: Path) -> None:
        source = build_source("http+listen://0.0.0.0:0/in")
        with pytest.raises(SpecError, match="plain text"):
            source.open(make_context(tmp_path), None)
        source.open(make_context(tmp_path, insecure=True), None)
        source.close()

    def test_an_empty_token_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SKERRY_TEST_TOKEN", raising=False)
        with pytest.raises(SpecError, match="token is empty"):
            build_source("http+listen://127.0.0.1:0/", token_env="SKERRY_TEST_TOKEN").open(make_context(tmp_path), None)

    @pytest.mark.parametrize("uri", ["https+listen://127.0.0.1:0/", "http+listen://127.0.0.1:0/?cert=c&key=k"])
    def test_scheme_and_certificate_belong_together(self, uri: str) -> None:
        with pytest.raises(SpecError, match="certificate"):
            build_source(uri)

    def test_a_bad_certificate_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "bad.pem").write_text("no certificate")
        source = build_source("https+listen://127.0.0.1:0/", cert="bad.pem", key="bad.pem")
        with pytest.raises(SpecError, match="certificate cannot be used"):
            source.open(make_context(tmp_path), None)
        source.close()

    def test_the_port_is_free_again_after_a_run(self, tmp_path: Path) -> None:
        served = Served(tmp_path, Collector())
        port = served.source.bound_port
        assert served.send()[0] == 202
        served.close()
        again = Served(tmp_path, Collector(), uri=f"http+listen://127.0.0.1:{port}/in")
        assert again.send()[0] == 202
        again.close()

    def test_an_idle_connection_does_not_hold_up_the_end(self, tmp_path: Path) -> None:
        served = Served(tmp_path, Collector())
        idle = socket.create_connection(("127.0.0.1", served.source.bound_port), timeout=20)
        half = socket.create_connection(("127.0.0.1", served.source.bound_port), timeout=20)
        half.sendall(b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert served.send()[0] == 202
        served.close()
        idle.close()
        half.close()

    def test_tls(self, tmp_path: Path) -> None:
        cert, key = make_certificate(tmp_path)
        source = build_source("https+listen://127.0.0.1:0/in", cert=cert.name, key=key.name)
        assert isinstance(source, HttpSource)
        source.open(make_context(tmp_path), None)
        with Run(source, Collector()) as run:
            trust = ssl.create_default_context(cafile=cert)
            connection = http.client.HTTPSConnection("127.0.0.1", source.bound_port, context=trust, timeout=20)
            connection.request("POST", "/in", b'{"a": 1}')
            assert connection.getresponse().status == 202
            connection.close()
        source.close()
        assert run.emit.items[0].fields == {"a": 1}
