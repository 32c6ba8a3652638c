"""The mqtt source against a real broker."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.spec.errors import SourceUnavailableError, SpecError
from skerry.testing.broker import Broker
from skerry.testing.certificates import make_certificate
from skerry.testing.sources import Collector, Run, build_source, make_context


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker.start(tmp_path / "broker") as started:
        yield started


def open_source(broker: Broker, folder: Path, rest: str, **options: Any) -> Any:
    source = build_source(f"mqtt://127.0.0.1:{broker.port}/{rest}", **options)
    source.open(make_context(folder), None)
    return source


class TestPayloads:
    def test_json(self, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with Run(open_source(broker, tmp_path, "a/+"), Collector()) as run:
            broker.publish("a/b", '{"x": 1}', "[2]", b"\xff garbage", "null")
            run.wait(3)
        run.source.close()
        assert [item.fields for item in run.emit.items] == [
            {"x": 1, "topic": "a/b"},
            {"value": [2], "topic": "a/b"},
            {"value": None, "topic": "a/b"},
        ]
        assert "message skipped" in caplog.text

    def test_text_and_bytes(self, broker: Broker, tmp_path: Path) -> None:
        with (
            Run(open_source(broker, tmp_path / "1", "a?payload=text"), Collector()) as as_text,
            Run(open_source(broker, tmp_path / "2", "a?payload=bytes"), Collector()) as as_bytes,
        ):
            broker.publish("a", "é", b"\xff")
            as_text.wait(2)
            as_bytes.wait(2)
        as_text.source.close()
        as_bytes.source.close()
        texts = [item.fields for item in as_text.emit.items]
        assert texts[0] == {"text": "é", "topic": "a"}
        assert texts[1] == {"text": "\ufffd", "topic": "a", "invalid_utf8": True}
        assert [item.fields["payload"] for item in as_bytes.emit.items] == ["é".encode(), b"\xff"]

    def test_a_message_of_ten_megabytes(self, broker: Broker, tmp_path: Path) -> None:
        with Run(open_source(broker, tmp_path, "a?payload=bytes"), Collector()) as run:
            broker.publish("a", b"x" * 10_000_000)
            [item] = run.wait(1)
        run.source.close()
        assert item.size == len(item.fields["payload"]) == 10_000_000

    def test_a_retained_message_is_marked(self, broker: Broker, tmp_path: Path) -> None:
        broker.publish("a", "1", retain=True)
        with Run(open_source(broker, tmp_path, "a"), Collector()) as run:
            [item] = run.wait(1)
        run.source.close()
        assert item.fields == {"value": 1, "topic": "a", "retained": True}

    def test_a_filter_that_ends_in_a_hash(self, broker: Broker, tmp_path: Path) -> None:
        for rest in ("a/#", "a/#?qos=0", "$share/group/a/%23"):
            with Run(open_source(broker, tmp_path, rest), Collector()) as run:
                broker.publish("a/b/c", "1")
                run.wait(1)
            run.source.close()


class TestAcknowledging:
    @pytest.mark.parametrize("qos", [1, 2])
    def test_what_was_not_committed_comes_again_after_a_restart(self, broker: Broker, tmp_path: Path, qos: int) -> None:
        source = open_source(broker, tmp_path, "a")
        with Run(source, Collector()) as run:
            broker.publish("a", *map(str, range(10)), qos=qos)
            items = run.wait(10)
            source.commit(items[5].position)
            broker.publish("other", "settle")  # one more round, so that the acknowledgements are through
        source.close()
        broker.publish("a", "10", qos=qos)  # while nobody is connected
        source = open_source(broker, tmp_path, "a")
        with Run(source, Collector()) as run:
            again = run.wait(5)
        source.close()
        assert [item.fields["value"] for item in again] == [6, 7, 8, 9, 10]

    def test_a_position_of_an_earlier_session_acknowledges_nothing(self, broker: Broker, tmp_path: Path) -> None:
        for _ in range(3):
            source = open_source(broker, tmp_path, "a")
            with Run(source, Collector()) as run:
                source.commit({"session": "earlier", "message": 1})
                if _ == 0:
                    broker.publish("a", "1")
                [item] = run.wait(1)
                source.commit({"session": "earlier", "message": 1})
                broker.publish("other", "settle")
            source.close()
            assert item.fields["value"] == 1

    @pytest.mark.parametrize("version", [3, 5])
    def test_both_versions_resume_in_their_session(self, broker: Broker, tmp_path: Path, version: int) -> None:
        open_source(broker, tmp_path, "a", version=version).close()
        broker.publish("a", "1")
        source = open_source(broker, tmp_path, "a", version=version)
        with Run(source, Collector()) as run:
            run.wait(1)
        source.close()

    def test_the_broker_sends_as_many_as_are_asked_for(self, broker: Broker, tmp_path: Path) -> None:
        source = open_source(broker, tmp_path, "a", in_flight=300)
        with Run(source, Collector()) as run:
            broker.publish("a", *map(str, range(300)))
            run.wait(300)
        source.close()

    def test_a_commit_after_the_end_is_harmless(self, broker: Broker, tmp_path: Path) -> None:
        source = open_source(broker, tmp_path, "a")
        with Run(source, Collector()) as run:
            broker.publish("a", "1")
            [item] = run.wait(1)
        source.close()
        source.commit(item.position)

    def test_more_messages_than_the_broker_sends_unacknowledged(self, broker: Broker, tmp_path: Path) -> None:
        source = open_source(broker, tmp_path, "a")
        emit = Collector()
        with Run(source, emit) as run:
            publisher = threading.Thread(target=broker.publish, args=("a", *map(str, range(200))))
            publisher.start()
            for count in range(1, 201):
                source.commit(run.wait(count)[count - 1].position)
            publisher.join()
        source.close()
        assert [item.fields["value"] for item in emit.items] == list(range(200))

    def test_a_full_pipeline_holds_messages_back_and_keeps_the_line(self, broker: Broker, tmp_path: Path) -> None:
        open_again = threading.Event()
        emit = Collector(refuse=lambda offer: not open_again.is_set())
        source = open_source(broker, tmp_path, "a", keepalive="1s")
        with Run(source, emit) as run:
            broker.publish("a", "1", "2", "3")
            assert not open_again.wait(2.5)  # longer than the broker would wait for a sign of life
            open_again.set()
            values = [item.fields["value"] for item in run.wait(3)]
        source.close()
        assert values == [1, 2, 3]

    def test_messages_of_qos_0_are_dropped_when_too_many_wait(
        self, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        full = Collector(refuse=lambda offer: True)
        source = open_source(broker, tmp_path, "a?qos=0", buffer=5)
        marker = open_source(broker, tmp_path / "marker", "a?qos=0", client_id="marker")
        with Run(source, full), Run(marker, Collector()) as seen:
            broker.publish("a", *map(str, range(50)))
            seen.wait(50)
            broker.publish("a", "last")
        source.close()
        marker.close()
        assert "QoS 0 dropped" in caplog.text


class TestLostBroker:
    def test_it_gets_back_by_itself_and_nothing_comes_twice(
        self, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = open_source(broker, tmp_path, "a")
        with Run(source, Collector()) as run:
            broker.publish("a", "1")
            source.commit(run.wait(1)[0].position)
            broker.publish("a", "2")
            run.wait(2)
            broker.kill()
            broker.restart()
            broker.publish("a", "3")
            values = [item.fields["value"] for item in run.wait(3)]
        source.close()
        # Message 2 was on its way when the broker was killed; it is sent again, but not emitted again.
        assert values == [1, 2, 3]
        assert "is lost" in caplog.text

    def test_a_broker_that_never_answers(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            source = build_source(f"mqtt://127.0.0.1:{silent.getsockname()[1]}/a", connect_timeout="200ms")
            with pytest.raises(SourceUnavailableError, match="did not answer"):
                source.open(make_context(tmp_path), None)
            source.close()


class TestAccess:
    def test_a_broker_that_refuses_is_quoted(self, tmp_path: Path) -> None:
        with Broker.start(tmp_path / "broker", lines=("allow_anonymous false",)) as broker:
            source = build_source(f"mqtt://user:wrong@127.0.0.1:{broker.port}/a")
            with pytest.raises(SourceUnavailableError, match="refuses the connection: Not authorized"):
                source.open(make_context(tmp_path), None)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho forgets a distrusted socket
    def test_tls(self, tmp_path: Path) -> None:
        cert, key = make_certificate(tmp_path)
        with Broker.start(tmp_path / "broker", lines=(f"certfile {cert}", f"keyfile {key}")) as broker:
            source = build_source(f"mqtts://127.0.0.1:{broker.port}/a", ca=cert.name)
            source.open(make_context(tmp_path), None)
            source.close()
            distrusting = build_source(f"mqtts://127.0.0.1:{broker.port}/a")
            with pytest.raises(SourceUnavailableError, match="certificate"):
                distrusting.open(make_context(tmp_path), None)

    def test_plain_text_beyond_loopback_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="plain text"):
            build_source("mqtt://192.0.2.1/a").open(make_context(tmp_path), None)

    def test_the_made_client_id_is_kept(self, broker: Broker, tmp_path: Path) -> None:
        for _ in range(2):
            open_source(broker, tmp_path, "a").close()
        assert len((make_context(tmp_path).state / "client-id").read_text()) <= 23

    @pytest.mark.parametrize("uri", ["mqtt://h/", "mqtt://h", "mqtt://h/a/#/b", "mqtt://h/a#"])
    def test_a_topic_is_needed(self, uri: str) -> None:
        with pytest.raises(SpecError, match="topic"):
            build_source(uri)

    def test_a_missing_password_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SKERRY_TEST_PASSWORD", raising=False)
        with pytest.raises(SpecError, match="SKERRY_TEST_PASSWORD"):
            build_source("mqtt://127.0.0.1/a", password_env="SKERRY_TEST_PASSWORD").open(make_context(tmp_path), None)


def test_positions_are_json(broker: Broker, tmp_path: Path) -> None:
    with Run(open_source(broker, tmp_path, "a"), Collector()) as run:
        broker.publish("a", "1")
        assert json.loads(json.dumps(run.wait(1)[0].position))["message"] == 1
    run.source.close()
