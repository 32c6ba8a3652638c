"""``skerry keys operator``: a person reads a real hub over real TLS, with curl and with what a browser gets."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from skerry.cli.main import main
from skerry.fleet.hub.server import Hub, HubSetup
from skerry.spec.errors import EnrolmentRefusedError, TrustError, UsageError
from skerry.testing.broker import free_port
from skerry.trust.authority import Authority
from skerry.trust.certificate import signing_request, to_pem
from skerry.trust.enrolment import enrol
from skerry.trust.keys import KeySigner, new_key, private_pem, read_key
from skerry.trust.nonce import renewal_message
from skerry.trust.tls import believing


class Town:
    """A fleet's authority and its hub; the clock of the hub can be set forward."""

    def __init__(self, folder: Path) -> None:
        self.ahead_s = 0.0
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self.authority = Authority.init(folder / "authority", hub=self.url, now=time.time())
        setup = HubSetup(data=folder / "hub", port=port, authority=folder / "authority")
        self.hub = Hub(setup, clock=lambda: time.time() + self.ahead_s)
        self.hub.start()

    def status(self, certificate: Path, key: Path, method: str = "GET", path: str = "/v1/records") -> int:
        """Ask the hub with a certificate, over a connection of its own."""
        context = believing(self.authority.certificates_pem().decode())
        context.load_cert_chain(certificate, key)
        connection = http.client.HTTPSConnection("127.0.0.1", self.hub.port, timeout=20, context=context)
        try:
            connection.request(method, path, b"x" if method == "POST" else None)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setenv("SKERRY_AUTHORITY", str(tmp_path / "authority"))
    monkeypatch.chdir(tmp_path)
    made = Town(tmp_path)
    yield made
    made.hub.close()
    made.authority.close()


def operator(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main(["keys", "operator", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_printed_command_of_curl_works_as_it_is(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    made = operator(capsys, "ann", "--out", "the files of ann")
    done = subprocess.run([*shlex.split(made["curl"]), "-sS"], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {"records": [], "next": 0}
    without = ["curl", "-sS", "--cacert", made["authority"], f"{town.url}/v1/records"]
    assert b'"status":401' in subprocess.run(without, capture_output=True, timeout=60, check=True).stdout


def test_what_it_says_and_who_may_read_the_files(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "operator", "ann", "--pkcs12", "ann.p12"]) == 0
    said = capsys.readouterr()
    assert "  curl --cacert operator-ann/authority.pem --cert operator-ann/certificate.pem --key" in said.out
    assert f"{town.url}/v1/records" in said.out and "import ann.p12" in said.out and "next: " in said.err
    for path in (*Path("operator-ann").iterdir(), Path("ann.p12")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("operator-ann").stat().st_mode) == 0o700


def test_the_file_for_a_browser(town: Town, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = operator(capsys, "ann", "--pkcs12", "ann.p12")
    content = (tmp_path / "ann.p12").read_bytes()
    with pytest.raises(ValueError, match=r"(?i)password"):
        load_pkcs12(content, b"guessed")
    held = load_pkcs12(content, made["password"].encode())
    assert held.cert is not None and isinstance(held.key, ec.EllipticCurvePrivateKey)
    assert [to_pem(each.certificate) for each in held.additional_certs] == [town.authority.certificates_pem()]
    (tmp_path / "browser.crt").write_bytes(to_pem(held.cert.certificate))
    (tmp_path / "browser.key").write_bytes(private_pem(held.key))
    assert town.status(tmp_path / "browser.crt", tmp_path / "browser.key") == 200


def test_an_operator_reads_and_sends_nothing_and_a_device_does_not_read(
    town: Town, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = operator(capsys, "pump-7")  # called as a device is: it is none for that
    device = enrol("", town.authority.issue_token("pump-7", now=time.time()), tmp_path / "device")
    assert town.status(Path(made["certificate"]), Path(made["key"])) == 200
    assert town.status(Path(made["certificate"]), Path(made["key"]), "POST", "/v1/batches") == 403
    assert town.status(device.certificate_file, device.key_file) == 403
    assert main(["keys", "revoke", "pump-7"]) == 0  # the device
    assert town.status(Path(made["certificate"]), Path(made["key"])) == 200


def test_it_is_renewed_by_making_it_again_and_ended_by_revocation(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = operator(capsys, "ann", "--out", "first"), operator(capsys, "bob")
    again = operator(capsys, "ann", "--out", "again")
    assert town.status(Path(first["certificate"]), Path(first["key"])) == 403
    assert town.status(Path(again["certificate"]), Path(again["key"])) == 200
    assert main(["keys", "revoke", "--operator", "ann"]) == 0
    assert "skerry keys operator ann" in capsys.readouterr().err
    assert town.status(Path(again["certificate"]), Path(again["key"])) == 403
    assert town.status(Path(other["certificate"]), Path(other["key"])) == 200
    once_more = operator(capsys, "ann", "--out", "again")
    assert town.status(Path(once_more["certificate"]), Path(once_more["key"])) == 200


def test_it_ends_when_it_was_said_to_end_and_cannot_renew_itself(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    made = operator(capsys, "ann", "--lasts", "2d")
    certificate, key = Path(made["certificate"]), Path(made["key"])
    town.ahead_s = 1.9 * 86400.0
    assert town.status(certificate, key) == 200
    town.ahead_s = 2.1 * 86400.0
    assert town.status(certificate, key) == 403
    nonce, request = town.authority.nonce(time.time()), signing_request(new_key())
    proof = KeySigner(read_key(key)).sign(renewal_message(nonce, request))
    with pytest.raises(EnrolmentRefusedError, match="cannot renew itself") as refused:
        town.authority.renew(certificate.read_bytes(), request, proof, nonce, time.time())
    assert "skerry keys operator ann" in refused.value.hint


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["../ann"], TrustError.exit_code),
        (["Ann"], TrustError.exit_code),
        (["ann", "--lasts", "367d"], TrustError.exit_code),
        (["ann", "--lasts", "1s"], TrustError.exit_code),
        (["ann", "--pkcs12", "missing/ann.p12"], UsageError.exit_code),
        (["ann", "--pkcs12", "authority"], TrustError.exit_code),
        (["ann", "--out", "file"], TrustError.exit_code),
    ],
)
def test_what_cannot_be_made(words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_AUTHORITY", str(tmp_path / "authority"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["keys", "init", "--hub", "https://hub.test"]) == 0
    assert main(["keys", "operator", *words]) == code
    assert not [path for path in tmp_path.rglob("key.pem") if "missing" in words[-1]]
    assert not (tmp_path.parent / "ann").exists()


def test_rotation_does_not_wait_for_operators_whose_time_is_over(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    operator(capsys, "ann", "--lasts", "2d")
    now = time.time()
    town.authority.rotate(now)
    assert town.authority.left_behind(now) == ["ann"]
    assert town.authority.left_behind(now + 3 * 86400.0) == []


def test_the_name_of_a_host_in_a_devices_certificate_is_none(tmp_path: Path) -> None:
    """A device is called as a host is; a client does not take that for the name of a hub."""
    context = believing(
        Authority.init(tmp_path / "a", hub="https://h.test", now=time.time()).certificates_pem().decode()
    )
    assert context.hostname_checks_common_name is False
    assert context.check_hostname is True and context.verify_mode is ssl.CERT_REQUIRED
