"""What an authority decides: pure cases, without a network."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.errors import CertificateRefusedError, EnrolmentRefusedError, TrustError
from skerry.spec.units import Duration
from skerry.trust.authority import Authority
from skerry.trust.authority_folder import Material, read_material
from skerry.trust.authority_options import AuthorityOptions
from skerry.trust.certificate import (
    client_certificate,
    clock_may_judge,
    read_certificate,
    serial_text,
    signing_request,
    to_der,
)
from skerry.trust.endpoints import answer
from skerry.trust.keys import KeyRing, KeySigner, key_id, new_key, public_der, vouches
from skerry.trust.names import SpiffeId, checked_name, parse_spiffe
from skerry.trust.nonce import is_fresh, new_nonce, renewal_message
from skerry.trust.token import new_token, read_token

NOW = 1_900_000_000.0
DAY_S = 86400.0
YEAR_S = 365 * DAY_S
KEY = new_key()


@dataclasses.dataclass
class Holder:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    pem: bytes

    @property
    def der(self) -> bytes:
        return to_der(read_certificate(self.pem))

    @property
    def serial(self) -> str:
        return serial_text(read_certificate(self.pem))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.init(tmp_path / "authority", hub="https://hub.test:8443", trust_domain="fleet.test", now=NOW)


def let_in(authority: Authority, name: str, now: float = NOW) -> Holder:
    key = new_key()
    return Holder(key, authority.enrol(authority.issue_token(name, now=now), signing_request(key), now))


def renewed(authority: Authority, old: Holder, now: float, asked: float | None = None) -> Holder:
    key, nonce = new_key(), authority.nonce(now if asked is None else asked)
    request = signing_request(key)
    proof = KeySigner(old.key).sign(renewal_message(nonce, request))
    return Holder(key, authority.renew(old.pem, request, proof, nonce, now))


def material(authority: Authority) -> Material:
    return read_material(authority.folder)


def claiming(uri: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a request that says who it is."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_says_who_and_for_how_long(authority: Authority) -> None:
    pump = let_in(authority, "pump-7")
    peer = authority.verify_peer(pump.der, NOW)
    assert (peer.role, peer.name, peer.device, peer.operator) == ("device", "pump-7", "pump-7", "")
    assert peer.not_after == NOW + DAY_S
    assert peer.key_id == key_id(public_der(pump.key.public_key()))
    names = read_certificate(pump.pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://fleet.test/device/pump-7"]


@pytest.mark.parametrize(
    ("after_s", "counts"), [(-3601.0, False), (-3599.0, True), (0.0, True), (DAY_S - 1, True), (DAY_S, False)]
)
def test_when_a_certificate_counts(authority: Authority, after_s: float, counts: bool) -> None:
    pump = let_in(authority, "pump-7")
    if counts:
        assert authority.verify_peer(pump.der, NOW + after_s)
    else:
        with pytest.raises(CertificateRefusedError):
            authority.verify_peer(pump.der, NOW + after_s)


def test_nobody_is_nobody(authority: Authority) -> None:
    for nothing in (None, b"", b"rubbish"):
        with pytest.raises(CertificateRefusedError):
            authority.verify_peer(nothing, NOW)


def test_certificates_of_ours_that_are_no_devices(authority: Authority) -> None:
    pair = material(authority).for_clients
    hub = read_certificate(authority.server_certificate(["hub"], NOW).read_bytes())
    for certificate in (pair.certificate, hub):
        with pytest.raises(CertificateRefusedError, match="no certificate of a device"):
            authority.verify_peer(to_der(certificate), NOW)
    other = client_certificate(
        pair.certificate, pair.key, KEY.public_key(), SpiffeId("other.test", "device", "pump-7"),
        not_before=NOW, not_after=NOW + 60,
    )  # fmt: skip
    with pytest.raises(CertificateRefusedError, match="of another fleet"):
        authority.verify_peer(to_der(other), NOW)


def test_one_token_two_hubs_one_device(authority: Authority) -> None:
    """Two processes get the same token at the same moment, with different keys."""
    token = authority.issue_token("pump-7", now=NOW)
    taken: list[str] = []
    start = threading.Barrier(4)

    def try_it() -> None:
        own = Authority(authority.folder)
        request = signing_request(new_key())
        start.wait()
        try:
            own.enrol(token, request, NOW)
            taken.append("yes")
        except EnrolmentRefusedError:
            taken.append("no")
        own.close()

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == ["no", "no", "no", "yes"]


def test_the_same_key_may_ask_again_until_the_token_expires(authority: Authority) -> None:
    token, request = authority.issue_token("pump-7", 3600.0, now=NOW), signing_request(KEY)
    assert authority.enrol(token, request, NOW) != authority.enrol(token, request, NOW + 10)
    with pytest.raises(EnrolmentRefusedError):
        authority.enrol(token, request, NOW + 3600)


def test_a_token_cannot_be_bent_to_another_name(authority: Authority) -> None:
    told = read_token(authority.issue_token("pump-7", now=NOW))
    bent = new_token(told.hub, told.fingerprint, "operator", "ann", NOW)
    bent = type(told)(told.hub, told.fingerprint, told.secret, bent.role, bent.name, told.issued)
    with pytest.raises(EnrolmentRefusedError, match="not known here"):
        authority.enrol(bent.text(), signing_request(KEY), NOW)


def test_a_request_that_claims_to_be_another_is_refused_and_the_token_kept(authority: Authority) -> None:
    token, key = authority.issue_token("pump-7", now=NOW), new_key()
    with pytest.raises(EnrolmentRefusedError, match="claims to be"):
        authority.enrol(token, claiming("spiffe://fleet.test/device/valve-1", key), NOW)
    assert authority.enrol(token, claiming("spiffe://fleet.test/device/pump-7", key), NOW)


def test_requests_that_cannot_be_used(authority: Authority) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    named = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    rsa_request = named.sign(other, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    damaged = bytearray(x509.load_pem_x509_csr(signing_request(KEY)).public_bytes(serialization.Encoding.DER))
    damaged[-1] ^= 1
    unsigned = x509.load_der_x509_csr(bytes(damaged)).public_bytes(serialization.Encoding.PEM)
    for request in (b"", b"rubbish", rsa_request, unsigned, claiming("https://x", KEY), signing_request(KEY)[:200]):
        with pytest.raises(EnrolmentRefusedError):
            authority.enrol(authority.issue_token("pump-7", now=NOW), request, NOW)


def test_a_key_belongs_to_one(authority: Authority) -> None:
    pump = let_in(authority, "pump-7")
    with pytest.raises(EnrolmentRefusedError, match="another's already"):
        authority.enrol(authority.issue_token("valve-1", now=NOW), signing_request(pump.key), NOW)


@pytest.mark.parametrize("later_s", [0.0, 2 * DAY_S, 5 * YEAR_S, -YEAR_S])
def test_renewal_whatever_the_dates(authority: Authority, later_s: float) -> None:
    """Away for years, or certified while the hub's clock was a year ahead."""
    pump = renewed(authority, let_in(authority, "pump-7"), NOW + later_s)
    assert authority.verify_peer(pump.der, NOW + later_s).device == "pump-7"


