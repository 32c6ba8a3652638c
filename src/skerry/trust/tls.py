"""TLS 1.3 in which both ends prove who they are: the contexts of a device and of a hub."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skerry.spec.errors import TrustError
from skerry.trust.folder import read_private

if TYPE_CHECKING:
    from skerry.trust.authority import Authority
    from skerry.trust.identity import Identity

_NO_CHECK_TIME = 0x200000
"""``X509_V_FLAG_NO_CHECK_TIME`` of OpenSSL, for which Python's ssl has no name."""


def client_context(identity: Identity, *, clock_synced: bool | None = None, now: float | None = None) -> ssl.SSLContext:
    """Return the context of a device: see :meth:`skerry.trust.identity.Identity.client_context`."""
    from skerry.trust.certificate import clock_may_judge

    certificate = identity.certificate
    judges = clock_may_judge(certificate, time.time() if now is None else now, clock_synced)
    context = believing(identity.authority_file.read_text(encoding="ascii"), judges_time=judges)
    read_private(identity.key_file)
    _load(context, identity.certificate_file, identity.key_file)
    return context


def believing(authorities_pem: str, *, judges_time: bool = True) -> ssl.SSLContext:
    """Return the context of a client that believes these authorities only (PEM), and has no certificate yet.

    With ``judges_time=False`` the dates of certificates are not looked at.

    Raises
    ------
    TrustError
        The text holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # demands a certificate, and that it names the host
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False  # a device may be called as a host is
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if not judges_time:
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    try:
        context.load_verify_locations(cadata=authorities_pem)
    except (ssl.SSLError, ValueError) as error:
        raise TrustError(f"the authority's certificate cannot be used: {error}") from error
    return context


def server_context(authority: Authority, names: Sequence[str] = (), *, now: float | None = None) -> ssl.SSLContext:
    """Return the context of a hub: TLS 1.3 only, with a certificate of ``authority`` for its host names.

    A client without a certificate gets in, for enrolment and renewal; whoever serves must ask
    :meth:`~skerry.trust.authority.Authority.verify_peer` with the certificate of the connection
    (``getpeercert(binary_form=True)``) for everything else, at every request: that is what knows of revocation.
    A client with a forged or an expired certificate does not get through the handshake.

    Parameters
    ----------
    authority:
        Who vouches for the hub, and whom its clients must show a certificate of.
    names:
        Host names and addresses by which clients reach the hub, besides those the authority knows.
    now:
        Seconds since 1970, by default the wall clock's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.num_tickets = 0  # a resumed session would carry on with what has expired since
    refresh_server_context(context, authority, names, now=now)
    return context


def refresh_server_context(
    context: ssl.SSLContext, authority: Authority, names: Sequence[str] = (), *, now: float | None = None
) -> None:
    """Give a running hub's context its certificate of today and the authorities of today; call it every hour or so.

    New connections use them; those that are open go on.
    """
    moment = time.time() if now is None else now
    pair = authority.server_certificate(names, moment)
    context.load_verify_locations(cadata=authority.certificates_pem().decode("ascii"))
    _load(context, pair, pair)


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise TrustError(f"the certificate and its key do not go together: {error}", where=str(certificate)) from error
