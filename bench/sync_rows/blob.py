"""A large blob over a link that is cut five times: bytes on the wire over those of the blob, and is it whole."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.report import Report
from bench.sync_rows.world import SyncWorld, sync_world
from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.uplink import Uplink
from skerry.spec.units import Duration
from skerry.testing.shaped_link import ShapedLink

SIZE, QUICK_SIZE = 20_000_000, 20_000_000
CUTS = 5
MUST = "<= 1.05"
RATE_BITS_PER_S, ROUND_TRIP_S = 20e6, 0.1
_PATIENCE_S = 300.0
_REPEATS, _QUICK_REPEATS = 3, 1


def add_rows(report: Report, *, quick: bool = False) -> None:
    """Measure the upload of 20 MB with five cuts at random places."""
    overheads, whole = [], 0
    repeats = _QUICK_REPEATS if quick else _REPEATS
    for seed in range(repeats):
        with sync_world() as world:
            hub = world.hub()
            try:
                overhead, is_whole = upload(world, SIZE, CUTS, seed)
            finally:
                hub.close()
        overheads.append(overhead)
        whole += is_whole
    report.add(
        f"20 MB over a link that is cut {CUTS} times, worst of {repeats}: bytes on the wire over those of the blob",
        max(overheads),
        "x",
        must=MUST,
    )
    report.add(
        "of these blobs, the share whose digest at the hub is that of the file", whole / repeats, "", must=">= 1"
    )


def upload(
    world: SyncWorld,
    size: int,
    cuts: int,
    seed: int,
    *,
    rate_bits_per_s: float = RATE_BITS_PER_S,
    round_trip_s: float = ROUND_TRIP_S,
) -> tuple[float, bool]:
    """Upload a file of random bytes; return wire bytes over its size, and whether the hub has it whole."""
    path = world.folder / "blob.bin"
    path.write_bytes(os.urandom(size))
    chance = random.Random(seed)
    places = sorted(chance.randrange(size // 20, size * 19 // 20) for _ in range(cuts))
    outbox = Outbox(world.folder / "outbox", device="cam-1")
    identity = world.enrol("cam-1")
    options = UplinkOptions(first_pause=Duration(0.2), longest_pause=Duration(2.0))
    hub = ("127.0.0.1", world.port)
    with ShapedLink(hub, rate_bits_per_s=rate_bits_per_s, round_trip_s=round_trip_s) as link:
        uplink = world.uplink(outbox, identity, link.port, options)
        digest = uplink.send_blob(path)
        for place in places:
            link.cut_after(max(1, place - link.sent))
            _wait(partial(_was_cut, link, uplink, link.cuts + 1))
        _wait(lambda: not uplink.blobs_waiting())
        assert link.cuts >= cuts, "the upload was over before it was cut often enough"
        carried = link.sent + link.received
        uplink.close()
    outbox.close()
    return carried / size, _is_whole(world, digest, size)


def _is_whole(world: SyncWorld, digest: str, size: int) -> bool:
    """Look into the hub's own folder: the file that it keeps under this digest has to be that file."""
    name = digest.removeprefix("sha256:")
    found = [path for path in (world.folder / "hub" / "blobs").rglob(f"*{name}*") if path.stat().st_size == size]
    return any(_digest(path) == name for path in found)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _was_cut(link: ShapedLink, uplink: Uplink, times: int) -> bool:
    return link.cuts >= times or not uplink.blobs_waiting()


def _wait(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > limit:
            raise TimeoutError("the blob did not arrive")
        time.sleep(0.01)