def test_renewal_needs_a_fresh_nonce_of_ours(authority: Authority) -> None:
    pump = let_in(authority, "pump-7")
    with pytest.raises(EnrolmentRefusedError, match="nonce"):
        renewed(authority, pump, NOW, asked=NOW - 301)
    request = signing_request(KEY)
    for nonce in ("", "rubbish", new_nonce(b"another key", NOW)):
        proof = KeySigner(pump.key).sign(renewal_message(nonce, request))
        with pytest.raises(EnrolmentRefusedError, match="nonce"):
            authority.renew(pump.pem, request, proof, nonce, NOW)


def test_a_signature_for_something_else_is_no_proof(authority: Authority) -> None:
    pump, request, nonce = let_in(authority, "pump-7"), signing_request(KEY), authority.nonce(NOW)
    signer = KeySigner(pump.key)
    other = signing_request(new_key())
    for proof in (b"", bytes(64), signer.sign(b"a batch"), signer.sign(renewal_message(nonce, other))):
        with pytest.raises(EnrolmentRefusedError, match="does not vouch"):
            authority.renew(pump.pem, request, proof, nonce, NOW)


def test_revocation_survives_a_lost_ledger_row(authority: Authority) -> None:
    """A certificate that the ledger has forgotten is refused where its device was ever revoked."""
    old = let_in(authority, "pump-7")
    for day in range(2, 200, 30):
        old_one, old = old, renewed(authority, old, NOW + day * DAY_S)
    authority.revoke(device="pump-7", now=NOW + 200 * DAY_S)
    assert authority.is_revoked(old.serial) and authority.is_revoked(old_one.serial)
    first = client_certificate(
        material(authority).for_clients.certificate, material(authority).for_clients.key, KEY.public_key(),
        SpiffeId("fleet.test", "device", "pump-7"), not_before=NOW, not_after=NOW + YEAR_S,
    )  # fmt: skip
    with pytest.raises(CertificateRefusedError, match="revoked"):
        authority.verify_peer(to_der(first), NOW + 1)


