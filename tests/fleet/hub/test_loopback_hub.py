"""A hub on loopback, as devices and operators meet it over HTTP."""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import json
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.server import Hub
from skerry.fleet.hub.store import StoredRecord, Transaction
from skerry.spec.errors import HubError, UsageError
from skerry.spec.units import Duration, Size
from skerry.wire.receipt import decode_receipt
from tests.fleet.hub.devices import Device, ask, record, records, request


@pytest.fixture
def hub(start_hub: Callable[..., Hub]) -> Hub:
    return start_hub()


def post(hub: Hub, body: bytes) -> Any:
    return request(hub.port, "POST", "/v1/batches", body)


def metric(hub: Hub, line: str) -> float:
    text = request(hub.port, "GET", "/metrics").body.decode()
    return float(next(row.rsplit(" ", 1)[1] for row in text.splitlines() if row.startswith(line)))


def test_a_batch_is_answered_with_a_receipt_and_listed(hub: Hub) -> None:
    reply = post(hub, Device().pack(records(1, 5)))
    assert (reply.status, reply.headers["skerry-hub"]) == (200, "1")
    assert reply.headers["content-type"] == "application/vnd.skerry.receipt"
    receipt = decode_receipt(reply.body)
    assert receipt.committed == [(1, 5)]
    listed = request(hub.port, "GET", "/v1/records?stream=events&limit=2").json()
    assert [each["fields"] for each in listed["records"]] == [{"value": 1}, {"value": 2}] and listed["next"] == 2
    (account,) = request(hub.port, "GET", "/v1/audit?device=pump-1").json()["accounts"]
    assert (account["count"], int(account["checksum"], 16)) == (5, receipt.checksum)


def test_the_first_key_of_a_device_is_pinned(hub: Hub) -> None:
    device, other = Device(), Device()
    assert post(hub, device.pack(records(1, 1), signed=False)).status == 200  # nothing is known yet
    assert post(hub, device.pack(records(2, 2))).status == 200
    assert post(hub, device.pack(records(3, 3), signed=False)).status == 403
    assert post(hub, other.pack(records(3, 3))).status == 403
    changed = bytearray(device.pack(records(3, 3)))
    changed[20] ^= 1
    assert post(hub, bytes(changed)).status in {400, 403}
    assert request(hub.port, "POST", "/v1/devices/pump-1/forget-key").json() == {"forgotten": 1}
    assert post(hub, other.pack(records(3, 3))).status == 200
    assert post(hub, device.pack(records(4, 4))).status == 403


def test_a_first_batch_that_was_changed_pins_nothing(hub: Hub) -> None:
    good = Device().pack(records(1, 3))
    for place in range(7, len(good), 9):
        bad = bytearray(good)
        bad[place] ^= 0x40
        assert post(hub, bytes(bad)).status in {400, 403}, place
    assert post(hub, Device().pack(records(1, 3))).status == 200


