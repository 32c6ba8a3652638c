"""The hub sink: durable here at once, at the hub when there is a way, and never waiting for one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.main import main
from skerry.fleet.hub.server import Hub, HubSetup
from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.run.sinks.hub import HubOptions, HubSink, host_name
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkError, SinkUnavailableError, SpecError
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from skerry.testing.broker import free_port
from skerry.testing.http_server import http_server
from skerry.testing.sinks import SinkCase, SinkContract, a_context, some_records

QUICK: dict[str, Any] = {
    "linger": Duration(0.01), "first_pause": Duration(0.02), "longest_pause": Duration(0.1), "ballast": Size(0.0),
    "device": "pump-1",
}  # fmt: skip


def hub_sink(address: str, **options: Any) -> HubSink:
    return HubSink(parse_address(address)[0], HubOptions(**{**QUICK, **options}))


def kept(folder: Path) -> list[dict[str, Any]]:
    """Return the fields of what a hub holds, in the order in which it was made."""
    if not (folder / "hub.db").exists():
        return []
    store = SqliteStore(folder / "hub.db")
    try:
        found = sorted(store.records(limit=100_000), key=lambda record: (record.epoch, record.seq))
        return [msgspec.json.decode(record.fields) for record in found]
    finally:
        store.close()


class TestContract(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[SinkCase]:
        hub = Hub(HubSetup(data=tmp_path / "hub", port=0))
        hub.start()
        address = f"hub+http://127.0.0.1:{hub.port}"

        def read() -> list[dict[str, Any]]:
            begin, before = time.monotonic(), -1  # what is durable here is at the hub soon: the test asks once only
            while len(found := kept(tmp_path / "hub")) != before or (not found and time.monotonic() < begin + 0.4):
                before = len(found)
                time.sleep(0.1)
            return found

        yield SinkCase(make=lambda: hub_sink(address), read=read, home=tmp_path)
        hub.close()


def test_nothing_is_lost_without_a_hub_and_the_next_run_sends_it(tmp_path: Path) -> None:
    port = free_port()
    sink = hub_sink(f"hub+http://127.0.0.1:{port}")
    begin = time.monotonic()
    sink.open(a_context(tmp_path))
    sink.write(some_records(5))
    sink.flush()
    time.sleep(0.1)
    sink.close()
    assert time.monotonic() - begin < 3  # nobody waits for a link that is down
    hub = Hub(HubSetup(data=tmp_path / "hub", port=port))
    hub.start()
    try:
        again = hub_sink(f"hub+http://127.0.0.1:{port}")
        again.open(a_context(tmp_path))
        again.write(some_records(2, start=6))
        again.close()
        assert [fields["n"] for fields in kept(tmp_path / "hub")] == [1, 2, 3, 4, 5, 6, 7]
    finally:
        hub.close()


def test_the_end_of_a_run_waits_a_little_while_records_get_through(tmp_path: Path) -> None:
    hub = Hub(HubSetup(data=tmp_path / "hub", port=0))
    hub.start()
    try:
        sink = hub_sink(f"hub+http://127.0.0.1:{hub.port}", farewell=Duration(10.0))
        sink.open(a_context(tmp_path))
        sink.write(some_records(3000))
        sink.close()
        assert len(kept(tmp_path / "hub")) == 3000
    finally:
        hub.close()


def test_a_record_may_say_how_urgent_it_is(tmp_path: Path) -> None:
    sink = hub_sink(f"hub+http://127.0.0.1:{free_port()}", priority="low", priority_from="how")
    sink.open(a_context(tmp_path))
    sink.write([Record({"n": 1}), Record({"n": 2, "how": "critical"}), Record({"n": 3, "how": "whatever"})])
    assert sink._outbox is not None
    assert [record.priority for record in sink._outbox.pending()] == [3, 0, 0]
    assert sink.counters()["acknowledged"] == 0
    sink.close()


def test_a_record_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    sink = hub_sink(f"hub+http://127.0.0.1:{free_port()}")
    sink.open(a_context(tmp_path))
    try:
        with pytest.raises(SinkError, match="blobs"):
            sink.write([Record({"n": 1}), Record({"text": "x" * 100_000_000})])
        assert sink._outbox is not None and not sink._outbox.pending()
        sink.write([Record({"n": 1})])
    finally:
        sink.close()


@pytest.mark.parametrize("bad", [{f"f{n}": "x" * 19_000 for n in range(60)}, {"deep": [[[]]]}], ids=["wide", "deep"])
def test_records_beside_one_that_the_outbox_refuses_are_stored_once(tmp_path: Path, bad: dict[str, Any]) -> None:
    if "deep" in bad:
        for _ in range(80):
            bad["deep"] = [bad["deep"]]
    sink = hub_sink(f"hub+http://127.0.0.1:{free_port()}")
    sink.open(a_context(tmp_path))
    try:
        records = [Record({"n": 1}), Record(bad), Record({"n": 2})]
        with pytest.raises(SinkError) as caught:
            sink.write(records)
        assert not isinstance(caught.value, SinkUnavailableError)  # else the engine would wait, and try for ever
        for record in records:  # as the engine does then
            with contextlib.suppress(SinkError):
                sink.write([record])
        assert sink._outbox is not None
        assert [record.fields for record in sink._outbox.pending()] == [{"n": 1}, {"n": 2}]
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("hub+http://127.0.0.1:1", {"in_flight": 0}),
        ("hub+http://127.0.0.1:1", {"quiet_hours": ["noon"]}),
        ("hub+http://127.0.0.1:1", {"longest_pause": Duration(0.0)}),
    ],
)
def test_options_that_cannot_be_kept_are_refused(address: str, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        hub_sink(address, **options)


@pytest.mark.parametrize("address", ["hub+http://example.com:80", "hub+http://", "hub+http://a b", "hub+http://h:x"])
def test_bad_addresses_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(SpecError):
        hub_sink(address).open(a_context(tmp_path))


def test_what_stands_in_the_way_is_told_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = a_context(tmp_path)
    with http_server() as portal:
        portal.reply, portal.reply_type = b"<html>Please log in</html>", "text/html"
        sink = hub_sink(f"hub+http://127.0.0.1:{portal.port}")
        sink.open(context)
        sink.write(some_records(2))
        limit = time.monotonic() + 10
        while not sink.counters()["impostors"] and time.monotonic() < limit:
            time.sleep(0.01)
        sink.close()
    assert main(["outbox", "status", str(context.state)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 waiting" in said and " impostor: " in said and "captive portal" in said


def test_a_device_that_is_not_enrolled_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_IDENTITY", str(tmp_path / "nowhere"))
    with pytest.raises(SinkUnavailableError, match="enrolled") as caught:
        hub_sink("hub:").open(a_context(tmp_path))
    assert "skerry enroll" in caught.value.hint


def test_an_outbox_folder_in_the_way_is_unavailable(tmp_path: Path) -> None:
    context = a_context(tmp_path)
    (context.state / "outbox").write_bytes(b"a file")
    with pytest.raises(SinkUnavailableError):
        hub_sink(f"hub+http://127.0.0.1:{free_port()}").open(context)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("uplink")]


def test_the_name_of_a_host_makes_a_name_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Pump_7.Local.Example")
    assert host_name() == "pump-7"
    monkeypatch.setattr("socket.gethostname", lambda: "___")
    assert host_name() == "device"
