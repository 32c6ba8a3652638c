"""Certificates: how they are made and read, and the checks that need nothing but the certificate itself."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence

from skerry.spec.errors import CertificateRefusedError, DependencyError, TrustError
from skerry.trust.names import SpiffeId, parse_spiffe

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise DependencyError(
        "keys and certificates need the package cryptography", hint="pip install 'skerry[identity]'"
    ) from error

_USAGE = {
    "content_commitment": False, "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
    "encipher_only": False, "decipher_only": False,
}  # fmt: skip
_LARGEST_PEM = 65536
_SESSION = "session"
"""The unit in the subject of a certificate that must not renew itself."""


def moment(seconds: float) -> datetime.datetime:
    """Return seconds since 1970 as the kind of time that certificates hold (whole seconds, UTC)."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def starts(certificate: x509.Certificate) -> float:
    """Return from when a certificate counts, in seconds since 1970."""
    return certificate.not_valid_before_utc.timestamp()


def ends(certificate: x509.Certificate) -> float:
    """Return until when a certificate counts, in seconds since 1970."""
    return certificate.not_valid_after_utc.timestamp()


def to_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def to_der(certificate: x509.Certificate) -> bytes:
    """Return a certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Return the 32 bytes of the SHA-256 of the whole certificate (DER)."""
    return hashlib.sha256(to_der(certificate)).digest()


def serial_text(certificate: x509.Certificate) -> str:
    """Return the serial number as people write it: hex digits."""
    return f"{certificate.serial_number:x}"


def read_certificate(data: bytes, *, where: str = "") -> x509.Certificate:
    """Read the first certificate of a PEM text.

    Raises
    ------
    CertificateRefusedError
        There is none in it, or it is damaged.
    """
    return read_certificates(data, where=where)[0]


def read_certificates(data: bytes, *, where: str = "") -> list[x509.Certificate]:
    """Read every certificate of a PEM text; raises ``CertificateRefusedError`` when there is none or one is damaged."""
    try:
        if len(data) > _LARGEST_PEM:
            raise ValueError(f"larger than {_LARGEST_PEM} bytes")
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateRefusedError(
            f"the certificate cannot be read: {error}", where=where, expected="a certificate in PEM"
        ) from error


def new_authority(
    key: ec.EllipticCurvePrivateKey, *, trust_domain: str, not_before: float, not_after: float
) -> x509.Certificate:
    """Make the certificate of an authority, signed by itself; it may vouch for leaves only (path length 0)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Skerry authority of {trust_domain}"[:64])])
    builder = _builder(name, name, key.public_key(), not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(
        x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **_USAGE), critical=True
    )
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def client_certificate(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey,
    who: SpiffeId, *, not_before: float, not_after: float, session: bool = False,
) -> x509.Certificate:  # fmt: skip
    """Make the certificate of a device or an operator: it may prove who they are to a server, and nothing else.

    With ``session`` it says that it must not renew itself.
    """
    names = [x509.UniformResourceIdentifier(str(who))]
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    unit = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _SESSION)] if session else []
    subject = x509.Name([*unit, x509.NameAttribute(NameOID.COMMON_NAME, who.name)])
    return _leaf(authority, authority_key, public_key, subject, names, usage, not_before, not_after)


def server_certificate(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey,
    hosts: Sequence[str], *, not_before: float, not_after: float,
) -> x509.Certificate:  # fmt: skip
    """Make the certificate of a hub for its host names and addresses; it may be no client."""
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    return _leaf(authority, authority_key, public_key, subject, host_names(hosts), usage, not_before, not_after)


def host_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """Return names and addresses as a certificate holds them; raises ``TrustError`` for one that is neither."""
    return [_host_name(host) for host in hosts]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except (UnicodeError, ValueError) as error:
        raise TrustError(f"{host!r} is no name of a host", expected="a DNS name or an IP address") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, not_before: float, not_after: float
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    try:
        return builder.not_valid_before(moment(not_before)).not_valid_after(moment(not_after))
    except (ValueError, OverflowError, OSError) as error:
        raise TrustError(
            f"no certificate can be made at this time: {error}",
            hint="is the clock right? An authority that is over is replaced by `skerry keys rotate`",
        ) from error


def _leaf(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey,
    subject: x509.Name, alternatives: Iterable[x509.GeneralName], usage: x509.ObjectIdentifier,
    not_before: float, not_after: float,
) -> x509.Certificate:  # fmt: skip
    builder = _builder(subject, authority.subject, public_key, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(
        x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **_USAGE), critical=True
    )
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )
    return builder.add_extension(issuer, critical=False).sign(authority_key, hashes.SHA256())


def issued_by(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """Return the authority whose key signed a certificate, or ``None``: then it is forged, or of another fleet."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return authority
    return None


def spiffe_of(certificate: x509.Certificate) -> SpiffeId:
    """Return who a client certificate is for.

    Raises
    ------
    CertificateRefusedError
        It is not for clients, may sign others, or names nobody or several.
    """
    try:
        extensions = certificate.extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except (
        x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError
    ) as error:  # fmt: skip
        raise CertificateRefusedError(f"this is no certificate of a device: {error}") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if constraints.ca or ExtendedKeyUsageOID.CLIENT_AUTH not in usage or len(uris) != 1:
        raise CertificateRefusedError("this is no certificate of a device: it was made for something else")
    return parse_spiffe(uris[0])


def is_session(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate must not renew itself: the key in a chip renews it."""
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return any(unit.value == _SESSION for unit in units)


def signing_request(signer_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a request for a certificate (CSR, PKCS #10) in PEM; it names nobody: the authority knows who asks."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(signer_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def clock_may_judge(certificate: x509.Certificate | None, now: float, synced: bool | None) -> bool:
    """Tell whether this clock can tell if somebody else's certificate is over.

    It cannot when it was never synchronised (``synced`` is ``False``), nor when it shows a time before our own
    certificate was made: then it is behind for sure. ``None`` stands for unknown.
    """
    behind = certificate is not None and now < starts(certificate)
    return synced is not False and not behind
