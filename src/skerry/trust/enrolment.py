"""Enrolment as a device does it: a token becomes a certificate, and a certificate a newer one.

A device's clock may be wrong and its power may go at any moment: the key is on disk before anybody certifies it, and
key and certificate change together.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from cryptography import x509

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
from skerry.trust.folder import alone, make_private, write_private
from skerry.trust.identity import (
    AUTHORITY,
    CARD,
    CERTIFICATE,
    KEY,
    Card,
    Identity,
    default_folder,
    install,
    load_identity,
)
from skerry.trust.keys import new_key, private_pem, public_der, read_key, require_p256
from skerry.trust.messages import AuthorityAnswer, EnrolRequest, NonceAnswer, RenewRequest
from skerry.trust.names import SpiffeId
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
    again: bool = False,
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
        pending = home / f"pending-{told.digest().hex()[:16]}.pem"
        if not pending.exists():
            write_private(pending, private_pem(new_key()))
        key = read_key(pending)
        hub = url or told.hub
        pinned = _pinned_authority(hub, told)
        context = believing(
            to_pem(pinned).decode("ascii"), judges_time=clock_synced is not False and moment >= told.issued
        )
        with Questions(hub, context) as ask:
            request = EnrolRequest(token, signing_request(key).decode("ascii"))
            answer = ask.post("/v1/enrol", request, AuthorityAnswer)
        who = _require_ours(answer, public_der(key.public_key()), told.role, told.name)
        _install(home, answer, who, private_pem(key), hub=url or answer.hub)
        for left in home.glob("pending-*.pem"):
            left.unlink(missing_ok=True)
    return load_identity(home)


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


def renew(identity: Identity, now: float | None = None, *, clock_synced: bool | None = None) -> Identity:
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
        if current.files != identity.files:
            return current
        old = current.certificate
        judges = clock_may_judge(old, moment, clock_synced)
        context = believing(current.authority_file.read_text(encoding="ascii"), judges_time=judges)
        key = new_key()
        with Questions(current.hub, context) as ask:
            request = signing_request(key)
            nonce = ask.get("/v1/nonce", NonceAnswer).nonce
            proof = current.signer.sign(renewal_message(nonce, request))
            wanted = RenewRequest(to_pem(old).decode("ascii"), request.decode("ascii"), nonce, proof)
            answer = ask.post("/v1/renew", wanted, AuthorityAnswer)
        who = _require_ours(answer, public_der(key.public_key()), current.role, current.device)
        _install(current.folder, answer, who, private_pem(key), hub=current.hub)
    return load_identity(identity.folder)


def _require_ours(answer: AuthorityAnswer, key: bytes, role: str, name: str) -> SpiffeId:
    """Return who a new certificate is for, after it is found to be for our key and our name."""
    certificate = read_certificate(answer.certificate.encode())
    who = spiffe_of(certificate)
    if issued_by(certificate, read_certificates(answer.authority.encode())) is None:
        raise CertificateRefusedError("the hub sent a certificate that its authority did not make")
    if (who.role, who.name) != (role, name) or public_der(require_p256(certificate.public_key())) != key:
        raise CertificateRefusedError("the hub sent a certificate of somebody else, or for another key")
    return who


def _install(home: Path, answer: AuthorityAnswer, who: SpiffeId, key_pem: bytes, *, hub: str) -> None:
    card = Card(device=who.name, trust_domain=who.trust_domain, role=who.role, hub=hub.rstrip("/"))
    install(home, {
        CARD: msgspec.json.encode(card), KEY: key_pem, CERTIFICATE: answer.certificate.encode(),
        AUTHORITY: answer.authority.encode(),
    })  # fmt: skip
