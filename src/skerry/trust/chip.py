"""A key in a chip (TPM, secure element, smart card) behind PKCS #11: it signs there, and nobody can copy it.

Named by a URI of RFC 7512, such as::

    pkcs11:token=skerry;object=device?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/skerry/pin
"""

from __future__ import annotations

import functools
import threading
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from skerry.spec.errors import DependencyError, TrustError
from skerry.spec.ports import Signer
from skerry.trust.folder import read_private
from skerry.trust.keys import SIGNATURE_BYTES, key_id, public_der, require_p256

_SHAPE = "pkcs11:token=NAME;object=NAME?module-path=/path/of/module.so&pin-source=/path/of/pin"

_ONE_AT_A_TIME = threading.Lock()
"""A session of PKCS #11 does one thing at a time, and the keys of a token share one."""


class ChipAddress(NamedTuple):
    """Where a key is: the module (a shared library), the token in it, the label of the key, and the PIN."""

    module: Path
    token: str
    label: str
    pin: str | None


def read_address(uri: str) -> ChipAddress:
    """Take a PKCS #11 URI apart, and read the PIN where it names a file.

    Raises
    ------
    TrustError
        It is none, something in it is missing or not known, or others may read the file of the PIN.
    """
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    words = [word for part, mark in ((path, ";"), (query, "&")) for word in part.split(mark) if word]
    found = {name: unquote(value) for name, _, value in (word.partition("=") for word in words)}
    unknown = found.keys() - {"token", "object", "type", "module-path", "pin-source", "pin-value"}
    if not uri.startswith("pkcs11:") or unknown or not all(map(found.get, ("token", "object", "module-path"))):
        raise TrustError(f"{uri.partition('pin-value')[0]!r} does not name a key in a chip", expected=_SHAPE)
    pin = found.get("pin-value")
    if "pin-source" in found:
        pin = read_private(Path(found["pin-source"].removeprefix("file:"))).decode().strip()
    return ChipAddress(Path(found["module-path"]), found["token"], found["object"], pin)


class ChipKey(Signer):
    """A private key that stays in its chip; safe to use from several threads, one signature at a time.

    Parameters
    ----------
    uri:
        Names the key.
    make:
        Whether to make the key when there is none: on P-256, never to be read out.

    Raises
    ------
    DependencyError
        python-pkcs11 is not installed.
    TrustError
        The module, the token or the key is not there, the PIN is wrong, or the key is of another kind.
    """

    def __init__(self, uri: str, *, make: bool = False) -> None:
        self._address = read_address(uri)
        self._library = _library()
        with _ONE_AT_A_TIME:
            try:
                self._session = _session(self._address.module, self._address.token, self._address.pin)
                self._private = self._find(make)
            except (self._library.PKCS11Error, RuntimeError) as error:
                self._fail(error)
        self.public_key = self._read_public()
        """DER, SubjectPublicKeyInfo."""
        self._key_id = key_id(self.public_key)

    def _find(self, make: bool) -> Any:
        kinds = self._library.constants.ObjectClass
        try:
            return self._session.get_key(object_class=kinds.PRIVATE_KEY, label=self._address.label)
        except self._library.NoSuchKey:
            if not make:
                raise
        from pkcs11.util.ec import encode_named_curve_parameters  # type: ignore[import-not-found,unused-ignore]

        curve = {self._library.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        domain = self._session.create_domain_parameters(self._library.KeyType.EC, curve, local=True)
        _, private = domain.generate_keypair(store=True, label=self._address.label)
        return private

    def _read_public(self) -> bytes:
        from pkcs11.util.ec import encode_ec_public_key

        kinds = self._library.constants.ObjectClass
        with _ONE_AT_A_TIME:
            try:
                public = self._session.get_key(object_class=kinds.PUBLIC_KEY, label=self._address.label)
                return public_der(require_p256(serialization.load_der_public_key(encode_ec_public_key(public))))
            except (self._library.PKCS11Error, ValueError) as error:
                self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        place = f"{self._address.module}, token {self._address.token!r}, key {self._address.label!r}"
        raise TrustError(
            f"the key in the chip cannot be used: {type(error).__name__} {error}".rstrip(), where=place,
            hint="is the token set up, the PIN right, and may this user use the chip?",
        ) from error  # fmt: skip

    @property
    def key_id(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the public key."""
        return self._key_id

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes r || s; raises ``TrustError`` when the chip is gone."""
        digest = hashes.Hash(hashes.SHA256())
        digest.update(message)
        with _ONE_AT_A_TIME:
            try:
                signature = self._private.sign(digest.finalize(), mechanism=self._library.Mechanism.ECDSA)
            except self._library.PKCS11Error as error:
                _session.cache_clear()  # it was unplugged or reset: the next key begins anew
                self._fail(error)
        return bytes(signature)

    @cached_property
    def for_requests(self) -> ec.EllipticCurvePrivateKey:
        """The key in the form that a request for a certificate is signed with."""
        return _Opaque(self)


class _Opaque(ec.EllipticCurvePrivateKey):
    """A private key of cryptography that can sign and nothing else."""

    def __init__(self, chip: ChipKey) -> None:
        self._chip = chip

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return a signature in DER, over SHA-256 whatever is asked for."""
        raw, half = self._chip.sign(bytes(data)), SIGNATURE_BYTES // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return require_p256(serialization.load_der_public_key(self._chip.public_key))

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        """256 bits."""
        return self.curve.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Refuse: the chip signs."""
        raise TypeError("a key in a chip signs, and does nothing else")

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """Refuse: it stays in the chip."""
        raise TypeError("a key in a chip cannot be read")

    def private_bytes(
        self, encoding: serialization.Encoding, format: serialization.PrivateFormat,  # noqa: A002 - the name it has
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:  # fmt: skip
        """Refuse: it stays in the chip."""
        raise TypeError("a key in a chip cannot be read")

    def __copy__(self) -> _Opaque:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Opaque:
        return self


@functools.lru_cache(maxsize=8)
def _session(module: Path, token: str, pin: str | None) -> Any:
    """Return the session of this process with a token: logging in counts for the process, and so does logging out."""
    library = _library()
    found = library.lib(str(module)).get_token(token_label=token)
    try:
        return found.open(user_pin=pin, rw=True)
    except library.UserAlreadyLoggedIn:
        return found.open(rw=True)
    except library.TokenWriteProtected:
        return found.open(user_pin=pin)


def _library() -> Any:
    try:
        import pkcs11  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise DependencyError(
            "a key in a chip needs the package python-pkcs11", hint="pip install 'skerry[chip]'"
        ) from error
    return pkcs11
