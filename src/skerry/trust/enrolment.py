"""Enrolment as a device does it: a token becomes a certificate, and a certificate a newer one.

A device's clock may be wrong and its power may go at any moment: the key is on disk before anybody certifies it, and
key and certificate change together.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from skerry.spec.errors import CertificateRefusedError, IdentityMissingError, TrustError
from skerry.trust.certificate import (
    clock_may_judge,
    ends,
    fingerprint,
    issued_by,
    read_certificate,
    read_certificates,
    signing_request,
    spiffe_of,
    starts,
    to_pem,
)
from skerry.trust.chip import ChipKey
from skerry.trust.folder import alone, make_private, sweep, write_private
from skerry.trust.identity import (
    AUTHORITY,
    CARD,
    CERTIFICATE,
    KEY,
    LASTING,
    Card,
    Identity,
    default_folder,
    install,
    load_identity,
)
from skerry.trust.keys import KeySigner, new_key, private_pem, public_der, read_key, require_p256
from skerry.trust.messages import AuthorityAnswer, EnrolRequest, NonceAnswer, RenewRequest
from skerry.trust.nonce import renewal_message
from skerry.trust.questions import Questions, ask_unverified
from skerry.trust.tls import believing
from skerry.trust.token import EnrolmentToken, read_token

DUE = 2 / 3
"""The share of a certificate's life after which it is renewed: 8 of 24 h are left to try again."""
_SPREAD = 0.1
"""Devices that were enrolled in one minute renew over a tenth of the life before that, not in one minute."""


def is_due(certificate: x509.Certificate, now: float) -> bool:
    """Tell whether a certificate is to be renewed at ``now``, in seconds since 1970; one that is over is."""
    begin, end = starts(certificate), ends(certificate)
    share = DUE - _SPREAD * (certificate.serial_number % 1024) / 1024
    return now >= begin + (end - begin) * share


def enrol(
    url: str, token: str, folder: Path | None = None, *, now: float | None = None, clock_synced: bool | None = None,
    again: bool = False, chip: str = "",
) -> Identity:  # fmt: skip
    """Turn a token into an identity on disk.

    May be repeated with the same token after a lost answer or a power cut: the key is kept until then.

    Parameters
    ----------
    url:
        The hub, where it is not the one that the token names; else empty.
    token:
        The string that `skerry keys token` printed.
    folder:
        Where the identity goes, by default :func:`~skerry.trust.identity.default_folder`.
    now:
        Seconds since 1970, by default this clock's. One that shows a time before the token was made is not believed.
    clock_synced:
        Whether the clock was synchronised; ``None`` for unknown.
    again:
        Whether an identity that is there may be replaced.
    chip:
        The PKCS #11 URI of a key in a chip, which is made there when it is missing: it then renews the certificate.

    Raises
    ------
    EnrolmentRefusedError
        The token is none, or the hub does not take it.
    CertificateRefusedError
        Whoever answers is not the hub of the token.
    HubUnreachableError
        Nobody answers, or somebody else does.
    TrustError
        This device is enrolled already, or its folder cannot be used.
    """
    told = read_token(token)
    home = make_private(default_folder() if folder is None else folder)
    moment = time.time() if now is None else now
    with alone(home):
        _require_free(home, again=again)
        key, pending = _first_key(home, told, chip)
        hub = url or told.hub
        pinned = _pinned_authority(hub, told)
        judges = clock_synced is not False and moment >= told.issued
        with Questions(hub, believing(to_pem(pinned).decode("ascii"), judges_time=judges)) as ask:
            request = EnrolRequest(token, signing_request(key).decode("ascii"))
            answer = ask.post("/v1/enrol", request, AuthorityAnswer)
            _require_ours(answer, key, told.role, told.name)
            new = _Certified(answer, key) if pending else _session(ask, answer, ChipKey(chip), told.role, told.name)
        _install(home, new, hub=url or answer.hub, chip=chip)
        for left in home.glob("pending-*.pem"):
            left.unlink(missing_ok=True)
        sweep(home, "pending-*.pem")
    return load_identity(home)


class _Certified(NamedTuple):
    """What a hub answered, the key that it certified, and the lasting certificate of a key in a chip."""

    answer: AuthorityAnswer
    key: ec.EllipticCurvePrivateKey
    lasting: str = ""


def _first_key(home: Path, token: EnrolmentToken, chip: str) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """Return the key to be certified, the same after a power cut, and whether it is on the disk."""
    if chip:
        return ChipKey(chip, make=True).for_requests, False
    pending = home / f"pending-{token.digest().hex()[:16]}.pem"
    if not pending.exists():
        write_private(pending, private_pem(new_key()))
    return read_key(pending), True


def _require_free(home: Path, *, again: bool) -> None:
    """Raise ``TrustError`` when there is an identity that a hub vouches for."""
    try:
        there = load_identity(home)
    except IdentityMissingError:
        return
    if there.has_certificate and not again:
        raise TrustError(
            f"this device is enrolled already, as {there.device!r} at {there.hub}", where=str(home),
            hint="`skerry enroll --again TOKEN` replaces that identity",
        )  # fmt: skip


