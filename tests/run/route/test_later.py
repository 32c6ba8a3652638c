"""With `offline: queue` the local answer goes out, and a better one follows durably, as a revision."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from skerry.spec.record import Record
from skerry.testing.http_server import free_port

from .cloud import HARD, SURE, a_cloud, cloud_server, routed_stage

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is looked at every 50 ms instead of every second."""
    monkeypatch.setattr("skerry.run.route.later._LOOK_EVERY_S", 0.05)


def revisions(stage: Any, count: int) -> list[dict[str, Any]]:
    """Tick until so many revisions came."""
    found: list[dict[str, Any]] = []
    ends = time.monotonic() + WAIT_S
    while len(found) < count:
        assert time.monotonic() < ends, f"only {len(found)} of {count} revisions came"
        found += [emission.fields for emission in stage.tick(time.monotonic_ns())]
        time.sleep(0.02)
    return found


def test_a_better_answer_follows_with_the_identity_of_the_first(tmp_path: Path) -> None:
    with cloud_server() as cloud:
        cloud.answer = lambda _path, _body: (503, "application/json", b"{}")
        queued = a_cloud(cloud.url(), offline="queue", breaker={"failures": 1, "pause": "100ms"})
        with routed_stage(tmp_path, queued) as stage:
            sure, hard = Record({"text": SURE}), Record({"text": HARD, "line": 7, "frame": object()})
            stage.process(sure)
            stage.process(hard)
            assert (sure.fields["answer_id"], sure.fields["revision"]) == (None, 0)
            assert hard.fields["answered_by"] == "local" and hard.fields["revision"] == 0
            assert stage.route.state().waiting == 1
            cloud.answer = lambda _path, _body: (200, "application/json", b'{"label": "install", "score": 0.7}')
            (revised,) = revisions(stage, 1)
            assert revised == {
                "text": HARD, "line": 7, "label": "install", "score": 0.7, "answered_by": "cloud",
                "answer_id": hard.fields["answer_id"], "revision": 1,
            }  # fmt: skip
            assert stage.route.state().revised == 1 and stage.route.state().waiting == 0


def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/x"
    settings: dict[str, Any] = {"offline": "queue", "breaker": {"failures": 1, "pause": "100ms"}}
    ids = []
    with routed_stage(tmp_path, a_cloud(url, **settings)) as stage:
        for number in range(20):
            record = Record({"text": HARD, "number": number})
            stage.process(record)
            ids.append(record.fields["answer_id"])
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"label": "login"}).encode())

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 -- its name in http.server
            pass

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        with routed_stage(tmp_path, a_cloud(url, **settings)) as stage:
            found = revisions(stage, 20)
        server.shutdown()
        thread.join()
    assert sorted(fields["answer_id"] for fields in found) == sorted(ids)
    assert {fields["revision"] for fields in found} == {1}


def test_personal_text_waits_as_it_may_leave(tmp_path: Path) -> None:
    with cloud_server() as cloud:
        cloud.answer = lambda _path, _body: (503, "application/json", b"{}")
        queued = a_cloud(
            cloud.url(), offline="queue", redact=["email"], breaker={"failures": 1, "pause": "100ms"}
        )  # fmt: skip
        text = f"{HARD} ada@example.org"
        with routed_stage(tmp_path, queued, privacy={"text": "personal"}) as stage:
            stage.process(Record({"text": text}))
            cloud.answer = lambda _path, _body: (200, "application/json", b'{"label": "install"}')
            (revised,) = revisions(stage, 1)
        assert revised["text"] == text  # here it stays as it was, and for nobody else to read
        (store,) = tmp_path.rglob("later.db")
        assert store.parent.stat().st_mode & 0o077 == 0
        assert all(body == {"text": f"{HARD} [email]"} for _, body in cloud.asked)


@pytest.mark.parametrize(("later", "sent"), [({"redact": ["email", "ip"]}, f"{HARD} [email] [ip]"), ({}, None)])
def test_rules_that_became_stricter_hold_for_what_waits(tmp_path: Path, later: Any, sent: str | None) -> None:
    settings: dict[str, Any] = {"offline": "queue", "breaker": {"failures": 1, "pause": "50ms"}}
    with cloud_server() as cloud:
        cloud.answer = lambda _path, _body: (503, "application/json", b"{}")
        lax = a_cloud(cloud.url(), redact=["email"], **settings)
        with routed_stage(tmp_path, lax, privacy={"text": "personal"}) as stage:
            stage.process(Record({"text": f"{HARD} ada@example.org 10.1.2.3"}))
        cloud.asked.clear()
        cloud.answer = lambda _path, _body: (200, "application/json", b'{"label": "install"}')
        with routed_stage(tmp_path, a_cloud(cloud.url(), **later, **settings), privacy={"text": "personal"}) as stage:
            if sent is not None:
                revisions(stage, 1)
            ends = time.monotonic() + WAIT_S
            while stage.route.state().waiting:
                assert time.monotonic() < ends
                stage.tick(time.monotonic_ns())
                time.sleep(0.02)
        assert [body["text"] for _, body in cloud.asked] == ([] if sent is None else [sent])


def test_what_may_never_leave_does_not_wait(tmp_path: Path) -> None:
    queued = a_cloud(f"http://127.0.0.1:{free_port()}/x", offline="queue")
    with routed_stage(tmp_path, queued, privacy={"text": "personal"}) as stage:
        record = Record({"text": HARD})
        stage.process(record)
        assert record.fields["answer_id"] is None and stage.route.state().waiting == 0
