"""Messages between a device and the authority of its hub: what the JSON of each holds."""

from __future__ import annotations

import msgspec


class EnrolRequest(msgspec.Struct, frozen=True):
    """What ``POST /v1/enrol`` takes."""

    token: str
    csr: str


class RenewRequest(msgspec.Struct, frozen=True):
    """What ``POST /v1/renew`` takes; with ``session`` the new certificate can renew nothing itself."""

    certificate: str
    csr: str
    nonce: str
    proof: bytes
    session: bool = False


class AuthorityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub says of its authority, and what it certifies."""

    authority: str
    hub: str
    trust_domain: str
    certificate: str = ""


class NonceAnswer(msgspec.Struct, frozen=True):
    """What ``GET /v1/nonce`` answers."""

    nonce: str


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no answer: the message, the name of the error's class and what to do."""

    error: str
    kind: str = ""
    hint: str = ""
