"""Identities on disk: who may read them, and what a power cut leaves."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.spec.errors import IdentityMissingError, TrustError
from skerry.trust.enrolment import is_due, renew
from skerry.trust.identity import Identity, default_folder, load_identity, loopback_identity
from skerry.trust.keys import KeyRing
from tests.trust.small_hub import SmallHub, visit

Enrolled = Callable[[str], Identity]


class PowerCut(BaseException):
    """Ends the process in the middle of a step: nothing tidies up behind it."""


def modes(folder: Path) -> dict[str, int]:
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_nobody_else_can_read_it(hub: SmallHub, enrolled: Enrolled) -> None:
    before = os.umask(0)
    try:
        pump = enrolled("pump-7")
        found = modes(pump.folder) | modes(hub.authority.folder)
    finally:
        os.umask(before)
    assert all(mode == (0o700 if Path(path).is_dir() else 0o600) for path, mode in found.items()), found


def test_loopback_needs_no_ceremony(tmp_path: Path) -> None:
    first = loopback_identity(tmp_path / "identity", "pump-7")
    again = loopback_identity(tmp_path / "identity", "pump-7")
    ring = KeyRing()
    assert ring.add(first.public_key) == again.signer.key_id
    assert ring(again.signer.key_id, b"batch", again.signer.sign(b"batch"))
    assert not ring(again.signer.key_id, b"changed", again.signer.sign(b"batch"))
    assert not first.has_certificate
    with pytest.raises(IdentityMissingError, match="no certificate"):
        first.client_context()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    made = loopback_identity(tmp_path / "identity", "pump-7")
    made.key_file.chmod(0o644)
    with pytest.raises(TrustError, match="may read this secret") as refused:
        load_identity(tmp_path / "identity")
    assert "chmod 600" in refused.value.hint


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    made = loopback_identity(tmp_path / "identity", "pump-7")
    made.folder.chmod(0o777)
    with pytest.raises(TrustError, match="may write into this folder"):
        load_identity(tmp_path / "identity")


def test_a_folder_that_cannot_be_made_or_changed_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrustError, match="cannot be made"):
        loopback_identity(tmp_path / "file" / "identity", "pump-7")
    made = loopback_identity(tmp_path / "identity", "pump-7")
    (made.folder / ".lock").unlink()
    (made.folder / ".lock").mkdir()
    with pytest.raises(TrustError, match="cannot be changed"):
        loopback_identity(tmp_path / "identity", "pump-7")


@pytest.mark.parametrize("damage", [b"", b"rubbish", b'{"device": 7}'])
def test_a_damaged_identity_is_told(tmp_path: Path, damage: bytes) -> None:
    made = loopback_identity(tmp_path / "identity", "pump-7")
    (made.files / "identity.json").write_bytes(damage)
    with pytest.raises(TrustError, match="damaged"):
        load_identity(made.folder)


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    made = loopback_identity(tmp_path / "identity", "pump-7")
    made.key_file.write_bytes(b"rubbish")
    with pytest.raises(TrustError, match="key cannot be read"):
        _ = load_identity(made.folder).signer


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKERRY_IDENTITY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "skerry" / "identity"
    monkeypatch.setenv("SKERRY_IDENTITY", str(tmp_path / "mine"))
    with pytest.raises(IdentityMissingError, match="not enrolled"):
        load_identity()
    loopback_identity(tmp_path / "mine", "pump-7")
    assert load_identity().device == "pump-7"


def cut_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the power before the given write, rename, link or fsync."""
    left = [step]

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **named: object) -> object:
            if not left[0]:
                raise PowerCut
            left[0] -= 1
            return real(*words, **named)

        return call

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "symlink_to"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, counting(getattr(owner, name)))


def test_a_power_cut_at_any_step_of_a_renewal_leaves_a_working_pair(hub: SmallHub, enrolled: Enrolled) -> None:
    pump = enrolled("pump-7")
    cuts = 0
    while True:
        with pytest.MonkeyPatch.context() as patch:
            cut_at(cuts, patch)
            try:
                renew(pump)
            except PowerCut:
                cuts += 1
            else:
                break
        pump = load_identity(pump.folder)
        pump.client_context()  # raises where key and certificate do not go together
    assert cuts > 10
    last = load_identity(pump.folder)
    assert visit(hub, last.client_context(), "/as/pump-7") == (200, "pump-7")
    assert len(list(last.folder.glob("g-*"))) <= 2


def test_a_full_disk_keeps_the_old_pair(hub: SmallHub, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    pump = enrolled("pump-7")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TrustError, match="No space left"):
            renew(pump)
    assert load_identity(pump.folder).certificate == pump.certificate
    assert not [path for path in pump.folder.rglob("*") if path.name.startswith(".key")]


def test_renewals_of_a_fleet_are_spread(hub: SmallHub, enrolled: Enrolled) -> None:
    """Due between 57 and 67 % of the life, each certificate at its own moment, and always when it is over."""
    certificate = enrolled("pump-7").certificate
    begin = certificate.not_valid_before_utc.timestamp()
    life = certificate.not_valid_after_utc.timestamp() - begin
    assert not is_due(certificate, begin + 0.56 * life)
    assert is_due(certificate, begin + 0.67 * life)
    assert is_due(certificate, time.time() + 365 * 86400.0)
