"""Keys: ECDSA over P-256, their identifiers, their signatures, and the rings that check them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from skerry.spec.errors import DependencyError, TrustError
from skerry.spec.ports import Signer
from skerry.trust.folder import read_private

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
except ImportError as error:
    raise DependencyError(
        "keys and certificates need the package cryptography", hint="pip install 'skerry[identity]'"
    ) from error

SIGNATURE_BYTES = 64
"""r || s, 32 bytes each, big-endian (the form of JWS and of most chips; DER would add 6 to 8 bytes)."""
_HALF = SIGNATURE_BYTES // 2
_ALGORITHM = ec.ECDSA(hashes.SHA256())


def key_id(public_key_der: bytes) -> bytes:
    """Return the 8 bytes that name a public key (DER, SubjectPublicKeyInfo): the beginning of its SHA-256."""
    return hashlib.sha256(public_key_der).digest()[:8]


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as DER, SubjectPublicKeyInfo (91 bytes)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, PKCS #8, without a passphrase: a device starts up alone."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Raises
    ------
    TrustError
        Others may read the file, it is damaged, or it holds another kind of key.
    """
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError) as error:
        raise TrustError(f"the key cannot be read: {error}", where=str(path), expected="a key in PEM") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise TrustError("the key is of another kind", where=str(path), expected="an ECDSA key on P-256")


def require_p256(key: object) -> ec.EllipticCurvePublicKey:
    """Return a public key as what it must be; raises ``TrustError`` for another algorithm or curve."""
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise TrustError("the key is of another kind", expected="an ECDSA key on P-256")


def raw_signature(der: bytes) -> bytes:
    """Return r || s of a signature in DER."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")


def vouches(public_key_der: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a public key (DER) vouches for a message with the 64 bytes r || s.

    ECDSA over P-256 and SHA-256 (FIPS 186-5, section 6.4). A signature of another length and a key of another kind
    vouch for nothing; nothing is raised.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    der = encode_dss_signature(int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big"))
    try:
        require_p256(serialization.load_der_public_key(public_key_der)).verify(der, message, _ALGORITHM)
    except (InvalidSignature, ValueError, TrustError):
        return False
    return True


class KeySigner(Signer):
    """Signs with a private key in memory."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public_key = public_der(key.public_key())
        """DER, SubjectPublicKeyInfo."""
        self._key_id = key_id(self.public_key)

    @property
    def key_id(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the public key."""
        return self._key_id

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes r || s."""
        return raw_signature(self._key.sign(message, _ALGORITHM))


class KeyRing:
    """Public keys by their identifier: a ``Verify`` for whoever holds the keys in memory, such as a hub on loopback.

    >>> ring = KeyRing()
    >>> signer = KeySigner(new_key())
    >>> ring.add(signer.public_key) == signer.key_id
    True
    >>> ring(signer.key_id, b"a batch", signer.sign(b"a batch"))
    True
    >>> ring(signer.key_id, b"another", signer.sign(b"a batch"))
    False
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, bytes] = {}

    def add(self, public_key_der: bytes) -> bytes:
        """Trust a public key (DER) and return its identifier; raises ``TrustError`` for one that is none."""
        try:
            require_p256(serialization.load_der_public_key(public_key_der))
        except ValueError as error:
            raise TrustError(f"this is no public key: {error}", expected="DER, SubjectPublicKeyInfo") from error
        name = key_id(public_key_der)
        self._keys[name] = public_key_der
        return name

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __call__(self, key_id: bytes, message: bytes, signature: bytes, /) -> bool:
        """Tell whether the key is known and vouches for the message."""
        known = self._keys.get(key_id)
        return known is not None and vouches(known, message, signature)
