"""An operator: a person who reads what the hub has, with curl or a browser, by a certificate in some files."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from skerry.spec.errors import TrustError
from skerry.trust.authority import Authority
from skerry.trust.certificate import ends, read_certificate, read_certificates
from skerry.trust.folder import make_private, write_private
from skerry.trust.keys import new_key, private_pem
from skerry.trust.names import checked_name

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that are mistaken for one another."""
_GROUPS, _GROUP = 4, 5


class Operator(NamedTuple):
    """A person's key and certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    authorities: list[x509.Certificate]

    @property
    def until(self) -> float:
        """When the certificate is over, in seconds since 1970."""
        return ends(self.certificate)


class OperatorFiles(NamedTuple):
    """Where they are, in PEM."""

    authority: Path
    certificate: Path
    key: Path


def make_operator(
    authority: Authority, name: str, folder: Path, *, life_s: float, now: float
) -> tuple[Operator, OperatorFiles]:
    """Make a key and a certificate for a person and write them into a private folder, in place of older ones.

    Parameters
    ----------
    authority:
        Who vouches.
    name:
        The person; whoever had a certificate of this name before is out.
    folder:
        Where the files go; made when missing.
    life_s:
        How long the certificate counts, in seconds.
    now:
        Seconds since 1970.

    Raises
    ------
    TrustError
        A bad name, a life that is too long, or a folder that cannot be used.
    """
    checked_name(name, role="operator")  # before it becomes part of a path
    home = make_private(folder)
    files = OperatorFiles(home / "authority.pem", home / "certificate.pem", home / "key.pem")
    write_private(files.authority, authority.certificates_pem())  # finds out whether files can be written at all
    key = new_key()
    certificate = authority.certify_operator(name, key.public_key(), life_s, now)
    write_private(files.key, private_pem(key))
    write_private(files.certificate, certificate)
    authorities = read_certificates(authority.certificates_pem())
    return Operator(name, key, read_certificate(certificate), authorities), files


def write_pkcs12(operator: Operator, path: Path) -> str:
    """Write key and certificate as one file for a browser (PKCS #12), and return the password that it was given.

    Raises
    ------
    TrustError
        The file cannot be written.
    """
    password = "-".join("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    if path.is_dir():
        raise TrustError("this is a folder", where=str(path), expected="the name of a file, such as ann.p12")
    content = serialize_key_and_certificates(
        f"{operator.name} (Skerry)".encode(), operator.key, operator.certificate, operator.authorities,
        BestAvailableEncryption(password.encode()),
    )  # fmt: skip
    write_private(path, content)
    return password
