"""Who gets in and who does not, over real TLS sockets."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.spec.errors import CertificateRefusedError, EnrolmentRefusedError, HubUnreachableError
from skerry.trust.authority import Authority
from skerry.trust.certificate import read_certificate, serial_text, to_pem
from skerry.trust.enrolment import enrol, renew, renew_if_due
from skerry.trust.identity import Identity, load_identity
from skerry.trust.tls import believing
from tests.trust.conftest import Clock
from tests.trust.small_hub import SmallHub, Visit, visit

Enrolled = Callable[[str], Identity]
DAY_S = 86400.0


def test_a_newcomer_pastes_one_string_and_is_known(hub: SmallHub, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    assert (pump.device, pump.trust_domain, pump.hub) == ("pump-7", "fleet.test", hub.url)
    with Visit(hub, pump.client_context()) as connection:
        assert connection.version == "TLSv1.3"
        assert connection.ask("/as/pump-7") == (200, "pump-7")


def test_older_tls_is_refused(hub: SmallHub) -> None:
    old = believing(hub.authority.certificates_pem().decode())
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        visit(hub, old, "/as/")


def test_a_token_works_once(hub: SmallHub, tmp_path: Path) -> None:
    token = hub.authority.issue_token("pump-7", now=time.time())
    enrol(hub.url, token, tmp_path / "first")
    with pytest.raises(EnrolmentRefusedError, match="used before"):
        enrol(hub.url, token, tmp_path / "second")


def test_an_expired_token_is_refused(hub: SmallHub, tmp_path: Path, clock: Clock) -> None:
    token = hub.authority.issue_token("pump-7", 3600.0, now=clock())
    clock.ahead_s = 3601.0
    with pytest.raises(EnrolmentRefusedError, match="expired"):
        enrol(hub.url, token, tmp_path / "device")


def test_a_lost_answer_does_not_use_up_the_token(hub: SmallHub, tmp_path: Path) -> None:
    token = hub.authority.issue_token("pump-7", now=time.time())
    hub.lost_answers = 1
    with pytest.raises(HubUnreachableError):
        enrol(hub.url, token, tmp_path / "device")
    assert enrol(hub.url, token, tmp_path / "device").device == "pump-7"


def test_a_hub_of_another_authority_is_not_believed(hub: SmallHub, tmp_path: Path) -> None:
    other = Authority.init(tmp_path / "other", hub=hub.url, now=time.time())
    with pytest.raises(CertificateRefusedError, match="not the one that the token was made for"):
        enrol(hub.url, other.issue_token("pump-7", now=time.time()), tmp_path / "device")
    other.close()


def test_a_forged_authority_lets_nobody_in(hub: SmallHub, enrolled: Enrolled, tmp_path: Path) -> None:
    """The forger knows every name; only the key is another."""
    forger = Authority.init(tmp_path / "forger", hub=hub.url, trust_domain="fleet.test", now=time.time())
    fake_hub = SmallHub(forger)
    token = forger.issue_token("pump-7", now=time.time())
    fake = enrol(fake_hub.url, token, tmp_path / "fake")
    fake_hub.close()
    forger.close()
    context = fake.client_context()
    context.load_verify_locations(cadata=hub.authority.certificates_pem().decode())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        visit(hub, context, "/as/pump-7")
    with pytest.raises(CertificateRefusedError, match="not made by this authority"):
        hub.authority.verify_peer(ssl.PEM_cert_to_DER_cert(fake.certificate_file.read_text()), time.time())


def test_a_device_does_not_believe_a_forged_hub(enrolled: Enrolled, tmp_path: Path) -> None:
    pump = enrolled("pump-7")
    forger = Authority.init(tmp_path / "forger", hub=pump.hub, trust_domain="fleet.test", now=time.time())
    fake_hub = SmallHub(forger)
    with pytest.raises(ssl.SSLCertVerificationError):
        visit(fake_hub, pump.client_context(), "/as/pump-7")
    fake_hub.close()
    forger.close()


def test_a_device_cannot_pose_as_the_hub(hub: SmallHub, enrolled: Enrolled) -> None:
    pump, valve = enrolled("pump-7"), enrolled("valve-1")
    hub.context.load_cert_chain(valve.certificate_file, valve.key_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        visit(hub, pump.client_context(), "/as/pump-7")


def test_an_expired_certificate_does_not_get_through(hub: SmallHub, enrolled: Enrolled, clock: Clock) -> None:
    pump = enrolled("pump-7")
    clock.ahead_s = DAY_S + 1
    status, said = visit(hub, pump.client_context(), "/as/pump-7")
    assert status == 403 and "is over" in said


def test_tls_itself_refuses_an_expired_certificate(authority: Authority, tmp_path: Path) -> None:
    """With the true clock of this machine: the certificate was made two days ago."""
    past = SmallHub(authority, lambda: time.time() - 2 * DAY_S)
    pump = enrol(past.url, authority.issue_token("pump-7", now=past.clock()), tmp_path / "device")
    past.close()
    present = SmallHub(authority)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        visit(present, pump.client_context(), "/as/pump-7")
    present.close()


def test_a_revoked_device_is_out_at_its_next_request(hub: SmallHub, enrolled: Enrolled) -> None:
    """The command line revokes in another process; the connection stands."""
    pump, valve = enrolled("pump-7"), enrolled("valve-1")
    with Visit(hub, pump.client_context()) as connection:
        assert connection.ask("/as/pump-7")[0] == 200
        elsewhere = Authority.load(hub.authority.folder)
        assert elsewhere.revoke(device="pump-7", now=time.time()) == 1
        elsewhere.close()
        status, said = connection.ask("/as/pump-7")
    assert status == 403 and "revoked" in said
    with pytest.raises(CertificateRefusedError, match="revoked"):
        renew(pump)
    assert visit(hub, valve.client_context(), "/as/valve-1") == (200, "valve-1")


def test_one_certificate_can_be_revoked_by_its_number(hub: SmallHub, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    hub.authority.revoke(serial=serial_text(pump.certificate), now=time.time())
    assert visit(hub, pump.client_context(), "/as/pump-7")[0] == 403


def test_a_revoked_device_may_enrol_again_with_a_new_token(hub: SmallHub, enrolled: Enrolled, tmp_path: Path) -> None:
    old = enrolled("pump-7")
    withdrawn = hub.authority.issue_token("pump-7", now=time.time())
    hub.authority.revoke(device="pump-7", now=time.time())
    with pytest.raises(EnrolmentRefusedError, match="withdrawn"):
        enrol(hub.url, withdrawn, tmp_path / "again")
    assert hub.authority.is_revoked("pump-7")
    fresh = enrol(hub.url, hub.authority.issue_token("pump-7", now=time.time()), tmp_path / "again")
    assert not hub.authority.is_revoked("pump-7")
    assert visit(hub, fresh.client_context(), "/as/pump-7")[0] == 200
    assert visit(hub, old.client_context(), "/as/pump-7")[0] == 403


def test_another_devices_certificate_is_refused(hub: SmallHub, enrolled: Enrolled) -> None:
    valve = enrolled("valve-1")
    status, said = visit(hub, valve.client_context(), "/as/pump-7")
    assert status == 403 and "'valve-1', not of 'pump-7'" in said


def test_an_identity_claimed_in_a_header_is_nothing(hub: SmallHub, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    proof = "".join(pump.certificate_file.read_text().split("\n"))
    claims = f"X-Client-Cert: {proof}\r\nX-SSL-Client-Cert: {proof}\r\nX-Forwarded-Client-Cert: {proof}\r\n"
    claims += "X-SSL-Client-Verify: SUCCESS\r\nX-Device: pump-7\r\n"
    nobody = believing(hub.authority.certificates_pem().decode())
    status, said = visit(hub, nobody, "/as/pump-7", claims)
    assert status == 403 and "no certificate was shown" in said
    valve = enrolled("valve-1")
    assert visit(hub, valve.client_context(), "/as/pump-7", claims)[0] == 403


def test_renewal_makes_a_new_key_and_a_new_certificate(hub: SmallHub, enrolled: Enrolled) -> None:
    old = enrolled("pump-7")
    new = renew(old)
    assert new.certificate.serial_number != old.certificate.serial_number
    assert new.signer.key_id != old.signer.key_id
    assert visit(hub, new.client_context(), "/as/pump-7") == (200, "pump-7")
    assert visit(hub, old.client_context(), "/as/pump-7") == (200, "pump-7")  # what is under way goes on
    batch = old.signer.sign(b"signed before the rotation")
    assert hub.authority.verify(old.signer.key_id, b"signed before the rotation", batch)
    assert hub.authority.device_of(old.signer.key_id) == "pump-7"


def test_renewal_is_left_until_it_is_due(hub: SmallHub, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    now = time.time()
    assert renew_if_due(pump, now + 0.5 * DAY_S) is pump
    assert renew_if_due(pump, now + 0.7 * DAY_S).certificate != pump.certificate


def test_two_processes_renew_once(hub: SmallHub, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    other_process = load_identity(pump.folder)
    assert renew(pump).certificate == renew(other_process).certificate


def test_a_device_that_was_away_for_months_comes_back(hub: SmallHub, enrolled: Enrolled, clock: Clock) -> None:
    pump = enrolled("pump-7")
    clock.ahead_s = 200 * DAY_S
    hub.close()
    later = SmallHub(hub.authority, clock)
    assert visit(later, pump.client_context(clock_synced=False), "/as/pump-7")[0] == 403
    new = renew(pump, clock(), clock_synced=False, url=later.url)  # the hub has moved, too
    assert new.hub == later.url
    peer = hub.authority.verify_peer(ssl.PEM_cert_to_DER_cert(to_pem(new.certificate).decode()), clock())
    assert peer.device == "pump-7" and peer.not_after > clock()
    later.close()


def test_proof_by_another_key_renews_nothing(hub: SmallHub, enrolled: Enrolled) -> None:
    """Somebody shows the certificate of a device, which is no secret, and signs with a key of their own."""
    pump, valve = enrolled("pump-7"), enrolled("valve-1")
    (valve.files / "certificate.pem").write_bytes(pump.certificate_file.read_bytes())
    with pytest.raises(EnrolmentRefusedError, match="does not vouch"):
        renew(load_identity(valve.folder))


def test_a_captive_portal_is_no_hub(hub: SmallHub, enrolled: Enrolled, tmp_path: Path) -> None:
    pump = enrolled("pump-7")
    token = hub.authority.issue_token("valve-1", now=time.time())
    hub.is_portal = True
    with pytest.raises(HubUnreachableError, match="something else answers"):
        renew(pump)
    with pytest.raises(HubUnreachableError, match="something else answers"):
        enrol(hub.url, token, tmp_path / "valve")
    hub.is_portal = False
    assert enrol(hub.url, token, tmp_path / "valve").device == "valve-1"


def test_an_operator_is_no_device(hub: SmallHub, tmp_path: Path) -> None:
    token = hub.authority.issue_token("ann", role="operator", now=time.time())
    ann = enrol(hub.url, token, tmp_path / "ann")
    der = ssl.PEM_cert_to_DER_cert(ann.certificate_file.read_text())
    assert hub.authority.verify_peer(der, time.time()).operator == "ann"
    assert visit(hub, ann.client_context(), "/as/ann")[0] == 403


def test_a_clock_of_1970_can_enrol_and_connect(hub: SmallHub, tmp_path: Path) -> None:
    token = hub.authority.issue_token("pump-7", now=time.time())
    pump = enrol(hub.url, token, tmp_path / "device", now=1000.0)
    assert visit(hub, pump.client_context(now=1000.0), "/as/pump-7")[0] == 200


def test_the_authority_is_replaced_without_losing_a_device(hub: SmallHub, enrolled: Enrolled, tmp_path: Path) -> None:
    pump, valve = enrolled("pump-7"), enrolled("valve-1")
    authority = hub.authority
    authority.rotate(time.time())
    assert sorted(authority.left_behind(time.time())) == ["pump-7", "valve-1"]
    pump = renew(pump)
    assert authority.left_behind(time.time()) == ["valve-1"]
    assert pump.authority_file.read_text().count("BEGIN CERTIFICATE") == 2
    second = SmallHub(authority)
    assert visit(second, pump.client_context(), "/as/pump-7")[0] == 200
    assert visit(second, valve.client_context(), "/as/valve-1")[0] == 200
    second.close()
    authority.finish_rotation()
    third = SmallHub(authority)
    assert visit(third, pump.client_context(), "/as/pump-7")[0] == 200
    with pytest.raises(ssl.SSLError):
        visit(third, valve.client_context(), "/as/valve-1")
    third.close()
    assert read_certificate(authority.certificates_pem()) == read_certificate(
        pump.authority_file.read_bytes().split(b"-----END CERTIFICATE-----\n", 1)[1]
    )
