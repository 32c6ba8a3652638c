"""What goes wrong in the middle of a run, is told in plain words, and mends itself when it is healed."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.uplink import Uplink
from skerry.spec.errors import HubError
from skerry.spec.units import Duration
from skerry.testing.http_server import serving
from skerry.trust.authority import Authority
from skerry.trust.authority_options import AuthorityOptions
from skerry.trust.enrolment import enrol
from tests.run.uplink.conftest import ClockAhead, World, eventually, items


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that is looked at every some seconds looked at all the time."""
    monkeypatch.setattr("skerry.run.uplink.keeper._LOOK_S", 0.1)
    monkeypatch.setattr("skerry.run.uplink.keeper._RENEW_S", 0.2)
    monkeypatch.setattr("skerry.run.uplink.keeper._FORCE_S", 0.2)
    monkeypatch.setattr("skerry.run.uplink.conductor._REFUSED_PAUSE_S", 0.05)


def send(outbox: Outbox, uplink: Uplink, count: int = 3) -> None:
    outbox.put(items(count, priority="critical"))
    uplink.wake()
    assert uplink.wait_until_sent(15), uplink.status()


@pytest.mark.usefixtures("hasty")
def test_certificates_of_seconds_are_renewed_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    short = AuthorityOptions(certificate_life=Duration(1.2), backdate=Duration(0.2), an_hour=1000)
    monkeypatch.setattr("skerry.trust.authority.AuthorityOptions", lambda: short)
    world.start_hub(tls=True)
    outbox = world.outbox()
    uplink = world.uplink(outbox, world.identity())
    sent = 0
    while uplink.status().renewals < 2:
        send(outbox, uplink)
        sent += 3
        time.sleep(0.1)
    uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, sent + 1)]


@pytest.mark.usefixtures("hasty")
def test_a_certificate_that_ends_while_it_cannot_be_renewed_is_told_and_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_hubs = ClockAhead()
    the_hubs.hours = -23.5  # so what is made now ends in half an hour
    world.start_hub(tls=True, clock=lambda: the_hubs.wall_ms() / 1000)
    outbox = world.outbox()
    renews, broken = Authority.renew, threading.Event()

    def renew(self: Authority, *words: Any, **more: Any) -> bytes:
        if broken.is_set():
            raise HubError("the ledger cannot be written")
        return renews(self, *words, **more)

    monkeypatch.setattr(Authority, "renew", renew)
    broken.set()
    uplink = world.uplink(outbox, world.identity(now=the_hubs.wall_ms() / 1000))
    send(outbox, uplink)
    the_hubs.hours = 0.75
    outbox.put(items(4, priority="critical"))
    uplink.wake()
    assert eventually(lambda: uplink.status().state == "refused"), uplink.status()
    assert "expired" in uplink.status().why or "over" in uplink.status().why, uplink.status().why
    broken.clear()
    assert uplink.wait_until_sent(15), uplink.status()
    uplink.close()
    assert len(world.kept()) == 7


@pytest.mark.usefixtures("hasty")
def test_a_device_that_is_revoked_in_the_middle_goes_on_when_it_is_enrolled_again(world: World) -> None:
    world.start_hub(tls=True)
    identity, outbox = world.identity(), world.outbox()
    assert world.authority is not None
    uplink = world.uplink(outbox, identity)
    send(outbox, uplink)
    world.authority.revoke(device="pump-1", now=time.time())
    outbox.put(items(4, priority="critical"))
    uplink.wake()
    assert eventually(lambda: uplink.status().state == "refused"), uplink.status()
    assert "revoked" in uplink.status().why and "skerry enroll --again" in uplink.status().why
    token = world.authority.issue_token("pump-1", now=time.time())
    enrol("", token, identity.folder, again=True)
    assert uplink.wait_until_sent(15), uplink.status()
    uplink.close()
    assert len(world.kept()) == 7


@contextlib.contextmanager
def a_storm(port: int, answers: list[tuple[int, str | None]]) -> Iterator[int]:
    """Run a hub's front that first gives these answers (status, ``Retry-After``), then lets everything through."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, wait, said = *(answers.pop(0) if answers else (200, None)), b"later"
            if status == 200:
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                    connection.request("POST", "/v1/batches", body)
                    said = connection.getresponse().read()
            self.send_response(status)
            self.send_header("Skerry-Hub", "1")
            self.send_header("Content-Length", str(len(said)))
            if wait is not None:
                self.send_header("Retry-After", wait)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as number:
        yield number


def test_a_storm_of_refusals_loses_and_doubles_nothing(world: World) -> None:
    world.start_hub()
    storm: list[tuple[int, str | None]] = [
        (429, None), (503, "0"), (503, None), (429, "soon"), (503, "-1"), (500, None), (502, "0"), (504, None),
        (429, "Fri, 31 Dec 1999 23:59:59 GMT"), (503, "0"), (425, None), (408, None),
    ]  # fmt: skip
    count = len(storm)
    outbox = world.outbox()
    with a_storm(world.port, storm) as port:
        uplink = world.uplink(outbox, world.identity(), port)
        send(outbox, uplink, 200)
        status = uplink.status()
        assert status.put_off + status.refused == count and status.dead == 0, status
        uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, 201)]
