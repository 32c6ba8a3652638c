"""What somebody with bad intentions tries, and what goes wrong at the worst moment."""

from __future__ import annotations

import base64
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import skerry.trust.authority as authority_module
from skerry.spec.errors import (
    CertificateRefusedError,
    EnrolmentRefusedError,
    HubError,
    HubUnreachableError,
    TrustError,
)
from skerry.trust.authority import Authority
from skerry.trust.authority_options import AuthorityOptions
from skerry.trust.certificate import read_certificate, signing_request, to_der
from skerry.trust.endpoints import answer
from skerry.trust.folder import make_private
from skerry.trust.identity import Identity, load_identity, loopback_identity
from skerry.trust.keys import KeySigner, new_key, private_pem
from skerry.trust.ledger import Ledger
from skerry.trust.nonce import renewal_message
from skerry.trust.questions import Questions
from tests.trust.small_hub import SmallHub, visit

Enrolled = Callable[[str], Identity]
DAY_S = 86400.0


def renewal_of(authority: Authority, identity: Identity, now: float) -> bytes:
    nonce, request = authority.nonce(now), signing_request(new_key())
    proof = identity.signer.sign(renewal_message(nonce, request))
    return authority.renew(identity.certificate_file.read_bytes(), request, proof, nonce, now)


