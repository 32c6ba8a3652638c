"""Who may send over TLS, and as whom: only what the certificate of the connection and the signature prove counts."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.fleet.hub.server import Hub
from skerry.testing.broker import free_port
from skerry.trust.authority import Authority
from skerry.trust.enrolment import enrol, renew
from skerry.trust.identity import Identity
from skerry.trust.tls import believing
from skerry.wire.receipt import decode_receipt
from tests.fleet.hub.devices import Device, Reply, ask, records


class Fleet:
    """A hub with an authority; its clock can be set forward."""

    def __init__(self, folder: Path, start_hub: Callable[..., Hub]) -> None:
        self.folder, self.ahead_s = folder, 0.0
        port = free_port()
        self.authority = Authority.init(folder / "authority", hub=f"https://127.0.0.1:{port}", now=time.time())
        self.hub = start_hub(port=port, authority=folder / "authority", clock=self.clock)

    def clock(self) -> float:
        return time.time() + self.ahead_s

    def enrol(self, name: str, role: str = "device") -> Identity:
        token = self.authority.issue_token(name, now=time.time(), role=role)  # type: ignore[arg-type]
        return enrol("", token, self.folder / name)

    def connect(self, identity: Identity | None) -> http.client.HTTPSConnection:
        context = (
            believing(self.authority.certificates_pem().decode()) if identity is None else identity.client_context()
        )
        return http.client.HTTPSConnection("127.0.0.1", self.hub.port, timeout=20, context=context)

    def ask(self, identity: Identity | None, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        connection = self.connect(identity)
        try:
            return ask(connection, method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        finally:
            connection.close()


@pytest.fixture
def fleet(tmp_path: Path, start_hub: Callable[..., Hub]) -> Fleet:
    return Fleet(tmp_path, start_hub)


def test_an_enrolled_device_sends_and_nobody_else_does(fleet: Fleet) -> None:
    identity = fleet.enrol("pump-1")
    device = Device("pump-1", signer=identity.signer)
    reply = fleet.ask(identity, "POST", "/v1/batches", device.pack(records(1, 3)))
    assert reply.status == 200 and reply.headers["skerry-hub"] == "1"
    assert decode_receipt(reply.body).committed == [(1, 3)]

    assert fleet.ask(identity, "POST", "/v1/batches", device.pack(records(4, 5), signed=False)).status == 403
    assert fleet.ask(identity, "POST", "/v1/batches", Device("pump-1").pack(records(4, 5))).status == 403
    assert fleet.ask(None, "POST", "/v1/batches", device.pack(records(4, 5))).status == 401
    for path in ("/v1/records", "/v1/audit", "/v1/dead", "/metrics", "/v1/records/stream"):
        assert fleet.ask(None, "GET", path).status == 401
        assert fleet.ask(identity, "GET", path).status == (200 if path == "/v1/audit" else 403)
    assert fleet.ask(None, "GET", "/healthz").status == 200


def test_a_header_says_nothing_about_who_somebody_is(fleet: Fleet) -> None:
    identity = fleet.enrol("pump-1")
    pem = identity.certificate_file.read_text().replace("\n", "%0A")
    forged = {
        "X_Client_Cert": pem, "X_SSL_Client_Cert": pem, "X_Forwarded_Client_Cert": f'Cert="{pem}"',
        "X_Forwarded_For": "127.0.0.1", "Forwarded": "for=127.0.0.1;proto=http", "X_Forwarded_Proto": "http",
        "skerry.connection": "local", "X_SSL_Client_Verify": "SUCCESS",
    }  # fmt: skip
    batch = Device("pump-1", signer=identity.signer).pack(records(1, 2))
    assert fleet.ask(None, "POST", "/v1/batches", batch, **forged).status == 401
    assert fleet.ask(None, "GET", "/v1/records", **forged).status == 401


def test_a_device_cannot_be_another_but_may_carry_what_another_signed(fleet: Fleet) -> None:
    one, two = fleet.enrol("pump-1"), fleet.enrol("pump-2")
    posing = Device("pump-2", signer=one.signer).pack(records(1, 2))
    assert fleet.ask(one, "POST", "/v1/batches", posing).status == 403
    carried = Device("pump-2", signer=two.signer).pack(records(1, 2))
    assert fleet.ask(one, "POST", "/v1/batches", carried).status == 200
    accounts = fleet.ask(one, "GET", "/v1/audit").json()["accounts"]
    assert accounts == []  # its own only
    assert fleet.ask(one, "GET", "/v1/audit?device=pump-2").status == 403
    operator = fleet.enrol("ann", role="operator")
    assert fleet.ask(operator, "GET", "/v1/records").json()["records"][0]["device"] == "pump-2"
    assert fleet.ask(operator, "POST", "/v1/batches", carried).status == 403


def test_a_revocation_counts_at_the_next_request_of_an_open_connection(fleet: Fleet) -> None:
    identity = fleet.enrol("pump-1")
    device = Device("pump-1", signer=identity.signer)
    connection = fleet.connect(identity)
    assert ask(connection, "POST", "/v1/batches", device.pack(records(1, 2))).status == 200
    other = fleet.enrol("pump-2")
    fleet.authority.revoke(device="pump-1", now=time.time())
    assert ask(connection, "POST", "/v1/batches", device.pack(records(3, 4))).status == 403
    connection.close()
    # What it signed is not taken from others either.
    assert fleet.ask(other, "POST", "/v1/batches", device.pack(records(3, 4))).status == 403


def test_what_was_signed_before_a_rotation_is_taken_after_it(fleet: Fleet) -> None:
    identity = fleet.enrol("pump-1")
    before = Device("pump-1", signer=identity.signer).pack(records(1, 2))
    rotated = renew(identity)
    assert rotated.signer.key_id != identity.signer.key_id
    assert fleet.ask(rotated, "POST", "/v1/batches", before).status == 200
    after = Device("pump-1", signer=rotated.signer).pack(records(3, 4))
    assert fleet.ask(rotated, "POST", "/v1/batches", after).status == 200


def test_a_certificate_that_expires_on_an_open_connection_ends_it_and_can_be_renewed(fleet: Fleet) -> None:
    identity = fleet.enrol("pump-1")
    batch = Device("pump-1", signer=identity.signer).pack(records(1, 2))
    connection = fleet.connect(identity)
    assert ask(connection, "POST", "/v1/batches", batch).status == 200
    fleet.ahead_s = 2 * 86400.0
    assert ask(connection, "POST", "/v1/batches", batch).status == 403
    connection.close()
    fleet.ahead_s = 0.0
    assert fleet.ask(renew(identity), "POST", "/v1/batches", batch).status == 200


def test_plain_text_and_old_tls_get_nowhere(fleet: Fleet) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(http.client.HTTPConnection("127.0.0.1", fleet.hub.port, timeout=20), "GET", "/healthz")
    context = believing(fleet.authority.certificates_pem().decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        ask(http.client.HTTPSConnection("127.0.0.1", fleet.hub.port, timeout=20, context=context), "GET", "/healthz")
