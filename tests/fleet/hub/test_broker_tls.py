"""Brokers over TLS: records and batches go there only when the broker proves who it is."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.egress.address import read_address
from skerry.fleet.hub.egress.nats import NatsEgress, NatsEgressOptions
from skerry.fleet.hub.egress.outlet import OutletOptions
from skerry.fleet.hub.mqtt_client import connected_client
from skerry.fleet.hub.server import Hub
from skerry.spec.errors import HubUnreachableError
from skerry.testing.broker import Broker
from skerry.trust.authority import Authority
from skerry.trust.certificate import signing_request
from skerry.trust.keys import KeySigner, new_key
from skerry.wire.receipt import decode_receipt
from tests.fleet.hub.brokers import NatsServer, until
from tests.fleet.hub.devices import EPOCH, Device, records


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transports.carrier", "egress.outlet"):
        monkeypatch.setattr(f"skerry.fleet.hub.{module}.pause_s", lambda *_: 0.05)


class Certified:
    """An authority whose certificate the broker has, and a device that it certified but that never connected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "authority"
        self.authority = Authority.init(self.folder, hub="https://127.0.0.1:8443", now=time.time())
        self.pair = self.authority.server_certificate(("127.0.0.1",), time.time())
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.certificates_pem())
        stranger = Authority.init(folder / "stranger", hub="https://127.0.0.1:8443", now=time.time())
        self.other_ca = folder / "other.pem"
        self.other_ca.write_bytes(stranger.certificates_pem())

    def device(self, name: str) -> Device:
        key = new_key()
        token = self.authority.issue_token(name, now=time.time())
        self.authority.enrol(token, signing_request(key), time.time())
        return Device(name, signer=KeySigner(key))


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    return Certified(tmp_path)


def test_mqtt_with_certificates(tmp_path: Path, certified: Certified, start_hub: Callable[..., Hub]) -> None:
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion

    lines = (f"certfile {certified.pair}", f"keyfile {certified.pair}", "tls_version tlsv1.3")
    with Broker.start(tmp_path / "broker", lines=lines) as broker:
        uri = f"mqtts://127.0.0.1:{broker.port}"
        hub = start_hub(
            authority=certified.folder,
            transports=(f"{uri}?ca={certified.ca}",), egress=(f"{uri}/out/{{device}}?ca={certified.ca}",),
        )  # fmt: skip
        device, heard = certified.device("relay-1"), queue.Queue[Any]()
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        client.tls_set(ca_certs=str(certified.ca))
        client.on_connect = lambda it, *_: it.subscribe([("skerry/relay-1/receipt", 1), ("out/#", 1)])
        client.on_message = lambda _client, _data, message: heard.put(message)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        told: dict[str, list[bytes]] = {}

        def all_told() -> bool:
            client.publish("skerry/relay-1/batch", device.pack(records(1, 3)), qos=1)
            try:
                while True:
                    message = heard.get(timeout=0.3)
                    told.setdefault(message.topic, []).append(message.payload)
            except queue.Empty:
                return len(told) == 2

        until(all_told)
        client.disconnect()
        client.loop_stop()
        assert decode_receipt(told["skerry/relay-1/receipt"][0]).committed == [(1, 3)]
        assert f'"relay-1/{EPOCH}/1"'.encode() in told["out/relay-1"][0]

        hub.close()
        for ca in (str(certified.other_ca), ""):  # another authority, and those of the system
            with pytest.raises(HubUnreachableError, match="certificate"):
                connected_client(read_address(uri, OutletOptions)[0], ca)


def test_nats_with_certificates(tmp_path: Path, certified: Certified, start_hub: Callable[..., Hub]) -> None:
    import nats

    server = NatsServer(tmp_path / "nats", "--tls", "--tlscert", str(certified.pair), "--tlskey", str(certified.pair))
    options = f"tls=1&ca={certified.ca}"
    start_hub(
        authority=certified.folder,
        transports=(f"{server.url}?{options}",), egress=(f"{server.url}/out?{options}&jetstream=OUT",),
    )  # fmt: skip
    device = certified.device("relay-1")

    async def talk() -> tuple[Any, bytes]:
        context = ssl.create_default_context(cafile=str(certified.ca))
        connection = await nats.connect(server.url, tls=context)
        answer = None
        while answer is None:
            try:
                answer = await connection.request("skerry.relay-1.batch", device.pack(records(1, 3)), timeout=10)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.05)
        stream = connection.jetstream()
        while True:
            try:
                first = await stream.get_msg("OUT", 1)
                break
            except nats.js.errors.NotFoundError:
                await asyncio.sleep(0.05)
        await connection.close()
        return decode_receipt(answer.data), first.data

    try:
        receipt, first = asyncio.run(asyncio.wait_for(talk(), 60))
        assert receipt.committed == [(1, 3)] and f'"relay-1/{EPOCH}/1"'.encode() in first
        stranger = NatsEgress(*read_address(f"{server.url}/out?tls=1&ca={certified.other_ca}", NatsEgressOptions))
        with pytest.raises(HubUnreachableError, match="certificate"):
            stranger.open()
        stranger.close()
    finally:
        server.kill()


def test_nothing_is_said_in_plain_text_to_a_nats_server_that_offers_no_tls() -> None:
    """Who poses as the server could just not offer it; the client would go on in plain text, password and all."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pose() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576}\r\n')
                connection.settimeout(20)
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=pose, daemon=True)
        thread.start()
        uri = f"nats://ann:secret@127.0.0.1:{listener.getsockname()[1]}/out?tls=1"
        egress = NatsEgress(*read_address(uri, NatsEgressOptions))
        with pytest.raises(HubUnreachableError, match="offers no TLS"):
            egress.open()
        egress.close()
        thread.join(20)
    assert heard == [b""]