def while_signing(monkeypatch: pytest.MonkeyPatch, step: Callable[[], object]) -> None:
    """Do something at the moment when the next certificate is being made."""
    real = authority_module.client_certificate

    def certify(*words: object, **named: object) -> x509.Certificate:
        monkeypatch.setattr(authority_module, "client_certificate", real)
        step()
        return real(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(authority_module, "client_certificate", certify)


def test_a_revocation_during_a_renewal_leaves_nobody_in(
    authority: Authority, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief renews without a pause, so that the revocation falls into a renewal."""
    pump, now = enrolled("pump-7"), time.time()
    while_signing(monkeypatch, lambda: authority.revoke(device="pump-7", now=now))
    with pytest.raises(CertificateRefusedError, match="revoked"):
        renewal_of(authority, pump, now)
    assert authority.is_revoked("pump-7")


def test_a_revocation_during_an_enrolment_leaves_nobody_in(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    token = authority.issue_token("pump-7", now=now)
    while_signing(monkeypatch, lambda: authority.revoke(device="pump-7", now=now))
    with pytest.raises(EnrolmentRefusedError, match="withdrawn"):
        authority.enrol(token, signing_request(new_key()), now)
    assert authority.is_revoked("pump-7")


@pytest.mark.usefixtures("patient")
def test_renewing_without_a_pause_does_not_outrun_a_revocation(authority: Authority, enrolled: Enrolled) -> None:
    pump, got, stop = enrolled("pump-7"), list[bytes](), threading.Event()

    def renew_on() -> None:
        while not stop.is_set():
            try:
                got.append(renewal_of(authority, pump, time.time()))
            except CertificateRefusedError:
                return

    threads = [threading.Thread(target=renew_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(got) < 5:
        time.sleep(0.005)
    elsewhere = Authority.load(authority.folder)
    elsewhere.revoke(device="pump-7", now=time.time())
    elsewhere.close()
    for thread in threads:
        thread.join(20)
    stop.set()
    assert not any(thread.is_alive() for thread in threads)
    for pem in got:
        with pytest.raises(CertificateRefusedError, match="revoked"):
            authority.verify_peer(to_der(read_certificate(pem)), time.time())


def test_an_ended_authority_is_not_remembered_by_who_was_just_looking(
    authority: Authority, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old key is ended while a certificate of it is being checked."""
    pump, now = enrolled("pump-7"), time.time()
    authority.rotate(now)
    fresh = Authority.load(authority.folder)
    real = authority_module.issued_by

    def slowly(*words: object) -> object:
        found = real(*words)  # type: ignore[arg-type]
        monkeypatch.setattr(authority_module, "issued_by", real)
        authority.finish_rotation()
        fresh.certificates_pem()  # another thread reads the keys of today
        return found

    monkeypatch.setattr(authority_module, "issued_by", slowly)
    der = to_der(pump.certificate)
    fresh.verify_peer(der, now)  # was asked before it was ended
    with pytest.raises(CertificateRefusedError, match="not made by this authority"):
        fresh.verify_peer(der, now)
    fresh.close()


def test_one_that_renews_in_a_loop_fills_no_disk(
    authority: Authority, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.trust.ledger._MOST", 5)
    pump, now = enrolled("pump-7"), time.time()
    all_of_them = [renewal_of(authority, pump, now + step) for step in range(12)]
    database = Ledger(authority.folder / "ledger.db")
    assert len(database._rows("SELECT 1 FROM certificates")) == 5
    assert len(database._rows("SELECT 1 FROM keys")) <= 6
    database.close()
    for pem in all_of_them:  # what was forgotten counts, as nobody took it back
        authority.verify_peer(to_der(read_certificate(pem)), now + 20)
    authority.revoke(device="pump-7", now=now + 20)
    for pem in (*all_of_them, pump.certificate_file.read_bytes()):
        with pytest.raises(CertificateRefusedError, match="revoked"):
            authority.verify_peer(to_der(read_certificate(pem)), now + 20)


def test_one_that_renews_too_often_waits_and_keeps_what_it_has(authority: Authority, enrolled: Enrolled) -> None:
    authority.options = AuthorityOptions(an_hour=5)
    pump, valve, now = enrolled("pump-7"), enrolled("valve-1"), time.time()
    newest = [renewal_of(authority, pump, now + step) for step in range(4)][-1]
    with pytest.raises(HubError, match="not so often"):
        renewal_of(authority, pump, now + 5)
    assert authority.verify_peer(to_der(read_certificate(newest)), now + 5)
    renewal_of(authority, valve, now + 5)
    renewal_of(authority, pump, now + 3700)
    renewal_of(authority, pump, now - 86400.0)  # a clock that was ahead for a while bars nobody


def test_trouble_of_the_ledger_is_the_hubs_and_nobodys_fault(authority: Authority, enrolled: Enrolled) -> None:
    """Not an error by which a device would think that its batch is bad; and afterwards all goes on."""
    pump, now = enrolled("pump-7"), time.time()
    for connection in (authority._ledger._database, authority._ledger._reader):
        connection.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(authority.folder / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    der = to_der(pump.certificate)
    for ask in (lambda: authority.verify_peer(der, now), lambda: authority.device_of(pump.signer.key_id)):
        with pytest.raises(HubError, match="cannot be read"):
            ask()
    other.execute("ROLLBACK")
    other.execute("BEGIN")
    assert other.execute("SELECT count(*) FROM certificates").fetchone() == (1,)  # reads, and does not let go
    with pytest.raises(HubError, match="cannot be written"):
        renewal_of(authority, pump, now)
    assert authority.verify_peer(der, now).device == "pump-7"
    other.execute("COMMIT")
    other.close()
    assert renewal_of(authority, pump, now)


def test_who_is_asked_for_does_not_wait_for_a_change_under_way(authority: Authority, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    with authority._ledger._writing() as database:
        database.execute("UPDATE certificates SET revoked = 1.0")
        assert authority.verify_peer(to_der(pump.certificate), time.time()).device == "pump-7"
    with pytest.raises(CertificateRefusedError, match="revoked"):
        authority.verify_peer(to_der(pump.certificate), time.time())


def test_a_key_whose_certificate_was_forgotten_vouches_for_nothing_once_its_holder_is_out(
    authority: Authority, enrolled: Enrolled
) -> None:
    pump = enrolled("pump-7")
    authority._ledger._database.execute("DELETE FROM certificates")
    assert authority.device_of(pump.signer.key_id) == "pump-7"
    authority.issue_token("pump-7", now=time.time())
    authority.revoke(device="pump-7", now=time.time())
    assert authority.device_of(pump.signer.key_id) == ""


def asked(authority: Authority, path: str, body: bytes) -> int:
    found = answer(authority, "POST", path, body, time.time())
    assert isinstance(json.loads(found.body), dict)
    return found.status


@pytest.mark.parametrize("name", [b"\xa3\x02\x30\x00", b"\xa5\x02\x30\x00", b"\xff\xff", b"\x86\x02\xff\xfe"])
def test_requests_with_names_of_strange_kinds_are_refused(authority: Authority, name: bytes) -> None:
    """Some of them cryptography reports by exceptions of their own."""
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30" + bytes([len(name)]) + name)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(strange, critical=False)
    request = builder.sign(new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    token = authority.issue_token("pump-7", now=time.time())
    assert asked(authority, "/v1/enrol", json.dumps({"token": token, "csr": request.decode()}).encode()) == 403
    with pytest.raises(EnrolmentRefusedError):
        authority.enrol(token, request, time.time())


@pytest.mark.parametrize("place", ["version", "algorithm"])
def test_certificates_that_cryptography_does_not_know_are_refused(authority: Authority, place: str) -> None:
    der = bytearray(to_der(read_certificate(authority.certificates_pem())))
    if place == "version":
        der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = 5
    else:
        der = der.replace(bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040f7f"))
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(bytes(der)).decode()}-----END CERTIFICATE-----\n"
    body = {"certificate": pem, "csr": "", "nonce": authority.nonce(time.time()), "proof": ""}
    assert asked(authority, "/v1/renew", json.dumps(body).encode()) == 403
    with pytest.raises(CertificateRefusedError):
        authority.verify_peer(bytes(der), time.time())


def test_brackets_in_brackets_are_no_request(authority: Authority) -> None:
    assert asked(authority, "/v1/enrol", b'{"x":' + b"[" * 60_000) == 400
    assert asked(authority, "/v1/renew", b"[" * 60_000) == 400


@pytest.mark.parametrize(
    "now", [1e12, -1e12, time.time() + 21 * 365 * DAY_S], ids=["never", "long ago", "after its end"]
)
def test_a_clock_at_the_end_of_time_is_told_in_words(authority: Authority, now: float) -> None:
    token = authority.issue_token("pump-7", now=time.time())
    with pytest.raises((TrustError, EnrolmentRefusedError)):
        authority.enrol(token, signing_request(new_key()), now)
    if now > 0:
        with pytest.raises(TrustError, match="clock right"):
            authority.server_certificate([], now)


def test_no_authority_is_made_by_a_clock_of_1970(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="years behind"):
        Authority.init(tmp_path / "a", hub="https://hub.test", now=86400.0)
    assert not (tmp_path / "a").exists()


def test_a_ledger_that_is_gone_is_not_made_anew(authority: Authority) -> None:
    """It says who was revoked: an empty one in its place would let everybody in again."""
    authority.close()
    (authority.folder / "ledger.db").unlink()
    with pytest.raises(TrustError, match="ledger is missing"):
        Authority.load(authority.folder)
    (authority.folder / "ledger.db").touch(0o600)  # as the hint says
    Authority.load(authority.folder).close()


def test_a_ledger_that_others_can_write_is_refused(authority: Authority) -> None:
    authority.close()
    (authority.folder / "ledger.db").chmod(0o666)
    with pytest.raises(TrustError, match="may write into the authority's ledger"):
        Authority.load(authority.folder)


def test_a_second_look_at_a_ledger_does_not_end_the_locks_of_the_first(authority: Authority) -> None:
    """POSIX drops all locks of a process on a file when it closes the file once."""
    with authority._ledger._writing():
        Ledger(authority.folder / "ledger.db").close()
        code = "import sqlite3,sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        command = [sys.executable, "-c", code, str(authority.folder / "ledger.db")]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert b"database is locked" in done.stderr


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else made it first, in /tmp say, and could replace the keys in it."""
    loopback_identity(tmp_path / "identity", "pump-7")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if (tmp_path / "identity").stat().st_uid == 0:
        if os.getuid() != 0:
            pytest.skip("needs a folder of an ordinary user")
        os.chown(tmp_path / "identity", 54321, -1)
    with pytest.raises(TrustError, match="another user's"):
        load_identity(tmp_path / "identity")
    with pytest.raises(TrustError, match="another user's"):
        make_private(tmp_path / "identity")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    made = loopback_identity(tmp_path / "identity", "pump-7")
    (made.folder / ".lock").unlink()
    (made.folder / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TrustError, match="cannot be changed"):
        loopback_identity(made.folder, "pump-7")
    assert not (tmp_path / "elsewhere").exists()


def test_a_generation_that_goes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped in the middle of loading, while another renewed twice."""
    made = loopback_identity(tmp_path / "identity", "pump-7")
    real, newer = Path.resolve, []

    def renewed_meanwhile(path: Path, strict: bool = False) -> Path:
        found = real(path, strict)
        if path.name == "current" and not newer:
            newer.append(found.rename(found.with_name("g-00000000")))
            path.unlink()
            path.symlink_to("g-00000000")
        return found

    monkeypatch.setattr(Path, "resolve", renewed_meanwhile)
    assert load_identity(made.folder).files.name == "g-00000000"


def test_who_poses_as_a_hub_cannot_write_to_the_terminal(hub: SmallHub) -> None:
    found = Questions("https://hub.test", hub.context)._refusal(
        503, json.dumps({"error": "\x1b[2J\x1b]0;owned\x07" + "x" * 10_000, "hint": "\r\x1b[31m"}).encode()
    )
    assert isinstance(found, HubUnreachableError)
    assert str(found).isprintable() or all(sign.isprintable() or sign == "\n" for sign in str(found))
    assert len(found.message) < 1000


_RENEWS = """
import sys, pathlib
from skerry.trust.enrolment import renew
from skerry.trust.identity import load_identity
folder = pathlib.Path(sys.argv[1])
identity = load_identity(folder)
print("renewing", flush=True)
while True:
    identity = renew(identity)
"""


@pytest.fixture
def patient(authority: Authority) -> None:
    """Let devices renew as often as they like."""
    authority.options = AuthorityOptions(an_hour=100_000)


def kill_while_renewing(hub: SmallHub, pump: Identity, kills: int) -> None:
    chance, serials = random.Random(4), set[int]()
    for _ in range(kills):
        command = [sys.executable, "-c", _RENEWS, str(pump.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"renewing\n"
            time.sleep(chance.uniform(0.05, 0.5))
            process.kill()
        found = load_identity(pump.folder)
        serials.add(found.certificate.serial_number)
        assert visit(hub, found.client_context(), "/as/pump-7") == (200, "pump-7")
        batch = found.signer.sign(b"batch")
        assert hub.authority.device_of(found.signer.key_id) == "pump-7"
        assert hub.authority.verify(found.signer.key_id, b"batch", batch)
    assert len(serials) > 1
    from skerry.trust.enrolment import renew

    last = renew(load_identity(pump.folder))  # tidies up what the killed ones left
    assert visit(hub, last.client_context(), "/as/pump-7") == (200, "pump-7")
    assert len(list(last.folder.iterdir())) <= 4, sorted(last.folder.iterdir())


@pytest.mark.usefixtures("patient")
def test_killed_in_the_middle_of_renewals_a_device_keeps_a_working_identity(hub: SmallHub, enrolled: Enrolled) -> None:
    kill_while_renewing(hub, enrolled("pump-7"), 3)


@pytest.mark.soak
@pytest.mark.usefixtures("patient")
def test_ten_kills(hub: SmallHub, enrolled: Enrolled) -> None:
    kill_while_renewing(hub, enrolled("pump-7"), 10)


def test_what_killed_enrolments_left_is_removed(hub: SmallHub, tmp_path: Path) -> None:
    from skerry.trust.enrolment import enrol

    home = make_private(tmp_path / "device")
    (home / ".pending-0123456789abcdef.pem.deadbeef").write_bytes(private_pem(new_key()))
    (home / ".current.deadbeef").symlink_to("g-gone")
    enrol(hub.url, hub.authority.issue_token("pump-7", now=time.time()), home)
    assert sorted(path.name[:2] for path in home.iterdir()) == [".l", "cu", "g-"]


def test_a_batch_signature_is_no_proof_of_renewal(authority: Authority, enrolled: Enrolled) -> None:
    """What a device signs as a batch begins differently from what it signs to renew."""
    from skerry.wire.batch import Header, encode
    from skerry.wire.record import Moment, WireRecord

    class Spy(KeySigner):
        def sign(self, message: bytes) -> bytes:
            seen.append(message)
            return super().sign(message)

    seen: list[bytes] = []
    record = WireRecord(1, "events", {"value": 1}, 1, Moment("ab" * 16, 0, False))
    header = Header(
        device="pump-7", epoch="0" * 16, boot="ab" * 16, sent_mono_us=1, sent_wall_ms=0, synced=False
    )  # fmt: skip
    encode(header, [record], Spy(new_key()))
    assert len(seen) == 1 and not seen[0].startswith(b"skerry renewal")