def test_a_revoked_key_vouches_for_no_batch(authority: Authority) -> None:
    pump = let_in(authority, "pump-7")
    signer = KeySigner(pump.key)
    assert authority.verify(signer.key_id, b"batch", signer.sign(b"batch"))
    assert not authority.verify(signer.key_id, b"other", signer.sign(b"batch"))
    assert authority.device_of(signer.key_id) == "pump-7"
    authority.revoke(device="pump-7", now=NOW)
    assert not authority.verify(signer.key_id, b"batch", signer.sign(b"batch"))
    assert authority.device_of(signer.key_id) == ""


def test_a_copied_disk_is_noticed(authority: Authority) -> None:
    """Two machines with one identity renew in turn: neither is refused, and the operator sees it."""
    pump = let_in(authority, "pump-7")
    renewed(authority, pump, NOW + DAY_S)
    assert authority.members(NOW)[0].twins == 0
    renewed(authority, pump, NOW + DAY_S + 60)
    assert authority.members(NOW)[0].twins == 1


def test_one_name_is_one_device(authority: Authority) -> None:
    """A board was replaced: with the new one enrolled, the old one is out, stolen or put on a shelf."""
    old = let_in(authority, "pump-7")
    authority.issue_token("pump-7", now=NOW)
    assert authority.verify_peer(old.der, NOW)
    new = let_in(authority, "pump-7")
    assert authority.verify_peer(new.der, NOW).device == "pump-7" and not authority.is_revoked("pump-7")
    with pytest.raises(CertificateRefusedError, match="revoked"):
        authority.verify_peer(old.der, NOW)
    with pytest.raises(CertificateRefusedError, match="revoked"):
        renewed(authority, old, NOW)
    assert renewed(authority, new, NOW)


def test_states_of_members(authority: Authority) -> None:
    let_in(authority, "pump-7")
    let_in(authority, "valve-1", NOW - 2 * DAY_S)
    let_in(authority, "gone-1")
    authority.revoke(device="gone-1", now=NOW)
    authority.issue_token("new-1", now=NOW)
    states = {member.name: member.state for member in authority.members(NOW)}
    assert states == {"pump-7": "enrolled", "valve-1": "away", "gone-1": "revoked", "new-1": "waiting"}


def test_the_hubs_certificate_is_renewed_when_due_and_for_new_names(authority: Authority) -> None:
    first = authority.server_certificate([], NOW).read_bytes()
    assert authority.server_certificate([], NOW + 30 * DAY_S).read_bytes() == first
    second = authority.server_certificate([], NOW + 62 * DAY_S).read_bytes()
    assert second != first
    assert authority.server_certificate(["hub.local"], NOW + 62 * DAY_S).read_bytes() != second
    with pytest.raises(TrustError, match="no name of a host"):
        authority.server_certificate(["ho\udce4st"], NOW)


def test_lives_can_be_set(tmp_path: Path) -> None:
    options = AuthorityOptions(certificate_life=Duration(60.0), backdate=Duration(5.0))
    short = Authority.init(tmp_path / "a", hub="https://hub.test", now=NOW, options=options)
    assert short.verify_peer(let_in(short, "pump-7").der, NOW).not_after == NOW + 60


