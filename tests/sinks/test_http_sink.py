"""The http sink against a real server on loopback."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.run.sinks.http import HttpOptions, HttpSink
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkError, SinkFullError, SinkUnavailableError, SpecError
from skerry.spec.record import Record
from skerry.spec.units import Duration
from skerry.testing.http_server import HttpServer, free_port, http_server
from skerry.testing.sinks import SinkCase, SinkContract, a_context, some_records


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


def http_sink(url: str, **options: Any) -> HttpSink:
    return HttpSink(parse_address(url)[0], HttpOptions(**{"timeout": Duration(5.0), **options}))


class TestContract(SinkContract):
    @pytest.fixture(params=["json", "ndjson", "cloudevents"])
    def case(self, tmp_path: Path, server: HttpServer, request: pytest.FixtureRequest) -> SinkCase:
        def read() -> list[dict[str, Any]]:
            if request.param == "ndjson":
                return [json.loads(line) for posted in server.taken for line in posted.body.splitlines()]
            events = [event for posted in server.taken for event in json.loads(posted.body)]
            return [event["data"] for event in events] if request.param == "cloudevents" else events

        def answer(status: int) -> None:
            server.status = status

        return SinkCase(
            make=lambda: http_sink(server.url("/events"), format=request.param, gzip=False),
            read=read,
            home=tmp_path,
            break_=lambda: answer(503),
            mend=lambda: answer(200),
        )


def write(home: Path, url: str, records: list[Record] | None = None, **options: Any) -> None:
    sink = http_sink(url, **options)
    try:
        sink.open(a_context(home))
        sink.write(some_records(2) if records is None else records)
        sink.flush()
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, SinkError), (400, SinkError), (401, SinkError), (404, SinkError), (408, SinkUnavailableError),
        (413, SinkError), (429, SinkUnavailableError), (500, SinkUnavailableError), (503, SinkUnavailableError),
        (507, SinkFullError),
    ],
)  # fmt: skip
def test_an_answer_says_whether_to_try_again(
    tmp_path: Path, server: HttpServer, status: int, error: type[SinkError]
) -> None:
    server.status, server.reply = status, b"because\nof this"
    with pytest.raises(SinkError, match=f"answered {status}: because of this") as caught:
        write(tmp_path, server.url())
    assert type(caught.value) is error
    assert len(server.seen) == 1  # neither redirected nor tried again


def test_what_is_sent(tmp_path: Path, server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIAGE_TOKEN", "s3cret\n")
    write(
        tmp_path,
        server.url("/a b/é"),
        method="PUT",
        query={"x": "1&2"},
        headers={"X-Site": "north", "content-type": "application/vnd.x+json"},
        token_env="TRIAGE_TOKEN",
        gzip=True,
    )
    sent = server.taken[0]
    assert (sent.method, sent.path) == ("PUT", "/a%20b/%C3%A9?x=1%262")
    assert sent.headers["authorization"] == "Bearer s3cret"
    assert sent.headers["x-site"] == "north"
    assert sent.headers["content-type"] == "application/vnd.x+json"
    assert [row["n"] for row in json.loads(gzip.decompress(sent.body))] == [1, 2]


def test_cloud_events_have_ids_that_tell_repetitions(tmp_path: Path, server: HttpServer) -> None:
    records = [*some_records(1), *some_records(1), Record({"n": 2}, "contract", 1)]
    write(tmp_path, server.url(), records, format="cloudevents", event_type="org.example.triage")
    events = json.loads(server.taken[0].body)
    assert server.taken[0].headers["content-type"] == "application/cloudevents-batch+json"
    assert [event["id"] == events[0]["id"] for event in events] == [True, True, False]
    assert {(event["specversion"], event["type"], event["source"]) for event in events} == {
        ("1.0", "org.example.triage", "/skerry")
    }


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailableError, match="cannot be reached"):
        write(tmp_path, f"http://127.0.0.1:{free_port()}/")


def test_a_silent_server_does_not_hold_the_sink(tmp_path: Path, server: HttpServer) -> None:
    server.pause_s = 1.0
    with pytest.raises(SinkUnavailableError, match="cannot be reached"):
        write(tmp_path, server.url(), timeout=Duration(0.1))


def test_plain_text_stays_on_loopback(tmp_path: Path) -> None:
    sink = http_sink("http://192.0.2.1/events")
    with pytest.raises(SpecError, match="plain text"):
        sink.open(a_context(tmp_path))
    sink.open(a_context(tmp_path, insecure=True))
    sink.close()


@pytest.mark.parametrize(
    "options",
    [
        {"token_env": "SKERRY_TEST_NOT_SET"},
        {"headers": {"X": "a\r\nY: b"}},
        {"ca": "none.pem"},
        {"ca": "garbage.pem"},
    ],
)
def test_options_that_cannot_work(tmp_path: Path, server: HttpServer, options: dict[str, Any]) -> None:
    (tmp_path / "garbage.pem").write_text("garbage")
    with pytest.raises((SpecError, SinkUnavailableError)):
        write(tmp_path, server.url().replace("http:", "https:"), **options)


def test_a_password_in_the_address_is_refused_without_showing_it() -> None:
    with pytest.raises(SpecError) as caught:
        http_sink("https://user:hunter2@example.org/")
    assert "hunter2" not in str(caught.value)


def test_tls_believes_only_the_named_authority(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: make system-deps")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    with http_server(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem") as server:
        url = server.url().replace("http:", "https:")
        write(tmp_path, url, ca="cert.pem")
        with pytest.raises(SinkUnavailableError, match="certificate verify failed"):
            write(tmp_path, url)
        assert len(server.taken) == 1
