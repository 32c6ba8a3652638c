"""What strangers and false pages try with a hub that speaks TLS, and what must not keep devices out."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.fleet.hub import connection as connection_module
from skerry.fleet.hub.access import NOBODY, Access
from skerry.fleet.hub.connection import KEY, Connection
from skerry.fleet.hub.server import Hub
from skerry.trust.enrolment import renew
from skerry.trust.tls import believing
from tests.fleet.hub.devices import Device, records
from tests.fleet.hub.test_tls_access import Fleet


@pytest.fixture
def fleet(tmp_path: Path, start_hub: Callable[..., Hub]) -> Fleet:
    return Fleet(tmp_path, start_hub)


def stranger(fleet: Fleet) -> ssl.SSLSocket:
    """Open a connection without a certificate."""
    context = believing(fleet.authority.certificates_pem().decode())
    raw = socket.create_connection(("127.0.0.1", fleet.hub.port), timeout=20)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_requests_that_never_end_keep_nobody_from_renewing(fleet: Fleet) -> None:
    identity = fleet.enrol("pump-1")
    held = [stranger(fleet) for _ in range(40)]
    for each in held:
        each.sendall(b"POST /v1/renew HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nx")
    time.sleep(0.5)  # they have all been read
    assert renew(identity).certificate != identity.certificate
    for each in held:
        each.close()


def test_strangers_leave_room_for_devices(tmp_path: Path, start_hub: Callable[..., Hub]) -> None:
    from skerry.fleet.hub.options import HubOptions

    fleet = Fleet(tmp_path, lambda **settings: start_hub(**settings, options=HubOptions(connections=64)))
    identity = fleet.enrol("pump-1")
    time.sleep(0.2)  # the connections of the enrolment end
    held = [stranger(fleet) for _ in range(16)]
    late = stranger(fleet)
    assert late.recv(1) == b""  # hung up on
    batch = Device("pump-1", signer=identity.signer).pack(records(1, 2))
    assert fleet.ask(identity, "POST", "/v1/batches", batch).status == 200
    for each in (*held, late):
        each.close()
    renew(identity)


@pytest.mark.parametrize("limit", ["SILENCE_S", "VISIT_S"])
def test_a_stranger_who_trickles_is_hung_up_on(
    limit: str, tmp_path: Path, start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one byte of a second request, nothing else would ever end the connection."""
    fleet = Fleet(tmp_path, start_hub)
    monkeypatch.setattr(connection_module, limit, 0.5)
    with stranger(fleet) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"G")
        while connection.recv(65536):
            pass


def test_a_page_of_another_site_cannot_use_an_operators_browser(fleet: Fleet) -> None:
    ann = fleet.enrol("ann", role="operator")
    own = f"https://127.0.0.1:{fleet.hub.port}"
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{fleet.hub.port + 1}", own + ".evil.example"):
        assert fleet.ask(ann, "POST", "/v1/dead/drop", b"{}", Origin=origin).status == 403
    assert fleet.ask(ann, "POST", "/v1/dead/drop", b"{}", Origin=own).status == 200
    assert fleet.ask(ann, "POST", "/v1/dead/drop", b"{}").status == 200


def test_brackets_in_brackets_are_no_request(fleet: Fleet) -> None:
    deep = b'{"x":' + b"[" * 3900
    assert fleet.ask(fleet.enrol("pump-1"), "POST", "/v1/blobs", deep).status == 400
    assert fleet.ask(fleet.enrol("ann", role="operator"), "POST", "/v1/dead/drop", deep).status == 400


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"])
def test_who_comes_through_a_proxy_on_this_machine_is_not_on_this_machine(name: bytes) -> None:
    access = Access(None, time.time)
    scope = {KEY: Connection(tls=False, certificate=None, address="127.0.0.1"), "headers": [(name, b"198.51.100.7")]}
    assert access.caller(scope) == NOBODY
    assert access.caller({**scope, "headers": []}).role == "local"
