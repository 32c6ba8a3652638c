"""A device whose key is in a chip: SoftHSM, a PKCS #11 module in software, stands in for the chip."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.spec.errors import EnrolmentRefusedError, TrustError
from skerry.trust.certificate import read_certificate, signing_request, to_pem
from skerry.trust.chip import ChipKey, read_address
from skerry.trust.enrolment import enrol, renew
from skerry.trust.keys import KeySigner, new_key, vouches
from skerry.trust.nonce import renewal_message
from tests.trust.small_hub import SmallHub, visit

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
PIN = "12345678"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Set up a token and return the beginning of the URIs of its keys."""
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("softhsm2 is not installed: make system-deps")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    folder = tmp_path_factory.mktemp("chip")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    (folder / "pin").write_text(f"{PIN}\n")
    (folder / "pin").chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        for label in ("skerry", "locked"):
            command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN]
            subprocess.run(command, check=True, capture_output=True)
        yield f"pkcs11:token=skerry;object=KEY?module-path={module}&pin-source={folder / 'pin'}"


def test_it_signs_what_anybody_can_check(place: str) -> None:
    uri = place.replace("KEY", "signing")
    made = ChipKey(uri, make=True)
    again = ChipKey(uri)
    assert made.public_key == again.public_key and len(made.key_id) == 8
    assert vouches(made.public_key, b"batch", again.sign(b"batch"))
    assert not vouches(made.public_key, b"other", again.sign(b"batch"))


def test_a_device_lives_on_it(place: str, hub: SmallHub, tmp_path: Path) -> None:
    uri = place.replace("KEY", "pump-7")
    pump = enrol(hub.url, hub.authority.issue_token("pump-7", now=time.time()), tmp_path / "identity", chip=uri)
    assert visit(hub, pump.client_context(), "/as/pump-7") == (200, "pump-7")
    lasting = read_certificate((pump.files / "lasting.pem").read_bytes())
    new = renew(pump)
    assert visit(hub, new.client_context(), "/as/pump-7") == (200, "pump-7")
    assert new.signer.key_id != pump.signer.key_id
    assert read_certificate((new.files / "lasting.pem").read_bytes()).public_key() == lasting.public_key()
    assert hub.authority.members(time.time())[0].twins == 0


def test_what_a_thief_finds_on_the_disk_cannot_be_renewed(place: str, hub: SmallHub, tmp_path: Path) -> None:
    """The key on the disk serves for TLS until tomorrow; only the chip can ask for more."""
    uri = place.replace("KEY", "valve-1")
    valve = enrol(hub.url, hub.authority.issue_token("valve-1", now=time.time()), tmp_path / "identity", chip=uri)
    now, request = time.time(), signing_request(new_key())
    nonce = hub.authority.nonce(now)
    proof = valve.signer.sign(renewal_message(nonce, request))
    with pytest.raises(EnrolmentRefusedError, match="cannot renew itself"):
        hub.authority.renew(to_pem(valve.certificate), request, proof, nonce, now)
    lasting = (valve.files / "lasting.pem").read_bytes()
    with pytest.raises(EnrolmentRefusedError, match="does not vouch"):
        hub.authority.renew(lasting, request, KeySigner(new_key()).sign(renewal_message(nonce, request)), nonce, now)
    proof = ChipKey(uri).sign(renewal_message(nonce, request))
    assert hub.authority.renew(lasting, request, proof, nonce, now)


def test_a_key_or_a_token_that_is_not_there(place: str) -> None:
    with pytest.raises(TrustError, match="cannot be used"):
        ChipKey(place.replace("KEY", "no-such-key"))
    with pytest.raises(TrustError, match="cannot be used"):
        ChipKey(place.replace("token=skerry", "token=other"))
    with pytest.raises(TrustError, match="cannot be used"):
        ChipKey("pkcs11:token=skerry;object=x?module-path=/no/such/module.so")
    with pytest.raises(TrustError, match="cannot be used"):
        ChipKey(f"{place.partition('&')[0].replace('skerry', 'locked')}&pin-value=wrong")


@pytest.mark.parametrize(
    "uri", ["", "file:key", "pkcs11:", "pkcs11:token=a", "pkcs11:token=a;object=b", "pkcs11:token=a;objct=b?x=y"]
)
def test_what_names_no_key(uri: str) -> None:
    with pytest.raises(TrustError, match="does not name a key"):
        read_address(uri)


def test_the_pin_is_a_secret(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("1234\n")
    (tmp_path / "pin").chmod(0o600)
    uri = f"pkcs11:token=a%20b;object=c?module-path=/m.so&pin-source=file:{tmp_path / 'pin'}"
    assert read_address(uri) == (Path("/m.so"), "a b", "c", "1234")
    (tmp_path / "pin").chmod(0o644)
    with pytest.raises(TrustError, match="may read this secret"):
        read_address(uri)
