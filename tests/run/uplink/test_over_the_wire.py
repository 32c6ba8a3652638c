"""The uplink against a real hub, over real TLS and a link that fails in every way there is."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from skerry.run.outbox.item import Item
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.passport import Passport
from skerry.spec.units import Duration
from skerry.testing.http_server import http_server
from skerry.testing.shaped_link import ShapedLink
from skerry.trust.identity import load_identity
from tests.run.uplink.conftest import QUICK, ClockAhead, World, eventually, items


def test_records_arrive_over_tls_and_are_forgotten_here(world: World) -> None:
    world.start_hub(tls=True)
    outbox = world.outbox()
    outbox.put(items(500))
    uplink = world.uplink(outbox, world.identity())
    assert uplink.wait_until_sent(20)
    outbox.put(items(30))
    uplink.wake()
    assert uplink.wait_until_sent(20)
    status = uplink.status()
    assert status.acknowledged == 530 and status.distrusted == status.impostors == 0, status
    uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, 531)]


def test_records_arrive_at_a_hub_on_loopback_without_any_ceremony(world: World) -> None:
    world.start_hub()
    outbox = world.outbox()
    uplink = world.uplink(outbox, world.identity())
    outbox.put(items(10, priority="critical"))
    uplink.wake()
    assert uplink.wait_until_sent(20)
    assert len(world.kept()) == 10


def test_cuts_resets_and_a_hub_that_restarts_lose_and_double_nothing(world: World) -> None:
    hub = world.start_hub(tls=True)
    identity = world.identity()
    outbox = world.outbox()
    with ShapedLink(("127.0.0.1", world.port)) as link:
        uplink = world.uplink(outbox, identity, link.port)
        for round_ in range(12):
            outbox.put(items(40))
            uplink.wake()
            if round_ % 3 == 0:
                link.cut()
            elif round_ % 3 == 1:
                link.reset()
            if round_ == 6:
                link.mode("refused")
                link.cut()
                hub.close()
                world.start_hub(tls=True)
                link.mode("open")
        assert uplink.wait_until_sent(30), uplink.status()
        uplink.close()
    assert sorted(world.kept()) == [(outbox.epoch, seq) for seq in range(1, 481)]


def test_a_connection_that_died_silently_is_found_and_made_anew(world: World) -> None:
    world.start_hub()
    options = UplinkOptions(
        linger=Duration(0.01), first_pause=Duration(0.05), longest_pause=Duration(0.1),
        silence=Duration(1.0), timeout=Duration(0.7), in_flight=1,
    )  # fmt: skip
    outbox = world.outbox()
    with ShapedLink(("127.0.0.1", world.port)) as link:
        uplink = world.uplink(outbox, world.identity(), link.port, options)
        outbox.put(items(3, priority="critical"))
        uplink.wake()
        assert uplink.wait_until_sent(10)
        link.mode("silent")
        outbox.put(items(3, priority="critical"))
        uplink.wake()
        assert eventually(lambda: uplink.status().lost >= 1)
        link.mode("open")
        assert uplink.wait_until_sent(15), uplink.status()
    assert len(world.kept()) == 6


def test_a_name_that_cannot_be_resolved_is_told_and_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start_hub()
    outbox = world.outbox()
    outbox.put(items(2, priority="critical"))
    real = socket.getaddrinfo
    broken = threading.Event()
    broken.set()

    def resolve(host: str, *rest: object, **more: object) -> object:
        if broken.is_set() and host == "127.0.0.1":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    uplink = world.uplink(outbox, world.identity())
    assert eventually(lambda: "cannot be resolved" in uplink.status().why)
    broken.clear()
    assert uplink.wait_until_sent(10)


def test_a_captive_portal_and_its_redirect_settle_nothing(world: World) -> None:
    outbox = world.outbox()
    outbox.put(items(2, priority="critical"))
    with http_server() as portal:
        portal.reply, portal.reply_type = b"<html>Please log in</html>", "text/html"
        uplink = world.uplink(outbox, world.identity(), portal.port)
        assert eventually(lambda: uplink.status().impostors >= 1)
        portal.status = 302
        before = uplink.status().impostors
        assert eventually(lambda: uplink.status().impostors > before)
        assert "captive portal" in uplink.status().why
        assert {request.path for request in portal.seen} == {"/v1/batches"}
        uplink.close()
    assert outbox.status().pending == 2


@contextlib.contextmanager
def a_talker(said: bytes) -> Iterator[int]:
    """Run a server that says something to everybody and hangs up; return its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.settimeout(1)
                    with contextlib.suppress(OSError):
                        client.recv(65536)
                        client.sendall(said)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nSkerry-Hub: 1\r\nContent-Type: application/vnd.skerry.receipt\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200", HEAD + b"Content-Length: 100\r\n\r\nshort",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", HEAD + b"Content-Length: 3\r\n\r\n\x99\x01\x02",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * 3_000_000,
    ],
    ids=["nothing", "ssh", "half a line", "cut body", "bad chunk", "no receipt", "many headers", "endless"],
)  # fmt: skip
def test_whatever_answers_in_the_hubs_place_settles_nothing(world: World, said: bytes) -> None:
    outbox = world.outbox()
    outbox.put(items(2, priority="critical"))
    with a_talker(said) as port:
        uplink = world.uplink(outbox, world.identity(), port)
        assert eventually(lambda: uplink.status().lost + uplink.status().impostors >= 2)
        uplink.close()
    assert outbox.status().pending == 2


