"""The four questions that a hub answers for its authority, over any HTTP server.

=====================  ==========================================  =======================================
``GET /v1/ca``                                                     ``{authority, hub, trust_domain}``
``GET /v1/nonce``                                                  ``{nonce}``
``POST /v1/enrol``     ``{token, csr}``                            ``{certificate, authority, hub}``
``POST /v1/renew``     ``{certificate, csr, nonce, proof}`` [1]_  ``{certificate, authority, hub}``
=====================  ==========================================  =======================================

.. [1] and ``session: true`` for a certificate that can renew nothing itself: for the key on the disk of a device whose
   own key is in a chip.

Certificates and requests are PEM text, ``proof`` is base64 of 64 bytes. A refusal is 403, what cannot be read 400, and
trouble of the authority itself 503, each with ``{error, kind, hint}``. No client certificate is asked for: a newcomer
has none, and one who was away for months has one that TLS refuses.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from skerry.spec.errors import CertificateRefusedError, EnrolmentRefusedError, HubError, SkerryError, TrustError
from skerry.trust.authority import Authority
from skerry.trust.messages import AuthorityAnswer, EnrolRequest, NonceAnswer, Refusal, RenewRequest

LARGEST_BODY = 65536
"""Bytes of a request; a renewal has about 2,000."""


class Answer(NamedTuple):
    """A status of HTTP and a body of JSON."""

    status: int
    body: bytes


PATHS = {"/v1/ca": "GET", "/v1/nonce": "GET", "/v1/enrol": "POST", "/v1/renew": "POST"}
"""Every path with its method."""


def answer(authority: Authority, method: str, path: str, body: bytes, now: float) -> Answer:
    """Answer one request to a path of :data:`PATHS`; never raises.

    Parameters
    ----------
    authority:
        Who decides.
    method, path, body:
        The request, without its query.
    now:
        Seconds since 1970.
    """
    if PATHS.get(path) != method:
        known = path in PATHS
        return _refused(405 if known else 404, TrustError(f"{path} takes {PATHS[path]}" if known else "no such path"))
    if len(body) > LARGEST_BODY:
        return _refused(413, TrustError(f"a request has at most {LARGEST_BODY} bytes"))
    try:
        return Answer(200, msgspec.json.encode(_decided(authority, path, body, now)))
    except (msgspec.MsgspecError, RecursionError) as error:  # the latter for brackets in brackets in brackets
        return _refused(400, TrustError(f"the request cannot be read: {error}"))
    except (EnrolmentRefusedError, CertificateRefusedError) as error:
        return _refused(403, error)
    except (TrustError, HubError) as error:
        return _refused(503, error)


def _decided(authority: Authority, path: str, body: bytes, now: float) -> AuthorityAnswer | NonceAnswer:
    if path == "/v1/nonce":
        return NonceAnswer(authority.nonce(now))
    certificate = b""
    if path == "/v1/enrol":
        wanted = msgspec.json.decode(body, type=EnrolRequest)
        certificate = authority.enrol(wanted.token, wanted.csr.encode(), now)
    elif path == "/v1/renew":
        again = msgspec.json.decode(body, type=RenewRequest)
        certificate = authority.renew(
            again.certificate.encode(), again.csr.encode(), again.proof, again.nonce, now, session=again.session
        )
    return AuthorityAnswer(
        certificate=certificate.decode("ascii"), authority=authority.certificates_pem().decode("ascii"),
        hub=authority.hub, trust_domain=authority.trust_domain,
    )  # fmt: skip


def _refused(status: int, error: SkerryError) -> Answer:
    return Answer(status, msgspec.json.encode(Refusal(error.message, type(error).__name__, error.hint)))
