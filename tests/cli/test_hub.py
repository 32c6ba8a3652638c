"""``skerry hub`` as a process: it starts, ends when told, and loses nothing when it is killed at any moment."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import main
from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.testing.broker import free_port
from skerry.trust.authority import Authority
from skerry.trust.enrolment import enrol
from skerry.trust.identity import Identity
from skerry.wire.ranges import merge
from skerry.wire.receipt import decode_receipt
from skerry.wire.record import record_digest
from tests.fleet.hub.devices import EPOCH, Device, Reply, ask, record, records, request


class Process:
    """A hub in a process of its own, on one port for all its lives."""

    def __init__(self, data: Path, *arguments: str, port: int = 0) -> None:
        self.port = port or free_port()
        self._command = [
            sys.executable,
            "-m",
            "skerry",
            "hub",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--data",
            str(data),
        ]
        self._command += arguments
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"hub: "):
                return
        raise AssertionError("the hub did not start")

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def end(self, number: int = signal.SIGTERM) -> int:
        self._process.send_signal(number)
        self._process.communicate(timeout=30)
        return self._process.returncode


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str, port: int = 0) -> Process:
        started.append(Process(tmp_path / "hub", *arguments, port=port))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_it_takes_batches_and_ends_when_it_is_told(start_process: Callable[..., Process]) -> None:
    hub = start_process()
    assert request(hub.port, "POST", "/v1/batches", Device().pack(records(1, 3))).status == 200
    assert hub.end() == 0
    hub.start()
    assert request(hub.port, "GET", "/v1/audit").json()["accounts"][0]["count"] == 3
    assert hub.end(signal.SIGINT) == 0


class Sender(threading.Thread):
    """A device that sends a batch again until its receipt comes, however often the hub dies meanwhile."""

    def __init__(self, port: int, identity: Identity, total: int) -> None:
        super().__init__(daemon=True)
        self.device, self.port, self.total = Device(identity.device, signer=identity.signer), port, total
        self._context = identity.client_context()
        self.settled: list[tuple[int, int]] = []
        self.resent = 0

    def run(self) -> None:
        size = 10
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self._context)
        for first in range(1, self.total + 1, size):
            batch = self.device.pack(records(first, first + size - 1))
            while True:
                try:
                    reply = ask(connection, "POST", "/v1/batches", batch)
                except (OSError, http.client.HTTPException):
                    connection.close()
                    self.resent += 1
                    time.sleep(0.01)
                    continue
                assert reply.status == 200, reply
                self.settled = merge(self.settled, decode_receipt(reply.body).committed)
                break
        connection.close()


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_kill_9_at_random_moments_loses_nothing_and_doubles_nothing(
    kills: int, start_process: Callable[..., Process], tmp_path: Path
) -> None:
    """Over mTLS: three devices send while the hub is killed and started again."""
    port = free_port()
    authority = Authority.init(tmp_path / "authority", hub=f"https://127.0.0.1:{port}", now=time.time())
    hub = start_process("--authority", str(tmp_path / "authority"), port=port)
    identities = [
        enrol("", authority.issue_token(f"pump-{number}", now=time.time()), tmp_path / f"pump-{number}")
        for number in range(3)
    ]
    authority.close()
    senders = [Sender(port, identity, 500 * kills) for identity in identities]
    for sender in senders:
        sender.start()
    chance = random.Random(4)
    acknowledged: list[list[tuple[int, int]]] = [[], [], []]
    for _ in range(kills):
        time.sleep(chance.random() * 0.12)
        acknowledged = [list(sender.settled) for sender in senders]
        hub.kill()
        check_store(tmp_path, senders, acknowledged)
        hub.start()
    for sender in senders:
        sender.join(120)
        assert not sender.is_alive() and sender.settled == [(1, 500 * kills)]
    hub.kill()
    check_store(tmp_path, senders, [sender.settled for sender in senders])
    assert sum(sender.resent for sender in senders) > 0  # it was killed while they sent


def check_store(tmp_path: Path, senders: list[Sender], acknowledged: list[list[tuple[int, int]]]) -> None:
    store = SqliteStore(tmp_path / "hub" / "hub.db")
    try:
        check(store, senders, acknowledged)
    finally:
        store.close()


def check(store: SqliteStore, senders: list[Sender], acknowledged: list[list[tuple[int, int]]]) -> None:
    """What was acknowledged is there, nothing is there twice, and the audit is that of what is there."""
    stored: dict[str, list[int]] = {}
    after = 0
    while found := store.records(after=after, limit=10_000):
        after = found[-1].id
        for each in found:
            stored.setdefault(each.device, []).append(each.seq)
    for sender, told in zip(senders, acknowledged, strict=True):
        name = sender.device.name
        there = stored.get(name, [])
        assert len(set(there)) == len(there)
        assert set(there) >= {seq for first, last in told for seq in range(first, last + 1)}
        for account in store.accounts(name):
            assert (account.count, account.checksum) == store.recompute_audit(name, EPOCH)
            assert account.checksum == sum(record_digest(record(seq)) for seq in there) % 2**64


def test_a_blob_survives_kills_of_the_hub(start_process: Callable[..., Process]) -> None:
    hub, content = start_process(), os.urandom(3_000_000)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    wanted = msgspec.json.encode({"digest": digest, "size": len(content), "type": "video/mp4", "name": "v"})
    place = request(hub.port, "POST", "/v1/blobs", wanted).headers["location"]
    sent = offset = 0
    for cut in (700_000, 1_100_000, 900_000, len(content)):
        piece = content[offset : offset + cut]
        sent += len(piece)
        with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as link:
            head = f"PATCH {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpload-Offset: {offset}\r\n"
            link.sendall(f"{head}Content-Length: {len(content) - offset}\r\n\r\n".encode() + piece)
            if offset + len(piece) == len(content):
                assert b" 200 " in link.recv(1000)
                break
            wait_for_growth(hub, place, offset)
            hub.kill()
        hub.start()
        offset = offset_of(hub, place)
    assert request(hub.port, "GET", f"/v1/blobs/{digest}").body == content


def wait_for_growth(hub: Process, place: str, before: int) -> None:
    """Wait until some of a piece is stored; the question takes the upload over, so it is asked once, late."""
    time.sleep(0.2)
    assert offset_of(hub, place) >= before


def offset_of(hub: Process, place: str) -> int:
    reply: Reply = request(hub.port, "HEAD", place)
    return int(reply.headers["upload-offset"])


def test_a_disk_that_is_full_refuses_and_goes_on_when_there_is_room(
    start_process: Callable[..., Process], tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system cannot limit the files of another process")
    hub, device = start_process(), Device()
    resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    seq, reply = 1, None
    while reply is None or reply.status == 200:
        batch = [record(seq + place, {"text": os.urandom(500).hex()}) for place in range(20)]
        reply = request(hub.port, "POST", "/v1/batches", device.pack(batch))
        seq += 20
        assert seq < 10_000
    assert reply.status == 503 and "retry-after" in reply.headers
    resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    receipt = decode_receipt(request(hub.port, "POST", "/v1/batches", device.pack(batch)).body)
    assert receipt.count == seq - 1 and receipt.dead == []
    assert hub.end() == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "authority"),
        (["--listen", "127.0.0.1:0", "--egress", "ftp://x/"], "cannot go"),
        (["--listen", "127.0.0.1:0", "--database", "mysql://x"], "no database"),
        (["--limit", "max_blobs=1GB"], "max_blob"),
        (["--limit", "max_blob=1 parsec"], "unit"),
        (["--keep", "30 moons"], "keep"),
        (["--keep-size", "30d"], "keep_size"),
    ],
)
def test_what_cannot_be_is_told(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hub", "--data", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err
