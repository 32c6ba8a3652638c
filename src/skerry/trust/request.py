"""A request for a certificate (CSR, PKCS #10): the key that it brings, and who it claims to be."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from skerry.spec.errors import EnrolmentRefusedError, TrustError
from skerry.trust.keys import require_p256
from skerry.trust.names import SpiffeId, parse_spiffe

_LARGEST = 16384
"""Bytes of a request; one with a key on P-256 has 400."""

_UNREADABLE = (
    ValueError, TrustError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What a request can be wrong in; some of it is no ``ValueError``."""


def read_request(csr_pem: bytes) -> tuple[ec.EllipticCurvePublicKey, SpiffeId | None]:
    """Return the key of a request, and who the request claims to be; raises ``EnrolmentRefusedError``."""
    try:
        request = x509.load_pem_x509_csr(csr_pem[:_LARGEST])
        key = require_p256(request.public_key())  # before its signature: those of huge keys take long to check
        whole = request.is_signature_valid
        names = [name for extension in request.extensions for name in _uris(extension.value)]
        claimed = parse_spiffe(names[0]) if names else None
    except _UNREADABLE as error:
        raise EnrolmentRefusedError(f"the request for a certificate cannot be read: {error}") from error
    if not whole or len(names) > 1:
        raise EnrolmentRefusedError("the request for a certificate is not signed by its own key, or names several")
    return key, claimed


def _uris(extension: x509.ExtensionType) -> list[str]:
    if isinstance(extension, x509.SubjectAlternativeName):
        return extension.get_values_for_type(x509.UniformResourceIdentifier)
    return []


def require_own(claimed: SpiffeId | None, who: SpiffeId) -> None:
    """Raise ``EnrolmentRefusedError`` when a request claims to be somebody else than its sender."""
    if claimed is not None and claimed != who:
        raise EnrolmentRefusedError(f"the request claims to be {claimed}, and comes from {who}")
