"""Hubs that say what is not so: a proxy that answers in the hub's place, and a hub that was set back to a backup."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.transport import RECEIPT
from skerry.testing.http_server import serving
from skerry.wire.batch import decode
from skerry.wire.receipt import Receipt, decode_receipt, encode_receipt
from tests.run.uplink.conftest import QUICK, World, eventually, items


class Tamperer:
    """Carries requests to a hub; swallows those of some turns and says that the hub has taken them.

    Parameters
    ----------
    port:
        The hub's.
    swallows:
        Which of the requests, from 0.
    """

    def __init__(self, port: int, swallows: frozenset[int]) -> None:
        self.hub, self.swallows, self.turn = port, swallows, 0
        self.last: Receipt | None = None
        self.lock = threading.Lock()

    def answer(self, body: bytes) -> bytes:
        with self.lock:
            turn, self.turn = self.turn, self.turn + 1
            if turn in self.swallows and self.last is not None:
                header = decode(body).header
                return encode_receipt(
                    msgspec.structs.replace(
                        self.last, epoch=header.epoch, committed=[(header.first, header.last)], dead=[], forked=[]
                    )
                )
            connection = http.client.HTTPConnection("127.0.0.1", self.hub, timeout=5)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/batches", body)
                said = connection.getresponse().read()
            self.last = decode_receipt(said)
            return said


@contextlib.contextmanager
def tampering(tamperer: Tamperer) -> Iterator[int]:
    """Run a proxy; return its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            body = tamperer.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Skerry-Hub", "1")
            self.send_header("Content-Type", RECEIPT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        yield port


def test_one_who_answers_in_the_hubs_place_is_found_out_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.run.uplink.conductor._REFUSED_PAUSE_S", 0.05)
    world.start_hub()
    outbox = world.outbox()
    with tampering(Tamperer(world.port, frozenset({1, 2, 4}))) as port:
        uplink = world.uplink(outbox, world.identity(), port)
        for round_ in range(3):
            outbox.put(items(20, priority="critical"))
            uplink.wake()
            assert uplink.wait_until_sent(10), (round_, uplink.status())
        assert uplink.status().distrusted == 3
        uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, 61)]


def test_a_hub_set_back_to_a_backup_is_distrusted_until_that_is_said_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.run.uplink.conductor._REFUSED_PAUSE_S", 0.05)
    world.start_hub()
    outbox, identity = world.outbox(), world.identity()

    def send(count: int, options: UplinkOptions = QUICK) -> None:
        uplink = world.uplink(outbox, identity, options=options)
        outbox.put(items(count, priority="critical"))
        uplink.wake()
        assert uplink.wait_until_sent(10), uplink.status()
        uplink.close()

    send(10)
    assert world.hub is not None
    world.hub.close()
    shutil.copytree(world.folder / "hub", world.folder / "backup")
    world.start_hub()
    send(10)
    world.hub.close()
    shutil.rmtree(world.folder / "hub")
    shutil.copytree(world.folder / "backup", world.folder / "hub")
    world.start_hub()

    uplink = world.uplink(outbox, identity)
    outbox.put(items(5, priority="critical"))
    uplink.wake()
    assert eventually(lambda: uplink.status().distrusted >= 2)
    assert "acknowledged 25 records and holds 15" in uplink.status().why and "mismatch: tell" in uplink.status().why
    uplink.close()
    assert outbox.status().pending == 5

    first = outbox.epoch
    send(2, msgspec.structs.replace(QUICK, mismatch="tell"))
    send(3)
    assert outbox.epoch != first and outbox.status().forks == 1
    kept = world.kept()
    assert len(kept) == len(set(kept)) == 10 + 5 + 2 + 3
