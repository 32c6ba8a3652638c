"""Names of those who are trusted: device ids, trust domains, and the SPIFFE ids made of both.

Source: the SPIFFE ID specification of the SPIFFE project (``spiffe://trust-domain/path``).
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from skerry.spec.errors import CertificateRefusedError, TrustError

Role = Literal["device", "operator"]
ROLES: tuple[Role, ...] = ("device", "operator")

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?")


class SpiffeId(NamedTuple):
    """Who holds a certificate: ``spiffe://<trust domain>/<role>/<name>``."""

    trust_domain: str
    role: Role
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.role}/{self.name}"


def parse_spiffe(text: str) -> SpiffeId:
    """Take a SPIFFE id apart.

    Raises
    ------
    CertificateRefusedError
        The text is none, or names neither a device nor an operator.
    """
    domain, _, path = text.removeprefix("spiffe://").partition("/")
    role, _, name = path.partition("/")
    for known in ROLES:
        if role == known and text.startswith("spiffe://") and _DOMAIN.fullmatch(domain) and _NAME.fullmatch(name):
            return SpiffeId(domain, known, name)
    raise CertificateRefusedError(
        f"{text!r} names no device and no operator", expected="spiffe://<trust domain>/device/<device id>"
    )


def checked_name(name: str, *, role: Role = "device") -> str:
    """Return a device id or an operator's name as it came.

    Raises
    ------
    TrustError
        It is not made of small letters, digits and inner dashes, at most 63 of them (a DNS label, RFC 1123).
    """
    if _NAME.fullmatch(name):
        return name
    near = re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")
    raise TrustError(
        f"{name!r} cannot be the name of {'a device' if role == 'device' else 'an operator'}",
        expected="1 to 63 of a-z, 0-9 and dashes inside, such as pump-7",
        hint=f"{near!r} would do" if near else "",
    )


def checked_domain(domain: str) -> str:
    """Return a trust domain as it came; raises ``TrustError`` for one that SPIFFE does not take."""
    if _DOMAIN.fullmatch(domain):
        return domain
    raise TrustError(
        f"{domain!r} cannot be a trust domain", expected="a-z, 0-9, dots and dashes, such as fleet.example.org"
    )