def test_a_server_of_another_authority_is_told_apart(world: World) -> None:
    world.start_hub(tls=True)
    identity = world.identity()
    other = World(world.folder / "other", world.stack)
    other.folder.mkdir()
    other.start_hub(tls=True)
    outbox = world.outbox()
    outbox.put(items(1, priority="critical"))
    uplink = world.uplink(outbox, identity, other.port)
    assert eventually(lambda: uplink.status().lost >= 1)
    assert "not our hub" in uplink.status().why
    assert outbox.status().pending == 1


def test_a_revoked_device_is_refused_and_keeps_its_records(world: World) -> None:
    world.start_hub(tls=True)
    identity = world.identity()
    assert world.authority is not None
    outbox = world.outbox()
    uplink = world.uplink(outbox, identity, options=QUICK)
    outbox.put(items(1, priority="critical"))
    uplink.wake()
    assert uplink.wait_until_sent(10)
    world.authority.revoke(device="pump-1", now=time.time())
    outbox.put(items(3, priority="critical"))
    uplink.wake()
    assert eventually(lambda: uplink.status().state == "refused"), uplink.status()
    assert outbox.status().pending == 3


def test_a_certificate_is_renewed_while_the_uplink_runs(world: World) -> None:
    world.start_hub(tls=True)
    identity, clock = world.identity(), ClockAhead()
    outbox = world.outbox()
    passport = Passport(identity, clock)
    assert not passport.renew()
    clock.hours = 20
    before = passport.signer().key_id
    uplink = world.uplink(outbox, identity, clock=clock)
    for round_ in range(4):
        outbox.put(items(5, priority="critical"))
        uplink.wake()
        assert uplink.wait_until_sent(10), uplink.status()
        if round_ == 1:
            assert eventually(lambda: uplink.status().renewals == 1)
    assert load_identity(identity.folder).signer.key_id != before
    assert uplink.status().refused == 0
    uplink.close()
    assert len(world.kept()) == 20


def test_a_certificate_that_the_hub_calls_over_is_renewed_by_a_clock_that_is_behind(world: World) -> None:
    the_hubs, ours = ClockAhead(), ClockAhead()
    the_hubs.hours, ours.hours = -23.5, -20.0  # so the certificate ends in half an hour, and we do not think it is due
    world.start_hub(tls=True, clock=lambda: the_hubs.wall_ms() / 1000)
    identity = world.identity(now=the_hubs.wall_ms() / 1000)
    the_hubs.hours = 0.75
    outbox = world.outbox()
    outbox.put(items(2, priority="critical"))
    uplink = world.uplink(outbox, identity, clock=ours)
    assert eventually(lambda: uplink.status().renewals == 1), uplink.status()
    assert uplink.wait_until_sent(20), uplink.status()
    assert uplink.status().refused >= 1


def test_a_restored_image_of_the_disk_loses_nothing_and_forks_once(world: World) -> None:
    world.start_hub()
    identity = world.identity()
    first = world.outbox()
    uplink = world.uplink(first, identity)
    first.put(items(3, priority="critical"))
    uplink.wake()
    assert uplink.wait_until_sent(10)
    epoch = first.epoch
    uplink.close()
    first.close()
    folder = world.folder / "outbox-pump-1"
    shutil.copytree(folder, world.folder / "image")
    again = world.outbox()
    uplink = world.uplink(again, identity)
    again.put([Item(stream="events", fields={"run": 1, "n": n}, priority="critical") for n in range(4)])
    uplink.wake()
    assert uplink.wait_until_sent(10)
    uplink.close()
    again.close()
    shutil.rmtree(folder)
    (world.folder / "image").rename(folder)  # the card is put back as it was before the second run
    restored = world.outbox()
    assert restored.epoch == epoch
    uplink = world.uplink(restored, identity)
    restored.put([Item(stream="events", fields={"run": 2, "n": n}, priority="critical") for n in range(6)])
    uplink.wake()
    assert uplink.wait_until_sent(20), uplink.status()
    assert uplink.status().forks == 1 and restored.epoch != epoch
    uplink.close()
    assert len(world.kept()) == 3 + 4 + 6


def test_a_wall_clock_that_jumps_by_a_year_changes_nothing(world: World) -> None:
    world.start_hub()
    outbox, clock = world.outbox(), ClockAhead()
    uplink = world.uplink(outbox, world.identity(), clock=clock)
    for hours in (0.0, 8760.0, -8760.0, 0.0):
        clock.hours = hours
        outbox.put(items(5, priority="critical"))
        uplink.wake()
        assert uplink.wait_until_sent(10), uplink.status()
    uplink.close()
    assert len(world.kept()) == 20
