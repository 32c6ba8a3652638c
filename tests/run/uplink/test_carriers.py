"""MQTT 5 and NATS as carriers, through real brokers, to a real hub: its receipt settles, never the broker's word."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.broker import Broker, free_port
from tests.run.uplink.conftest import World, eventually, items


@pytest.fixture
def nats_port(tmp_path: Path) -> Iterator[int]:
    """Return the port of a real NATS server."""
    executable = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
    if executable is None:
        pytest.skip("nats-server is not installed: make system-deps")
    port = free_port()
    command = [executable, "-a", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def test_records_travel_by_mqtt_and_stay_when_the_broker_is_gone(world: World) -> None:
    with Broker.start(world.folder / "broker") as broker:
        world.start_hub(transports=(f"mqtt://127.0.0.1:{broker.port}",))
        outbox = world.outbox()
        uplink = world.uplink(outbox, world.identity(), broker.port, carrier="mqtt")
        outbox.put(items(300))
        uplink.wake()
        assert uplink.wait_until_sent(20), uplink.status()
        broker.kill()
        outbox.put(items(20, priority="critical"))
        uplink.wake()
        assert eventually(lambda: uplink.status().lost >= 1), uplink.status()
        assert outbox.status().pending == 20
        uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, 301)]


@pytest.mark.soak  # the hub takes some seconds before it calls a broker again
def test_records_go_on_when_the_broker_is_back(world: World) -> None:
    with Broker.start(world.folder / "broker") as broker:
        world.start_hub(transports=(f"mqtt://127.0.0.1:{broker.port}",))
        outbox = world.outbox()
        uplink = world.uplink(outbox, world.identity(), broker.port, carrier="mqtt")
        for _ in range(4):
            outbox.put(items(50, priority="critical"))
            uplink.wake()
            broker.kill()
            broker.restart()
            assert uplink.wait_until_sent(60), uplink.status()
        uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, 201)]


def test_a_broker_without_a_hub_settles_nothing(world: World) -> None:
    with Broker.start(world.folder / "broker") as broker:
        outbox = world.outbox()
        outbox.put(items(3, priority="critical"))
        uplink = world.uplink(outbox, world.identity(), broker.port, carrier="mqtt")
        time.sleep(0.3)
        assert outbox.status().pending == 3 and uplink.status().acknowledged == 0
        uplink.close()


def test_records_travel_by_nats(world: World, nats_port: int) -> None:
    outbox = world.outbox()
    outbox.put(items(3, priority="critical"))
    uplink = world.uplink(outbox, world.identity(), nats_port, carrier="nats")
    assert eventually(lambda: "no hub listens" in uplink.status().why), uplink.status()
    world.start_hub(transports=(f"nats://127.0.0.1:{nats_port}",))
    assert uplink.wait_until_sent(20), uplink.status()
    uplink.close()
    assert len(world.kept()) == 3
