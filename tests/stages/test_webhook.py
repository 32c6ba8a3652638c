"""The webhook stage against a real server on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.run.stages.webhook import WebhookOptions, WebhookStage
from skerry.spec.errors import SpecError, StageError
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from skerry.testing.http_server import HttpServer, free_port, http_server
from skerry.testing.sinks import a_context


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


def sent(home: Path, url: str, fields: dict[str, Any], **options: Any) -> Record:
    stage = WebhookStage(WebhookOptions(url=url, **{"timeout": Duration(5.0), **options}))
    record = Record(fields, "inbox", 3)
    try:
        stage.open(a_context(home))
        assert stage.process(record) is record
    finally:
        stage.close()
    return record


def test_the_fields_are_sent(tmp_path: Path, server: HttpServer) -> None:
    sent(tmp_path, server.url("/hook"), {"label": "ok", "v": np.zeros(2), "secret": 1}, keep=["label", "v", "none"])
    got = server.taken[0]
    assert (got.method, got.path, got.headers["content-type"]) == ("POST", "/hook", "application/json")
    assert json.loads(got.body) == {"label": "ok", "v": [0.0, 0.0]}


def test_placeholders_are_quoted(tmp_path: Path, server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "abc")
    sent(
        tmp_path,
        server.url("/hook/{label}?q={label}"),
        {"label": "a/../b?&é\n"},
        method="PUT",
        body="label is {label}",
        headers={"X-Label": "{label}", "Content-Type": "text/markdown"},
        token_env="HOOK_TOKEN",
    )
    got = server.taken[0]
    quoted = "a%2F..%2Fb%3F%26%C3%A9%0A"
    assert (got.method, got.path) == ("PUT", f"/hook/{quoted}?q={quoted}")
    assert got.body.decode() == "label is a/../b?&é\n"
    assert got.headers["x-label"] == "a/../b?&?"
    assert (got.headers["content-type"], got.headers["authorization"]) == ("text/markdown", "Bearer abc")


def test_the_answer_is_captured(tmp_path: Path, server: HttpServer) -> None:
    server.status, server.reply = 201, b'{"ticket": 7}'
    assert sent(tmp_path, server.url(), {}, capture="answer").fields["answer"] == {"status": 201, "body": {"ticket": 7}}
    server.reply, server.reply_type = b"fine" * 100, "text/plain"
    found = sent(tmp_path, server.url(), {}, capture="answer", max_reply=Size(6))
    assert found.fields["answer"]["body"] == "finefi"
    server.reply, server.reply_type = b"not json", "application/json"
    assert sent(tmp_path, server.url(), {}, capture="answer").fields["answer"]["body"] == "not json"


def test_it_is_signed(tmp_path: Path, server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    sent(tmp_path, server.url(), {"label": "ok"}, secret_env="HOOK_SECRET")
    got = server.taken[0]
    expected = hmac.new(b"s3cret", got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-skerry-signature-256"] == f"sha256={expected}"


def test_a_cloud_event(tmp_path: Path, server: HttpServer) -> None:
    sent(tmp_path, server.url(), {"label": "ok"}, format="cloudevents", event_type="org.example.x")
    got = server.taken[0]
    event = json.loads(got.body)
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert (event["specversion"], event["type"], event["data"]) == ("1.0", "org.example.x", {"label": "ok"})


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_body(tmp_path: Path, server: HttpServer, method: str) -> None:
    sent(tmp_path, server.url(), {"label": "ok"}, method=method)
    assert (server.taken[0].method, server.taken[0].body) == (method, b"")


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500])
def test_a_refusal_fails_the_record(tmp_path: Path, server: HttpServer, status: int) -> None:
    server.status, server.reply = status, b"no"
    with pytest.raises(StageError, match=f"answered {status}: no") as caught:
        sent(tmp_path, server.url("/secret-path"), {})
    assert "secret-path" not in str(caught.value)
    assert len(server.seen) == 1


def test_nobody_listens_or_says_nothing(tmp_path: Path, server: HttpServer) -> None:
    with pytest.raises(StageError, match="cannot be reached"):
        sent(tmp_path, f"http://127.0.0.1:{free_port()}/", {})
    server.pause_s = 1.0
    with pytest.raises(StageError, match="cannot be reached"):
        sent(tmp_path, server.url(), {}, timeout=Duration(0.1))


def test_above_the_limit_it_is_skipped(tmp_path: Path, server: HttpServer) -> None:
    stage = WebhookStage(WebhookOptions(url=server.url(), at_most=2, per=Duration(3600.0)))
    stage.open(a_context(tmp_path))
    records = [Record({}) for _ in range(5)]
    for record in records:
        stage.process(record)
    stage.close()
    assert [record.fields.get("webhook_skipped", False) for record in records] == [False, False, True, True, True]
    assert len(server.seen) == 2


def test_a_missing_field(tmp_path: Path, server: HttpServer) -> None:
    with pytest.raises(StageError, match="no field 'label'"):
        sent(tmp_path, server.url("/{label}"), {})
    assert server.seen == []


def test_plain_text_stays_on_loopback(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="plain text"):
        sent(tmp_path, "http://192.0.2.1/hook", {})


@pytest.mark.parametrize("options", [{"token_env": "SKERRY_TEST_NOT_SET"}, {"secret_env": "SKERRY_TEST_NOT_SET"}])
def test_secrets_that_are_not_set(tmp_path: Path, server: HttpServer, options: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="not set"):
        sent(tmp_path, server.url(), {}, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://x"},
        {"url": "https://"},
        {"url": "https://{host}/x"},
        {"url": "https://u:p@example.org/"},
        {"url": "https://example.org/{"},
        {"url": "https://example.org/", "body": "x", "keep": ["a"]},
        {"url": "https://example.org/", "at_most": -1},
        {"url": "https://example.org/", "headers": {"": "x"}},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        WebhookStage(WebhookOptions(**options))


def test_it_is_not_open_before() -> None:
    with pytest.raises(StageError, match="not open"):
        WebhookStage(WebhookOptions(url="https://example.org/")).process(Record({}))
