"""Blobs: up by offset over links and processes that fail, down by range, believed by their digest only."""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from pathlib import Path

import pytest

from bench.sync_rows.blob import upload
from bench.sync_rows.world import SyncWorld
from skerry.run.uplink.downloads import download_blob
from skerry.run.uplink.http import HttpLane, Place
from skerry.spec.errors import HubRefusedError, HubUnreachableError
from skerry.testing.shaped_link import ShapedLink
from tests.run.uplink.conftest import World, eventually


def a_file(folder: Path, size: int) -> Path:
    path = folder / "crash-dump.bin"
    path.write_bytes(os.urandom(size))
    return path


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def plain_lane(port: int) -> HttpLane:
    def none() -> ssl.SSLContext | None:
        return None

    return HttpLane(Place("http", "127.0.0.1", port), none, 3.0, 3.0)


def test_a_blob_arrives_over_a_link_that_is_cut(tmp_path: Path) -> None:
    world = SyncWorld.open(tmp_path)
    hub = world.hub()
    try:
        overhead, whole = upload(world, 1_500_000, 2, seed=1, rate_bits_per_s=40e6, round_trip_s=0.02)
    finally:
        hub.close()
    assert whole and overhead < 2  # how little it costs is measured by the benchmark, on a blob of 20 MB


def test_an_upload_goes_on_after_a_restart_of_the_device_and_of_the_hub(world: World) -> None:
    hub = world.start_hub()
    path = a_file(world.folder, 3_000_000)
    identity = world.identity()
    with ShapedLink(("127.0.0.1", world.port), rate_bits_per_s=16e6) as link:
        first = world.uplink(world.outbox(), identity, link.port)
        assert first.send_blob(path, kind="application/x-dump") == digest(path)
        assert eventually(lambda: link.sent > 1_000_000)
        first.close()
        link.cut()
        hub.close()
        world.start_hub()
        link.shape(rate_bits_per_s=0, round_trip_s=0)
        second = world.uplink(world.outbox(), identity, link.port)
        assert eventually(lambda: not second.blobs_waiting())
        assert link.sent < 4_500_000 and second.status().blobs == 1
        second.close()


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_what_was_sent_can_be_fetched_again(world: World, size: int) -> None:
    world.start_hub()
    path = a_file(world.folder, size)
    uplink = world.uplink(world.outbox(), world.identity())
    name = uplink.send_blob(path)
    assert eventually(lambda: not uplink.blobs_waiting())
    uplink.send_blob(path)  # a second time there is nothing to send
    assert eventually(lambda: not uplink.blobs_waiting())
    target = world.folder / "fetched.bin"
    assert uplink.fetch_blob(name, target, most_bytes=100_000).read_bytes() == path.read_bytes()
    uplink.close()


def test_a_download_goes_on_where_it_was_cut(world: World) -> None:
    world.start_hub()
    path = a_file(world.folder, 1_500_000)
    uplink = world.uplink(world.outbox(), world.identity())
    name = uplink.send_blob(path)
    assert eventually(lambda: not uplink.blobs_waiting())
    uplink.close()
    target = world.folder / "fetched.bin"
    part = target.with_name("fetched.bin.part")
    part.write_bytes(path.read_bytes()[:1_000_000])
    with ShapedLink(("127.0.0.1", world.port)) as link:
        lane = plain_lane(link.port)
        download_blob(lane, name, target, most_bytes=2_000_000, sleep=lambda _: None)
        assert link.received < 700_000
        target.unlink()
        part.write_bytes(b"another file's beginning")  # then it begins again
        download_blob(lane, name, target, most_bytes=2_000_000, sleep=lambda _: None)
        assert digest(target) == name and not part.exists()
        lane.close()


def test_what_a_hub_has_not_or_is_too_large_is_refused(world: World) -> None:
    world.start_hub()
    path = a_file(world.folder, 5000)
    uplink = world.uplink(world.outbox(), world.identity())
    name = uplink.send_blob(path)
    assert eventually(lambda: not uplink.blobs_waiting())
    uplink.close()
    lane = plain_lane(world.port)
    target = world.folder / "fetched.bin"
    for wanted, most in (("sha256:" + "0" * 64, 10_000), (name, 4999), ("../../etc/passwd", 10_000)):
        with pytest.raises(HubRefusedError):
            download_blob(lane, wanted, target, most_bytes=most)
    lane.close()
    with pytest.raises(HubUnreachableError):
        download_blob(plain_lane(1), name, target, most_bytes=10_000, tries=2, sleep=lambda _: None)
    assert not target.exists()


def test_a_file_that_was_changed_or_is_gone_is_given_up_and_told(world: World) -> None:
    uplink = world.uplink(world.outbox(), world.identity())  # no hub yet
    gone, changed = world.folder / "gone.bin", world.folder / "changed.bin"
    gone.write_bytes(b"x" * 1000)
    changed.write_bytes(b"y" * 1000)
    uplink.send_blob(gone)
    uplink.send_blob(changed)
    gone.unlink()
    changed.write_bytes(b"z" * 1000)
    time.sleep(0.05)
    world.start_hub()
    assert eventually(lambda: not uplink.blobs_waiting())
    assert (uplink.status().blobs, uplink.status().blobs_lost) == (0, 2)
    uplink.close()