def bombs() -> dict[str, tuple[bytes, int]]:
    good = Device().pack(records(1, 50))
    version = bytearray(good)
    version[3] = 9
    huge = Device().pack([record(1, {"text": "a" * 3_000_000})], signed=False)  # 3 MB in some hundred bytes
    return {
        "empty": (b"", 400), "html": (b"<html>login</html>", 400), "cut": (good[: len(good) // 2], 400),
        "version": (bytes(version), 426), "zip bomb": (huge, 400), "large": (b"x" * 200_001, 413),
        "twice": (Device().pack([record(1), record(1)], signed=False), 400),
        "name": (Device("Pump 1").pack(records(1, 1)), 400),
    }  # fmt: skip


def test_bad_input_is_refused_and_counted_and_harms_nobody(start_hub: Callable[..., Hub]) -> None:
    hub = start_hub(options=HubOptions(max_body=Size(200_000), max_decoded=Size(1_000_000)))
    for name, (body, status) in bombs().items():
        reply = post(hub, body)
        assert reply.status == status, (name, reply)
        assert reply.headers["skerry-hub"] == "1" and reply.json()["detail"]
    assert post(hub, Device("pump-2").pack(records(1, 2))).status == 200
    assert metric(hub, 'skerry_hub_batches_total{outcome="unreadable"}') == 5
    assert metric(hub, 'skerry_hub_batches_total{outcome="version"}') == 1
    assert metric(hub, 'skerry_hub_batches_total{outcome="http_413"}') == 1
    assert metric(hub, "skerry_hub_held_bytes") == 0


def test_a_body_without_a_length_is_limited_too(start_hub: Callable[..., Hub]) -> None:
    hub = start_hub(options=HubOptions(max_body=Size(100_000)))
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    connection.request("POST", "/v1/batches", iter([b"x" * 60_000, b"x" * 60_000]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 413
    connection.close()
    batch = Device().pack(records(1, 2))
    connection.request("POST", "/v1/batches", iter([batch[:9], batch[9:]]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 200
    connection.close()


def test_a_sender_that_falls_silent_is_hung_up_on(start_hub: Callable[..., Hub]) -> None:
    hub = start_hub(options=HubOptions(patience=Duration(0.2)))
    with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as half_open:
        half_open.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nSKB")
        assert b" 408 " in half_open.recv(4096)
    assert metric(hub, "skerry_hub_held_bytes") == 0


class Slow:
    """An effect that waits for the test."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, _transaction: Transaction, _rows: Sequence[StoredRecord]) -> None:
        self.go.wait(30)


def test_a_busy_hub_tells_devices_to_come_back(start_hub: Callable[..., Hub]) -> None:
    slow = Slow()
    hub = start_hub(effects=[slow], options=HubOptions(per_device=2, in_flight=Size(3000), retry_after=Duration(7)))
    device = Device()
    batches = [device.pack([record(seq, {"text": f"{seq}" * 20})]) for seq in range(1, 4)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(post, hub, body) for body in batches[:2]]
        while metric(hub, "skerry_hub_held_bytes") < len(batches[0]) + len(batches[1]):
            pass
        refused = post(hub, batches[2])
        assert (refused.status, refused.headers["retry-after"]) == (429, "7")
        large = Device("pump-2").pack([record(1, {"text": "".join(chr(64 + n * n % 61) for n in range(4000))})])
        full = post(hub, large + b"x" * 3000)
        assert (full.status, full.headers["retry-after"]) == (503, "7")
        slow.go.set()
        assert [each.result().status for each in waiting] == [200, 200]
    assert post(hub, batches[2]).status == 200
    assert metric(hub, 'skerry_hub_batches_total{outcome="device_busy"}') == 1
    assert metric(hub, 'skerry_hub_batches_total{outcome="hub_busy"}') == 1


def test_many_devices_at_once_share_commits(hub: Hub) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        devices = [Device(f"pump-{number}") for number in range(16)]
        replies = list(pool.map(lambda device: post(hub, device.pack(records(1, 20))), devices))
    assert {reply.status for reply in replies} == {200}
    assert len(request(hub.port, "GET", "/v1/records").json()["records"]) == 320


def test_dead_letters_are_listed_replayed_and_dropped(start_hub: Callable[..., Hub]) -> None:
    bad = {"now": True}

    def picky(_transaction: Transaction, rows: Sequence[StoredRecord]) -> None:
        if bad["now"] and any(row.seq in {2, 3} for row in rows):
            raise ValueError("the rule is missing")

    hub = start_hub(effects=[picky])
    assert [seq for seq, _ in decode_receipt(post(hub, Device().pack(records(1, 4))).body).dead] == [2, 3]
    two, _three = request(hub.port, "GET", "/v1/dead").json()["dead"]
    assert (two["seq"], two["fields"], two["reason"]) == (2, {"value": 2}, "ValueError: the rule is missing")
    again = request(hub.port, "POST", "/v1/dead/replay", b"{}").json()
    assert again["replayed"] == 0 and len(again["failed"]) == 2
    bad["now"] = False
    chosen = json.dumps({"ids": [two["id"]]}).encode()
    assert request(hub.port, "POST", "/v1/dead/replay", chosen).json() == {"replayed": 1, "failed": {}}
    assert request(hub.port, "POST", "/v1/dead/drop", b'{"reason": "seen"}').json() == {"dropped": 1}
    assert request(hub.port, "GET", "/v1/dead").json()["dead"] == []
    assert request(hub.port, "POST", "/v1/dead/drop", b'{"idz": []}').status == 400
    assert {each["seq"] for each in request(hub.port, "GET", "/v1/records").json()["records"]} == {1, 2, 4}


def events(response: http.client.HTTPResponse, wanted: int) -> list[tuple[int, dict[str, Any]]]:
    found: list[tuple[int, dict[str, Any]]] = []
    number = 0
    while len(found) < wanted:
        line = response.readline().decode().rstrip("\n")
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            found.append((number, json.loads(line[6:])))
    return found


def test_the_stream_tells_of_records_as_they_come_and_from_any_number_on(hub: Hub) -> None:
    device = Device()
    post(hub, device.pack(records(1, 3)))
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    connection.request("GET", "/v1/records/stream?after=1")
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [each["seq"] for _, each in events(response, 2)] == [2, 3]
    post(hub, device.pack(records(4, 5)))
    last = events(response, 2)
    assert [each["seq"] for _, each in last] == [4, 5]
    connection.close()
    post(hub, device.pack([*records(6, 7), record(8, stream="other")]))
    resumed = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    resumed.request("GET", "/v1/records/stream?stream=other", headers={"Last-Event-ID": str(last[-1][0])})
    assert [each["seq"] for _, each in events(resumed.getresponse(), 1)] == [8]
    resumed.close()


def test_an_open_stream_does_not_hold_up_the_end(hub: Hub) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    connection.request("GET", "/v1/records/stream")
    response = connection.getresponse()
    response.readline()
    hub.close()
    assert response.read().endswith(b"\n")
    connection.close()


def test_the_export_is_a_parquet_file(hub: Hub) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    post(hub, Device().pack([record(seq, stream=f"s{seq % 2}") for seq in range(1, 31)]))
    body = request(hub.port, "GET", "/v1/records.parquet?stream=s1").body
    table = pq.read_table(io.BytesIO(body))
    assert table.column("seq").to_pylist() == list(range(1, 31, 2))
    assert json.loads(table.column("fields")[0].as_py()) == {"value": 1}
    assert str(table.schema.field("at").type) == "timestamp[ms, tz=UTC]"
    assert pq.read_table(io.BytesIO(request(hub.port, "GET", "/v1/records.parquet?device=no").body)).num_rows == 0


def test_a_query_that_makes_no_sense_is_told(hub: Hub) -> None:
    for query in ("after=-1", "nothing=1", "limit=99999999", "since=tuesday"):
        assert request(hub.port, "GET", f"/v1/records?{query}").status == 400, query


def test_a_page_from_elsewhere_cannot_use_the_browser_of_this_machine(hub: Hub) -> None:
    assert request(hub.port, "GET", "/v1/records", headers={"Origin": "https://evil.example"}).status == 401
    assert request(hub.port, "GET", "/v1/records", headers={"Host": "evil.example:80"}).status == 401
    assert request(hub.port, "GET", "/v1/records", headers={"Origin": "http://127.0.0.1:1"}).status == 200


def test_the_metrics_are_openmetrics(hub: Hub) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    post(hub, Device().pack(records(1, 5), losses={"evicted.low.caps": 12}))
    reply = request(hub.port, "GET", "/metrics")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parser.text_string_to_metric_families(reply.body.decode())}
    (loss,) = families["skerry_device_losses"].samples
    assert (loss.labels, loss.value) == ({"kind": "evicted.low.caps"}, 12)
    fates = {sample.labels["fate"]: sample.value for sample in families["skerry_hub_records"].samples}
    assert fates["committed"] == 5


def test_a_connection_that_never_asks_is_hung_up_on(
    start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.fleet.hub.connection.SILENCE_S", 0.1)
    with socket.create_connection(("127.0.0.1", start_hub().port), timeout=20) as silent:
        assert silent.recv(100) == b""


def test_health_and_unknown_addresses(hub: Hub) -> None:
    assert request(hub.port, "GET", "/healthz").json()["status"] == "ok"
    assert request(hub.port, "GET", "/v1/nothing").status == 404
    assert request(hub.port, "GET", "/v1/batches").status == 405
    assert request(hub.port, "GET", "/v1/ca").status == 404


def test_two_hubs_do_not_share_a_folder_or_a_port(hub: Hub, start_hub: Callable[..., Hub], tmp_path: Path) -> None:
    with pytest.raises(HubError, match="another hub"):
        start_hub()
    with pytest.raises(UsageError, match="cannot listen"):
        start_hub(data=tmp_path / "other", port=hub.port)


def test_a_hub_does_not_listen_beyond_loopback_without_an_authority(tmp_path: Path) -> None:
    from skerry.fleet.hub.server import HubSetup

    with pytest.raises(UsageError, match="authority"):
        Hub(HubSetup(data=tmp_path, host="0.0.0.0", port=0))


def test_a_hub_that_starts_again_knows_what_it_took(start_hub: Callable[..., Hub]) -> None:
    device = Device()
    first = start_hub()
    post(first, device.pack(records(1, 5)))
    first.close()
    receipt = decode_receipt(post(start_hub(), device.pack(records(1, 6))).body)
    assert receipt.committed == [(1, 6)] and receipt.count == 6


def test_one_connection_carries_many_batches(hub: Hub) -> None:
    device = Device()
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    assert [ask(connection, "POST", "/v1/batches", device.pack([record(seq)])).status for seq in range(1, 20)] == [
        200
    ] * 19
    connection.close()


def test_options_are_strict() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"groop": 3}, HubOptions)
