"""A routed stage in front of a cloud on loopback: who answers, why, and that no bad answer comes through."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from skerry.run.route.evidence import Evidence, read_evidence, write_evidence
from skerry.run.route.route import Route
from skerry.run.route.senses import Feeling
from skerry.run.route.stage import RoutedStage
from skerry.run.stages.classify import ClassifyStage
from skerry.spec.errors import CalibrationError
from skerry.spec.record import Record
from skerry.spec.summary import RunSummary, StageSummary
from skerry.testing.http_server import free_port

from .cloud import (
    HARD,
    LABELS,
    SURE,
    CloudServer,
    a_cloud,
    a_plan,
    as_json,
    cloud_server,
    context_of,
    evidence_for,
    labelled,
    routed_stage,
)  # fmt: skip


@pytest.fixture
def cloud() -> Any:
    with cloud_server() as server:
        yield server


def answer(stage: Any, text: str, **fields: Any) -> dict[str, Any]:
    record = Record({"text": text, **fields})
    assert stage.process(record) is record
    answered: dict[str, Any] = record.fields
    return answered


def balances(stage: Any) -> None:
    state = stage.route.state()
    assert state.items == state.answered + state.cached + sum(state.local.values())


def test_sure_answers_stand_and_hard_ones_are_asked_for(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        sure, hard = answer(stage, SURE), answer(stage, HARD)
        assert (sure["label"], sure["answered_by"]) == ("failure", "local")
        assert (hard["label"], hard["score"], hard["answered_by"]) == ("login", 0.9, "cloud")
        assert sorted(sure) == ["answered_by", "label", "score", "text"]
        state = stage.route.state()
        assert (state.answered, state.local, state.items) == (1, {"sure": 1}, 2)
        assert state.bytes > 100 and state.requests == 1
    assert cloud.asked == [("/classify", {"text": HARD})]


def test_a_batch_is_asked_for_in_one_request(tmp_path: Path, cloud: CloudServer) -> None:
    def say(path: str, body: Any) -> Any:
        if path.endswith("/infer"):
            texts = body["inputs"][0]["data"]
            return as_json({"outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [len(texts)], "data": ["install"] * len(texts)},
                {"name": "score", "datatype": "FP32", "shape": [len(texts)], "data": [0.8] * len(texts)},
            ]})  # fmt: skip
        return as_json({"name": "m", "versions": ["1"], "outputs": [{"name": "embedding"}, {"name": "label"}]})

    cloud.answer = say
    with routed_stage(tmp_path, a_cloud(cloud.url("/v2/models/m"))) as stage:
        records = [Record({"text": text}) for text in (SURE, HARD, f"{HARD} x", SURE)]
        stage.process_batch(records)
        assert [record.fields["answered_by"] for record in records] == ["local", "cloud", "cloud", "local"]
        assert records[1].fields["label"] == "install"
        balances(stage)
    assert [path for path, _ in cloud.asked] == ["/v2/models/m", "/v2/models/m/infer"]
    assert cloud.asked[1][1]["outputs"] == [{"name": "label"}]


def test_a_cloud_that_gives_vectors_meets_prototypes_of_its_own(tmp_path: Path, cloud: CloudServer) -> None:
    from skerry.testing.words import BagOfWords

    larger = BagOfWords(512, seed=3)

    def say(_path: str, body: Any) -> Any:
        vectors = larger.embed(body["input"])
        return as_json({"data": [{"index": i, "embedding": row.tolist()} for i, row in enumerate(vectors)]})

    cloud.answer = say
    with routed_stage(tmp_path, a_cloud(cloud.url("/v1/embeddings"), model="big"), threshold=2.0) as stage:
        fields = answer(stage, "a session of user ann")
        assert (fields["label"], fields["answered_by"]) == ("login", "cloud")
        assert 0 < fields["score"] <= 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((200, "text/html", b"<html>log in to the hotel</html>"), "html"),
        ((200, "application/json", b'{"error": "no"}'), "error"),
        ((200, "application/json", b'{"label": "holiday"}'), "label"),
        ((200, "application/json", b'{"label": "login", "score": NaN}'), "no_json"),
        ((503, "application/json", b"{}"), "status_503"),
        ((302, "text/html", b""), "status_302"),
    ],
)
def test_a_bad_answer_is_counted_and_the_local_one_stands(
    tmp_path: Path, cloud: CloudServer, reply: Any, reason: str
) -> None:
    cloud.answer = lambda _path, _body: reply
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        fields = answer(stage, HARD)
        assert fields["label"] in LABELS and fields["answered_by"] == "local"
        state = stage.route.state()
        assert state.faults == {reason: 1} and state.local == {"failed": 1}


@pytest.mark.parametrize("vector", [[1.0, 2.0], [1.0, None]])
def test_a_vector_of_another_length_never_comes_through(tmp_path: Path, cloud: CloudServer, vector: Any) -> None:
    cloud.answer = lambda _path, _body: as_json({"data": [{"index": 0, "embedding": vector}]})
    with routed_stage(tmp_path, a_cloud(cloud.url("/v1/embeddings")), embeds=True, dimension=8) as stage:
        fields = answer(stage, HARD)
        assert fields["embedding"].shape == (8,) and fields["answered_by"] == "local"
        assert set(stage.route.state().faults) <= {"dimension", "nan"}
        balances(stage)


def test_embeddings_come_from_the_cloud_where_they_fit(tmp_path: Path, cloud: CloudServer) -> None:
    cloud.answer = lambda _path, _body: as_json({"data": [{"index": 0, "embedding": [0.0] * 7 + [1.0]}]})
    with routed_stage(tmp_path, a_cloud(cloud.url("/v1/embeddings")), embeds=True, dimension=8) as stage:
        assert answer(stage, HARD)["embedding"].tolist() == [0.0] * 7 + [1.0]


def test_a_cloud_that_is_not_there_opens_the_circuit(tmp_path: Path) -> None:
    cloud = a_cloud(f"http://127.0.0.1:{free_port()}/x", breaker={"failures": 2, "pause": "1h"})
    with routed_stage(tmp_path, cloud) as stage:
        for _ in range(5):
            assert answer(stage, HARD)["answered_by"] == "local"
        state = stage.route.state()
        assert state.faults == {"unreachable": 2} and state.local == {"failed": 2, "breaker": 3}


def test_a_slow_cloud_is_not_waited_for_beyond_its_timeout(tmp_path: Path, cloud: CloudServer) -> None:
    cloud.pause_s = 1.0
    with routed_stage(tmp_path, a_cloud(cloud.url(), timeout="50ms")) as stage:
        assert answer(stage, HARD)["answered_by"] == "local"
        assert stage.route.state().faults == {"timeout": 1}


def test_a_record_whose_deadline_is_near_is_not_sent(tmp_path: Path, cloud: CloudServer) -> None:
    cloud.pause_s = 0.15
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        answer(stage, HARD)  # learns that it takes 150 ms
        record = Record({"text": HARD}, deadline_ns=time.monotonic_ns() + 100_000_000)
        stage.process(record)
        assert record.fields["answered_by"] == "local"
        relaxed = Record({"text": HARD}, deadline_ns=time.monotonic_ns() + 60_000_000_000)
        stage.process(relaxed)
        assert relaxed.fields["answered_by"] == "cloud"
        assert stage.route.state().local == {"deadline": 1}


def test_personal_text_leaves_redacted_or_with_consent_or_not_at_all(tmp_path: Path, cloud: CloudServer) -> None:
    text = f"{HARD} ada@example.org"
    labels = {"text": "personal", "consented": "internal"}
    with routed_stage(tmp_path / "a", a_cloud(cloud.url()), privacy=labels) as stage:
        assert answer(stage, text)["answered_by"] == "local"
        assert stage.route.state().local == {"personal": 1} and not cloud.asked
    with routed_stage(tmp_path / "b", a_cloud(cloud.url(), redact=["email"]), privacy=labels) as stage:
        fields = answer(stage, text)
        assert fields["answered_by"] == "cloud" and fields["text"] == text
        assert cloud.asked.pop() == ("/classify", {"text": f"{HARD} [email]"})
    with routed_stage(tmp_path / "c", a_cloud(cloud.url(), consent="consented"), privacy=labels) as stage:
        assert answer(stage, text, consented="yes")["answered_by"] == "local"
        assert answer(stage, text, consented=True)["answered_by"] == "cloud"
        assert cloud.asked == [("/classify", {"text": text})]
    with routed_stage(tmp_path / "d", a_cloud(cloud.url(), redact=["email"]), privacy={}) as stage:
        assert answer(stage, text)["answered_by"] == "local"


@pytest.mark.parametrize(
    ("feeling", "reason"),
    [(Feeling(battery=0.1), "battery"), (Feeling(temperature=95.0), "heat"), (Feeling(linked=False), "offline")],
)
def test_how_the_machine_feels_counts(tmp_path: Path, cloud: CloudServer, feeling: Feeling, reason: str) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url()), feeling=feeling) as stage:
        assert answer(stage, HARD)["answered_by"] == "local"
        assert stage.route.state().local == {reason: 1} and not cloud.asked


def test_budgets_of_a_day_survive_a_restart(tmp_path: Path, cloud: CloudServer) -> None:
    limited = a_cloud(cloud.url(), money_per_day=2.5, cost={"request": 1.0})
    for expected in ({}, {"money": 1}):
        with routed_stage(tmp_path, limited) as stage:
            answer(stage, HARD)
            if not expected:
                answer(stage, HARD)
            assert stage.route.state().local == expected
    with routed_stage(tmp_path / "bytes", a_cloud(cloud.url(), bytes_per_day="10B")) as stage:
        answer(stage, HARD)
        assert stage.route.state().local == {"bytes": 1}


def test_what_cannot_be_written_down_is_not_spent(
    tmp_path: Path, cloud: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url(), bytes_per_day="1MB")) as stage:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        assert answer(stage, HARD)["answered_by"] == "local"
        state = stage.route.state()
        assert state.faults == {"state": 1} and not cloud.asked
        balances(stage)


def test_a_text_of_many_megabytes_stays_here(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url()), threshold=2.0) as stage:
        assert answer(stage, HARD * 100_000)["answered_by"] == "local"
        assert stage.route.state().local == {"large": 1} and not cloud.asked


def test_answers_are_remembered_where_that_was_asked_for(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url(), cache=10)) as stage:
        first, second = answer(stage, HARD), answer(stage, HARD)
        assert (first["answered_by"], second["answered_by"]) == ("cloud", "cache")
        assert first["label"] == second["label"]
        state = stage.route.state()
        assert (state.answered, state.cached, len(cloud.asked)) == (1, 1, 1)


def test_the_metrics_tell_who_answered(tmp_path: Path, cloud: CloudServer) -> None:
    from skerry.run.openmetrics import render

    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        answer(stage, SURE)
        answer(stage, HARD)
        told = StageSummary(id="sort", kind="classify", role="stage", route=stage.route.state())
        text = render(RunSummary(pipeline="p", stages=[told]))
    assert 'skerry_route_answers_total{stage="sort",by="cloud",reason="hard"} 1' in text
    assert 'skerry_route_answers_total{stage="sort",by="local",reason="sure"} 1' in text


def test_an_alarm_lets_no_local_answer_stand(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url()), alarm=lambda: True) as stage:
        assert answer(stage, SURE)["answered_by"] == "cloud"
        assert stage.route.state().alarmed
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        assert answer(stage, SURE)["answered_by"] == "local"
    (tmp_path / "build" / "drift").touch()  # the same door, for another process
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        assert answer(stage, SURE)["answered_by"] == "cloud"


def test_another_model_in_the_cloud_than_the_calibrated_one_raises_the_alarm(
    tmp_path: Path, cloud: CloudServer
) -> None:
    def say(path: str, _body: Any) -> Any:
        if not path.endswith("/infer"):
            return as_json({"name": "m", "versions": ["2"], "outputs": []})
        return as_json({"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["login"]}]})

    cloud.answer = say
    url = cloud.url("/v2/models/m")
    digests = {**evidence_for(a_plan(tmp_path, a_cloud(url), {}), context_of(tmp_path), 0.5).digests, "remote": "other"}
    with routed_stage(tmp_path, a_cloud(url), digests=digests) as stage:
        assert answer(stage, SURE)["answered_by"] == "local"  # nobody asked yet
        assert answer(stage, HARD)["answered_by"] == "cloud"
        assert answer(stage, SURE)["answered_by"] == "cloud" and stage.route.state().alarmed


def test_a_hedge_asks_once_more_and_takes_the_first_answer(tmp_path: Path, cloud: CloudServer) -> None:
    first = threading.Event()

    def say(_path: str, _body: Any) -> Any:
        if not first.is_set():
            first.set()
            time.sleep(1.0)
        return as_json({"label": "install"})

    cloud.answer = say
    with routed_stage(tmp_path, a_cloud(cloud.url(), hedge="50ms", timeout="5s")) as stage:
        assert answer(stage, HARD)["label"] == "install"
        assert len(cloud.asked) == 2


def test_a_question_that_is_asked_twice_is_paid_twice(tmp_path: Path, cloud: CloudServer) -> None:
    cloud.answer, cloud.pause_s = labelled("install"), 0.3
    hedged = a_cloud(cloud.url(), hedge="20ms", timeout="5s", cost={"request": 1.0}, money_per_day=3)
    with routed_stage(tmp_path, hedged) as stage:
        answer(stage, HARD)
        ends = time.monotonic() + 20
        while stage.route.state().requests < 2 and time.monotonic() < ends:
            time.sleep(0.02)
        answer(stage, HARD)
        assert answer(stage, HARD)["answered_by"] == "local"
        assert stage.route.state().local == {"money": 1} and len(cloud.asked) == 4


def test_half_a_character_is_asked_for_like_any_text(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        assert answer(stage, HARD + " \ud800")["answered_by"] == "cloud"
        assert cloud.asked[0][1] == {"text": HARD + " ?"}


def test_without_a_calibration_a_stage_says_what_to_run(tmp_path: Path, cloud: CloudServer) -> None:
    plan = a_plan(tmp_path, a_cloud(cloud.url()), {"text": "public"})
    options: Any = plan.subject.options
    stage = RoutedStage(ClassifyStage(options), Route(plan))
    with pytest.raises(CalibrationError, match="skerry calibrate"):
        stage.open(context_of(tmp_path))


def stale(tmp_path: Path, **changes: Any) -> str:
    cloud = a_cloud("http://127.0.0.1:9/x")
    plan, context = a_plan(tmp_path, cloud, {"text": "public"}), context_of(tmp_path)
    found = evidence_for(plan, context, 0.5)
    digests = {**found.digests, **changes.pop("digests", {})}
    write_evidence(plan.folder, evidence_for(plan, context, 0.5, digests=digests, **changes))
    with pytest.raises(CalibrationError, match="stale") as caught:
        Route(plan).open(context)
    return str(caught.value)


def test_a_calibration_for_something_else_is_stale(tmp_path: Path) -> None:
    assert "the local model" in stale(tmp_path, digests={"local": "sha256:other"})
    assert "the options of the stage" in stale(tmp_path, digests={"stage": "sha256:other"})
    assert "the cloud" in stale(tmp_path, digests={"cloud": "sha256:other"})
    assert "max_quality_loss" in stale(tmp_path, max_quality_loss=0.05)
    assert "certainty" in stale(tmp_path, certainty=0.8)
    assert "rank" in stale(tmp_path, rank="score")


def test_a_stricter_calibration_serves(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url()), max_quality_loss=0.01, certainty=0.95) as stage:
        assert answer(stage, SURE)["answered_by"] == "local"


def test_other_calibration_data_are_noticed_where_they_are(tmp_path: Path) -> None:
    import msgspec

    plan = msgspec.structs.replace(a_plan(tmp_path, a_cloud("http://127.0.0.1:9/x"), {}), data="texts.txt")
    (tmp_path / "texts.txt").write_text("one\n")
    context = context_of(tmp_path)
    write_evidence(plan.folder, evidence_for(plan, context, 0.5))
    Route(plan).open(context)
    (tmp_path / "texts.txt").write_text("two\n")
    with pytest.raises(CalibrationError, match="the calibration data changed"):
        Route(plan).open(context)
    (tmp_path / "texts.txt").unlink()  # a device gets the build without them
    Route(plan).open(context)


def test_damaged_evidence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "sort.json").write_bytes(b"\xff{")
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_evidence(tmp_path, "sort")
    assert Evidence.__struct_config__.forbid_unknown_fields


REPLIES: list[Any] = [
    as_json({"label": "install", "score": 0.5}), as_json({"label": "holiday"}), as_json({"error": "no"}), as_json([]),
    (200, "text/html", b"<html>"), (503, "text/plain", b""), (200, "application/json", b'{"lab'),
    as_json({"label": "login", "score": 2}), as_json({"embedding": [1.0]}),
]  # fmt: skip


def test_whatever_the_cloud_says_each_record_has_one_good_answer(tmp_path: Path, cloud: CloudServer) -> None:
    chance = random.Random(0)
    cloud.answer = lambda _path, _body: chance.choice(REPLIES)
    patient = a_cloud(cloud.url(), breaker={"failures": 1000}, cache=20)
    with routed_stage(tmp_path, patient) as stage:
        texts = [chance.choice([SURE, HARD, f"{HARD} {number}"]) for number in range(300)]
        found = [answer(stage, text) for text in texts]
        state = stage.route.state()
        assert state.items == 300 and state.answered and state.cached and state.local["failed"]
        assert len(state.faults) >= 6 and sum(state.faults.values()) == state.local["failed"]
        balances(stage)
    assert all(fields["label"] in LABELS and 0 <= fields["score"] <= 1 for fields in found)


def test_a_stage_that_is_opened_anew_goes_on_counting(tmp_path: Path, cloud: CloudServer) -> None:
    with routed_stage(tmp_path, a_cloud(cloud.url(), bytes_per_day="1MB")) as stage:
        answer(stage, HARD)
        before = stage.route.state()
        stage.close()
        stage.open(context_of(tmp_path))
        answer(stage, HARD)
        after = stage.route.state()
        assert (after.answered, after.requests, after.bytes) == (2, 2, 2 * before.bytes)
        balances(stage)


def test_workers_share_one_route(tmp_path: Path, cloud: CloudServer) -> None:
    cloud.answer = labelled("install")
    with routed_stage(tmp_path, a_cloud(cloud.url())) as stage:
        options: Any = stage.route.plan.subject.options
        other = RoutedStage(ClassifyStage(options), stage.route)
        other.open(context_of(tmp_path))
        threads = [threading.Thread(target=lambda s=s: [answer(s, HARD) for _ in range(10)]) for s in (stage, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.close()
        assert answer(stage, HARD)["answered_by"] == "cloud"
        assert stage.route.state().answered == 21
        balances(stage)