def _pinned_authority(hub: str, token: EnrolmentToken) -> x509.Certificate:
    """Ask the hub for its authority, believing nothing, and return the one that the token names."""
    answer = ask_unverified(hub, "/v1/ca", AuthorityAnswer)
    for certificate in read_certificates(answer.authority.encode()):
        if fingerprint(certificate) == token.fingerprint:
            return certificate
    raise CertificateRefusedError(
        "the hub that answers is not the one that the token was made for: its authority is another one", where=hub,
        hint="is the address right? Somebody may be in between; if the authority was made anew, ask for a new token",
    )  # fmt: skip


def renew_if_due(identity: Identity, now: float | None = None, *, clock_synced: bool | None = None) -> Identity:
    """Return the identity, renewed where two thirds of its certificate's life are over.

    A device whose clock is behind does not know that it is due: call :func:`renew` when the hub refuses the
    certificate. Raises as :func:`renew` does.
    """
    moment = time.time() if now is None else now
    if not is_due(identity.certificate, moment):
        return identity
    return renew(identity, moment, clock_synced=clock_synced)


def renew(identity: Identity, now: float | None = None, *, clock_synced: bool | None = None, url: str = "") -> Identity:
    """Get a new certificate for a new key, by proof of the old one, however long the certificate has been over.

    Where another process has renewed meanwhile, its result is returned.

    Parameters
    ----------
    identity:
        As it was loaded.
    now:
        Seconds since 1970, by default this clock's.
    clock_synced:
        Whether the clock was synchronised; ``None`` for unknown.
    url:
        Where the hub is from now on, when it has moved; else empty.

    Raises
    ------
    CertificateRefusedError
        The certificate was revoked, or whoever answers is not our hub.
    EnrolmentRefusedError
        The hub does not take the proof.
    HubUnreachableError
        Nobody answers, or somebody else does.
    IdentityMissingError
        There is no certificate to renew.
    """
    moment = time.time() if now is None else now
    with alone(identity.folder):
        current = load_identity(identity.folder)
        if current.files != identity.files and not url:
            return current
        old = current.certificate
        judges = clock_may_judge(old, moment, clock_synced)
        context = believing(current.authority_file.read_text(encoding="ascii"), judges_time=judges)
        with Questions(url or current.hub, context) as ask:
            if current.key:
                chip = ChipKey(current.key)
                lasting = read_certificate((current.files / LASTING).read_bytes())
                answer = _prove(ask, to_pem(lasting), chip, chip.for_requests)
                _require_ours(answer, chip.for_requests, current.role, current.device)
                new = _session(ask, answer, chip, current.role, current.device)
            else:
                key = new_key()
                new = _Certified(_prove(ask, to_pem(old), current.signer, key), key)
                _require_ours(new.answer, key, current.role, current.device)
        _install(current.folder, new, hub=url or current.hub, chip=current.key)
    return load_identity(identity.folder)


def _prove(
    ask: Questions, certificate_pem: bytes, signer: KeySigner | ChipKey, key: ec.EllipticCurvePrivateKey,
    *, session: bool = False,
) -> AuthorityAnswer:  # fmt: skip
    """Get a certificate for a key, by proof that we hold the key of an older certificate."""
    request = signing_request(key)
    nonce = ask.get("/v1/nonce", NonceAnswer).nonce
    proof = signer.sign(renewal_message(nonce, request))
    wanted = RenewRequest(certificate_pem.decode("ascii"), request.decode("ascii"), nonce, proof, session)
    return ask.post("/v1/renew", wanted, AuthorityAnswer)


def _session(ask: Questions, lasting: AuthorityAnswer, chip: ChipKey, role: str, name: str) -> _Certified:
    """Get the certificate of a key for TLS, which a chip cannot serve, by the certificate of the key in the chip."""
    key = new_key()
    answer = _prove(ask, lasting.certificate.encode(), chip, key, session=True)
    _require_ours(answer, key, role, name)
    return _Certified(answer, key, lasting.certificate)


def _require_ours(answer: AuthorityAnswer, key: ec.EllipticCurvePrivateKey, role: str, name: str) -> None:
    """Raise ``CertificateRefusedError`` for a new certificate that is not for our key and our name."""
    certificate = read_certificate(answer.certificate.encode())
    who = spiffe_of(certificate)
    if issued_by(certificate, read_certificates(answer.authority.encode())) is None:
        raise CertificateRefusedError("the hub sent a certificate that its authority did not make")
    certified = public_der(require_p256(certificate.public_key()))
    if (who.role, who.name) != (role, name) or certified != public_der(key.public_key()):
        raise CertificateRefusedError("the hub sent a certificate of somebody else, or for another key")


def _install(home: Path, new: _Certified, *, hub: str, chip: str) -> None:
    who = spiffe_of(read_certificate(new.answer.certificate.encode()))
    card = Card(device=who.name, trust_domain=who.trust_domain, role=who.role, hub=hub.rstrip("/"), key=chip)
    files = {
        CARD: msgspec.json.encode(card), KEY: private_pem(new.key), CERTIFICATE: new.answer.certificate.encode(),
        AUTHORITY: new.answer.authority.encode(),
    }  # fmt: skip
    install(home, files | ({LASTING: new.lasting.encode()} if new.lasting else {}))
