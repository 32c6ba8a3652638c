"""A link that swallows everything, between two network namespaces: no reset, no error, nothing comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.trust.authority import Authority

ROOT = Path(__file__).parents[3]
HUB, DEVICE, PORT = "198.18.0.1", "198.18.0.2", 8470  # addresses for measurements (RFC 2544), in nobody's network
NOWHERE = "02:00:00:00:00:99"


def ip(*words: str, check: bool = True) -> str:
    found = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if check and found.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {found.stderr}")
    return found.stdout


class Ether:
    """Two namespaces and a cable; one that is cut still looks as if it was there."""

    def __init__(self) -> None:
        self.hub, self.device = f"skerry-{os.getpid()}-h", f"skerry-{os.getpid()}-d"
        for name in (self.hub, self.device):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.hub, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.device)
        for name, address in ((self.hub, HUB), (self.device, DEVICE)):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")

    def cut(self) -> None:
        """Have both ends send to an address of hardware that nobody has."""
        for name, other in ((self.hub, DEVICE), (self.device, HUB)):
            ip("-n", name, "neigh", "replace", other, "lladdr", NOWHERE, "nud", "permanent", "dev", "cable")

    def heal(self) -> None:
        for name, other in ((self.hub, DEVICE), (self.device, HUB)):
            ip("-n", name, "neigh", "del", other, "dev", "cable")

    def close(self) -> None:
        for name in (self.hub, self.device):
            ip("netns", "del", name, check=False)


@pytest.fixture
def ether() -> Iterator[Ether]:
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need `ip` and root")
    try:
        made = Ether()
    except RuntimeError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield made
    finally:
        made.close()


def child(namespace: str, **order: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "tests.run.uplink.far", json.dumps(order)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str], what: str) -> dict[str, Any]:
    """Return the next line that tells of something."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if what in found:
            return found
    raise AssertionError(f"it ended without a word of {what}")


def swallow(folder: Path, ether: Ether, cuts: int, cut_s: float, options: dict[str, Any]) -> dict[str, Any]:
    """Cut the link in the middle of batches, and return what was recorded, sent and noticed."""
    authority = Authority.init(folder / "authority", hub=f"https://{HUB}:{PORT}", now=time.time())
    token = authority.issue_token("pump-1", now=time.time())
    place = {"folder": str(folder), "host": HUB, "port": PORT}
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(child(ether.hub, be="hub", **place))
        stack.callback(hub.kill)
        device = stack.enter_context(child(ether.device, be="device", token=token, options=options, **place))
        stack.callback(device.kill)
        assert device.stdin is not None
        said(hub, "ready")
        device.stdin.write("begin\n")
        device.stdin.flush()
        said(device, "acknowledged")
        noticed = []
        for _ in range(cuts):
            time.sleep(0.2)
            begin = time.monotonic()
            ether.cut()
            while (told := said(device, "lost"))["at"] < begin:
                pass  # of the cut before
            noticed.append((told["at"] - begin, told["why"]))
            time.sleep(max(0.0, begin + cut_s - time.monotonic()))
            ether.heal()
            time.sleep(0.1)
        device.stdin.close()
        end = said(device, "recorded")
    return {**end, "noticed": noticed}


def kept(folder: Path) -> list[int]:
    store = SqliteStore(folder / "hub" / "hub.db")
    try:
        return [json.loads(record.fields)["n"] for record in store.records(limit=1_000_000)]
    finally:
        store.close()


QUICK = {
    "linger": 0.01, "first_pause": 0.05, "longest_pause": 0.2, "silence": 1.0, "timeout": 3.0, "connect_timeout": 1.0,
}  # fmt: skip


def test_a_link_that_swallows_everything_is_noticed_and_loses_nothing(tmp_path: Path, ether: Ether) -> None:
    found = swallow(tmp_path, ether, cuts=1, cut_s=1.5, options={**QUICK, "in_flight": 1})
    assert found["sent"] and "went silent" in found["noticed"][0][1], found
    assert sorted(kept(tmp_path)) == list(range(found["recorded"]))


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_links_that_swallow_everything_again_and_again_lose_nothing(tmp_path: Path, ether: Ether) -> None:
    found = swallow(tmp_path, ether, cuts=12, cut_s=4.0, options=QUICK)
    assert found["sent"], found
    assert sorted(kept(tmp_path)) == list(range(found["recorded"]))