def test_a_ledger_that_is_none(authority: Authority) -> None:
    authority.close()
    (authority.folder / "ledger.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(TrustError, match="ledger cannot be opened"):
        Authority(authority.folder)


def test_endpoints_never_raise(authority: Authority) -> None:
    def status(method: str, path: str, body: bytes = b"") -> int:
        found = answer(authority, method, path, body, NOW)
        assert isinstance(json.loads(found.body), dict)
        return found.status

    assert status("GET", "/v1/ca") == status("GET", "/v1/nonce") == 200
    assert status("GET", "/v1/other") == 404
    assert status("GET", "/v1/enrol") == 405
    assert status("POST", "/v1/enrol", b" " * 70_000) == 413
    assert status("POST", "/v1/enrol", b"{}") == status("POST", "/v1/renew", b"\xff") == 400
    assert status("POST", "/v1/enrol", b'{"token": "x", "csr": ""}') == 403
    wanted = {"certificate": "x", "csr": "", "nonce": "", "proof": ""}
    assert status("POST", "/v1/renew", json.dumps(wanted).encode()) == 403
    token = authority.issue_token("pump-7", now=NOW)
    authority.close()
    body = json.dumps({"token": token, "csr": signing_request(KEY).decode()}).encode()
    assert status("POST", "/v1/enrol", body) == 503


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=64), st.integers(0, 511))
def test_only_the_key_vouches(message: bytes, other: bytes, bit: int) -> None:
    signer = KeySigner(KEY)
    signature = bytearray(signer.sign(message))
    assert len(signature) == 64 and vouches(signer.public_key, message, bytes(signature))
    assert not vouches(signer.public_key, message + other, bytes(signature))
    signature[bit // 8] ^= 1 << bit % 8
    assert not vouches(signer.public_key, message, bytes(signature))


def test_what_is_no_signature_or_no_key() -> None:
    signer = KeySigner(KEY)
    for signature in (b"", bytes(63), bytes(64), b"\xff" * 64, bytes(65)):
        assert not vouches(signer.public_key, b"batch", signature)
    assert not vouches(b"no key", b"batch", signer.sign(b"batch"))
    with pytest.raises(TrustError):
        KeyRing().add(b"no key")


@given(st.binary(min_size=16, max_size=64), st.floats(0, 4e9), st.floats(-1000, 1000))
def test_nonces(key: bytes, now: float, age_s: float) -> None:
    nonce = new_nonce(key, now)
    assert is_fresh(key, nonce, now + age_s, 300.0) == (-1.0 <= now + age_s - int(now * 1000) / 1000 <= 300.0)
    assert not is_fresh(key + b"x", nonce, now, 300.0)


@given(st.integers(0, 400), st.text(alphabet="ABCabc019-_=.\n ", max_size=3))
def test_a_token_is_whole_or_refused(place: int, noise: str) -> None:
    token = new_token("https://hub.test:8443", bytes(32), "device", "pump-7", NOW)
    text = token.text()
    assert read_token(f" {text[:20]}\n{text[20:]} ") == token
    changed = text[: place % len(text)] + noise + text[place % len(text) + 1 :]
    try:
        assert read_token(changed) == token
    except EnrolmentRefusedError as refused:
        assert "no enrolment token" in refused.message


@given(st.text(max_size=70))
def test_names_are_labels(text: str) -> None:
    try:
        name = checked_name(text)
    except TrustError:
        return
    assert parse_spiffe(f"spiffe://fleet.test/device/{name}").name == name


@pytest.mark.parametrize(
    "text",
    ["", "spiffe://", "spiffe://d/device", "spiffe://d/device/", "spiffe://d/device/a/b", "spiffe://d/hub/a",
     "http://d/device/a", "d/device/a", "spiffe://d/device/A", "spiffe://d/device/a\n"],
)  # fmt: skip
def test_what_is_no_spiffe_id(text: str) -> None:
    with pytest.raises(CertificateRefusedError):
        parse_spiffe(text)


def test_a_clock_that_is_wrong_does_not_judge(authority: Authority) -> None:
    own = read_certificate(let_in(authority, "pump-7").pem)
    assert clock_may_judge(own, NOW, None) and clock_may_judge(own, NOW + YEAR_S, True)
    assert not clock_may_judge(own, NOW - YEAR_S, None)
    assert not clock_may_judge(own, NOW + YEAR_S, False)
    assert clock_may_judge(None, time.time(), None)
