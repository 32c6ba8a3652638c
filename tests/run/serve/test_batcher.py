"""The batcher: what shares a run, what waits, what is refused, and what is not run at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from skerry.run.serve.server import Server
from skerry.spec.units import Duration
from tests.run.serve.parts import PATIENCE_S, Adder, Answer, ask, question, serving, wait_for

INFER = "/v2/models/adder/infer"


class Asking:
    """Requests in threads of their own."""

    def __init__(self, server: Server) -> None:
        self.answers: list[Answer] = []
        self._server = server
        self._threads: list[threading.Thread] = []

    def ask(self, body: Any, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        ask_one: Callable[[], None] = lambda: self.answers.append(  # noqa: E731
            ask(self._server, INFER, body, headers=named)
        )
        self._threads.append(threading.Thread(target=ask_one))
        self._threads[-1].start()

    def wait(self) -> list[Answer]:
        for thread in self._threads:
            thread.join(PATIENCE_S)
        return self.answers


def hold(adder: Adder, asking: Asking) -> None:
    """Let one request begin to run, and stay there."""
    adder.may_run.clear()
    asking.ask(question([0, 0, 0, 0]))
    assert adder.has_begun.wait(PATIENCE_S)


def test_what_is_queued_shares_a_run_up_to_the_limit() -> None:
    adder = Adder()
    with serving(adder, max_batch=4) as server:
        asking = Asking(server)
        hold(adder, asking)
        for number in range(6):
            asking.ask(question([number] * 4))
        wait_for(server, "skerry_serve_queued_rows", 6)
        adder.may_run.set()
        answers = asking.wait()
    assert adder.runs == [1, 4, 2]
    assert sorted(answer.json["outputs"][0]["data"][0] for answer in answers) == [1, 1, 2, 3, 4, 5, 6]


def test_rows_count_and_a_large_request_is_not_cut() -> None:
    adder = Adder()
    with serving(adder, max_batch=4) as server:
        asking = Asking(server)
        hold(adder, asking)
        for rows in (3, 2, 9):
            asking.ask(question(*([1, 2, 3, 4] for _ in range(rows))))
            wait_for(server, "skerry_serve_in_flight", 2 + (3, 2, 9).index(rows))
        adder.may_run.set()
        assert {answer.status for answer in asking.wait()} == {200}
    assert adder.runs == [1, 1, 1, 1]


def test_a_lone_request_waits_for_nobody() -> None:
    adder = Adder()
    with serving(adder) as server:
        for _ in range(3):
            assert ask(server, INFER, question([1, 2, 3, 4])).status == 200
    assert adder.runs == [1, 1, 1]


def test_a_full_queue_says_when_to_come_back() -> None:
    adder = Adder()
    with serving(adder, queue=2) as server:
        asking = Asking(server)
        hold(adder, asking)
        for _ in range(2):
            asking.ask(question([1, 2, 3, 4]))
        wait_for(server, "skerry_serve_queued_rows", 2)
        refused = ask(server, INFER, question([1, 2, 3, 4]))
        assert refused.status == 429 and "2 rows wait" in refused.json["error"]
        assert int(refused.headers["retry-after"]) >= 1
        adder.may_run.set()
        assert {answer.status for answer in asking.wait()} == {200}
        assert ask(server, INFER, question([1, 2, 3, 4])).status == 200


def test_too_many_rows_are_refused() -> None:
    with serving(Adder(), max_rows=3) as server:
        assert ask(server, INFER, question(*([1] * 4 for _ in range(4)))).status == 413


def test_expired_work_is_answered_in_time_and_never_run() -> None:
    adder = Adder()
    with serving(adder) as server:
        asking = Asking(server)
        hold(adder, asking)
        late = ask(server, INFER, question([1, 2, 3, 4]), headers={"Skerry-Deadline-Ms": "30"})
        assert late.status == 504 and "deadline" in late.json["error"]
        triton = ask(server, INFER, question([1, 2, 3, 4], parameters={"timeout": 30_000}))
        assert triton.status == 504
        adder.may_run.set()
        asking.wait()
        assert ask(server, INFER, question([1] * 4), headers={"Skerry-Deadline-Ms": "20000"}).status == 200
        assert 'skerry_serve_expired_total{model="adder"} 2' in ask(server, "/metrics").body.decode()
    assert adder.runs == [1, 1]


@pytest.mark.parametrize(("value", "status"), [("soon", 400), ("-1", 400), ("nan", 400), ("0", 504)])
def test_deadlines_that_are_none(value: str, status: int) -> None:
    with serving(Adder()) as server:
        assert ask(server, INFER, question([1] * 4), headers={"Skerry-Deadline-Ms": value}).status == status


def test_one_that_spoils_a_run_fails_alone() -> None:
    adder = Adder()
    with serving(adder) as server:
        asking = Asking(server)
        hold(adder, asking)
        for number in (1.0, -1e9, 2.0):
            asking.ask(question([number] * 4))
        wait_for(server, "skerry_serve_queued_rows", 3)
        adder.may_run.set()
        answers = asking.wait()
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 500]
    told = next(answer for answer in answers if answer.status == 500)
    assert told.json == {"error": "the model failed: RuntimeError"}


def test_the_end_answers_what_is_under_way_and_is_not_ready_first() -> None:
    adder = Adder()
    with serving(adder, linger=Duration(0.5)) as server:
        asking = Asking(server)
        hold(adder, asking)
        server.stop(linger=True)
        ends = time.monotonic() + PATIENCE_S
        while ask(server, "/v2/health/ready").status != 503:
            assert time.monotonic() < ends
        assert ask(server, "/v2/health/live").status == 200
        assert ask(server, "/v2/models/adder/ready").json == {"name": "adder", "ready": False}
        asking.ask(question([5, 5, 5, 5]))  # still taken
        wait_for(server, "skerry_serve_in_flight", 2)
        adder.may_run.set()
        assert [answer.status for answer in asking.wait()] == [200, 200]
    assert adder.is_closed


def test_what_does_not_end_in_time_is_told() -> None:
    adder = Adder()
    with serving(adder, drain=Duration(0.05)) as server:
        asking = Asking(server)
        hold(adder, asking)
        server.stop()
        assert [answer.status for answer in asking.wait()] == [503]
        adder.may_run.set()


def test_metrics_are_open_metrics() -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    with serving(Adder()) as server:
        ask(server, INFER, question([1, 2, 3, 4]))
        ask(server, INFER, {})
        ask(server, "/nowhere")
        answer = ask(server, "/metrics")
    families = {family.name: family for family in parser.text_string_to_metric_families(answer.body.decode())}
    requests = {
        (sample.labels["door"], sample.labels["status"]): sample.value
        for sample in families["skerry_serve_requests"].samples
    }
    assert requests == {("oip", "200"): 1, ("oip", "400"): 1}
    assert families["skerry_serve_request_seconds"].type == "histogram"
    assert [sample.value for sample in families["skerry_serve_refused"].samples] == [1]
    assert answer.headers["content-type"].startswith("application/openmetrics-text")


def test_large_arrays_go_both_ways() -> None:
    rows = np.ones((20_000, 4), dtype=np.float32)
    body = question()
    body["inputs"][0] |= {"shape": [20_000, 4], "data": rows.ravel().tolist()}
    with serving(Adder(), max_rows=100_000, queue=100_000) as server:
        padded = ask(server, INFER, body | {"id": "x" * 2_000_000})
        assert padded.status == 200 and set(padded.json["outputs"][0]["data"]) == {2.0}
        huge = ask(server, INFER, body | {"inputs": []} | {"id": "x" * 2_000_000})
        assert huge.status == 400
