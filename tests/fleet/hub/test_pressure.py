"""What many at once may hold: slow uploads, readers that do not read, large exports, connections of one device."""

from __future__ import annotations

import http.client
import io
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.fleet.hub import connection as connection_module
from skerry.fleet.hub import export_routes
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.server import Hub
from skerry.fleet.hub.store import Filter, Store
from skerry.spec.units import Size
from skerry.wire.receipt import decode_receipt
from tests.fleet.hub.brokers import until
from tests.fleet.hub.devices import EPOCH, Device, ask, record, records, request
from tests.fleet.hub.test_store_contract import digest_sum, take
from tests.fleet.hub.test_tls_access import Fleet


def asking(port: int, path: str) -> socket.socket:
    """Ask for something and read nothing of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize("path", ["/v1/records/stream?after=0", "/v1/records.parquet"])
def test_who_reads_nothing_is_hung_up_on_and_makes_room(
    path: str, start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STALL_S", 0.5)
    monkeypatch.setattr(export_routes, "AT_ONCE", 1)
    hub, device = start_hub(options=HubOptions(streams=1)), Device()
    noise = random.Random(1)
    sent = [record(seq, {"text": noise.randbytes(500_000).hex()}) for seq in range(1, 9)]
    assert request(hub.port, "POST", "/v1/batches", device.pack(sent)).status == 200
    deaf = asking(hub.port, path)

    def status() -> int:
        other = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
        other.request("GET", path)
        answer = other.getresponse().status
        other.close()
        return answer

    until(lambda: status() == 503)  # the only place is taken
    until(lambda: status() == 200)  # and free again
    deaf.close()


def test_who_reads_nothing_does_not_hold_up_the_end(
    start_hub: Callable[..., Hub], caplog: pytest.LogCaptureFixture
) -> None:
    hub, device, noise = start_hub(), Device(), random.Random(1)
    sent = [record(seq, {"text": noise.randbytes(500_000).hex()}) for seq in range(1, 9)]
    assert request(hub.port, "POST", "/v1/batches", device.pack(sent)).status == 200
    deaf = asking(hub.port, "/v1/records/stream?after=0")
    assert deaf.recv(100).startswith(b"HTTP/1.1 200")
    time.sleep(0.3)  # until what is sent has filled the buffers in between
    hub.close()
    deaf.close()
    assert "exceeded" not in caplog.text and "Exception" not in caplog.text


def test_slow_uploads_of_one_device_keep_no_other_out(tmp_path: Path, start_hub: Callable[..., Hub]) -> None:
    options = HubOptions(max_body=Size(2**20), in_flight=Size(4 * 2**20))
    fleet = Fleet(tmp_path, lambda **settings: start_hub(**settings, options=options))
    slow, other = fleet.enrol("slow-1"), fleet.enrol("pump-1")
    begun = []
    for _ in range(6):
        connection = fleet.connect(slow)
        connection.putrequest("POST", "/v1/batches")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders(b"x")
        begun.append(connection)
    assert begun[-1].getresponse().status == 429
    batch = Device("pump-1", signer=other.signer).pack(records(1, 2))
    assert fleet.ask(other, "POST", "/v1/batches", batch).status == 200
    for connection in begun:
        connection.close()
    batch = Device("slow-1", signer=slow.signer).pack(records(1, 2))
    until(lambda: fleet.ask(slow, "POST", "/v1/batches", batch).status == 200)


def test_an_export_leaves_group_by_group(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(export_routes, "GROUP", 100)
    take(store, records(1, 950))
    pieces = list(export_routes.parquet(store, 0, Filter()))
    assert len(pieces) == 11 and max(map(len, pieces)) < 20_000
    file = parquet.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert file.metadata.num_row_groups == 10
    assert file.read(columns=["seq"])["seq"].to_pylist() == list(range(1, 951))
    empty = b"".join(export_routes.parquet(store, 0, Filter(device="nobody")))
    assert parquet.ParquetFile(io.BytesIO(empty)).metadata.num_rows == 0


def test_connections_of_one_device_that_send_the_same_store_it_once(start_hub: Callable[..., Hub]) -> None:
    hub, device = start_hub(), Device()
    batches = [device.pack(records(first, first + 29)) for first in range(1, 201, 10)]

    def send(chance: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
        for batch in chance.sample(batches, len(batches)):
            while ask(connection, "POST", "/v1/batches", batch).status != 200:
                time.sleep(0.01)
        connection.close()

    threads = [threading.Thread(target=send, args=(random.Random(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    listed = request(hub.port, "GET", "/v1/records?limit=10000").json()["records"]
    assert sorted(each["seq"] for each in listed) == list(range(1, 221))
    receipt = decode_receipt(request(hub.port, "POST", "/v1/batches", batches[0]).body)
    assert (receipt.count, receipt.checksum) == (220, digest_sum(records(1, 220)))
    (account,) = request(hub.port, "GET", f"/v1/audit?epoch={EPOCH}").json()["accounts"]
    assert (account["count"], account["checksum"]) == (220, f"{receipt.checksum:016x}")
