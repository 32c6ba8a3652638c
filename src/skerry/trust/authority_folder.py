"""The folder of an authority: its settings and its signing keys.

::

    authority/           0700
    ├── authority.json   0600: trust domain, the hub's URL and names, which key signs what
    ├── ca-1f0c2a91.pem  0600: a signing key and its certificate
    ├── hub.pem          0600: the hub's own key and certificate of today
    └── ledger.db        0600: tokens, certificates and revocations
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from skerry.spec.errors import CertificateRefusedError, IdentityMissingError, TrustError
from skerry.trust.certificate import (
    ends,
    host_names,
    issued_by,
    new_authority,
    read_certificate,
    server_certificate,
    starts,
    to_pem,
)
from skerry.trust.folder import alone, read_private, state_folder, write_private
from skerry.trust.keys import key_id, new_key, private_pem, public_der, read_key

SETTINGS, LEDGER, HUB_PAIR = "authority.json", "ledger.db", "hub.pem"
AUTHORITY_LIFE_S = 20 * 365.25 * 86400.0
"""Longer than devices are in the field: an authority is replaced by `skerry keys rotate`, not by a date."""
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_BACKDATE_S = 86400.0
"""A device whose clock is up to a day behind believes an authority that was made now."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``authority.json`` says.

    ``signing`` lists the files of the signing keys, oldest first: the first one signs the hub's certificate (which
    every device believes, those away for months too), the last one those of devices.
    """

    trust_domain: str
    hub: str
    names: tuple[str, ...]
    signing: tuple[str, ...]
    nonce_key: bytes


class SigningPair(NamedTuple):
    """A key that signs certificates, and its own certificate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def key_id(self) -> bytes:
        """The identifier of the public key."""
        return key_id(public_der(self.key.public_key()))


class Material(NamedTuple):
    """All of the folder that signs and checks."""

    settings: Settings
    pairs: tuple[SigningPair, ...]

    @property
    def for_hub(self) -> SigningPair:
        """The pair that signs the certificate of the hub."""
        return self.pairs[0]

    @property
    def for_clients(self) -> SigningPair:
        """The pair that signs the certificates of devices and operators."""
        return self.pairs[-1]

    @property
    def certificates(self) -> list[x509.Certificate]:
        """The certificates of all pairs, oldest first."""
        return [pair.certificate for pair in self.pairs]


def default_authority_folder() -> Path:
    """Return ``$SKERRY_AUTHORITY``, else ``skerry/authority`` in ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    return state_folder("SKERRY_AUTHORITY", "authority")


def add_signing_pair(folder: Path, trust_domain: str, now: float) -> str:
    """Make a signing key with its certificate, and return the name of its file; nothing refers to it yet."""
    key = new_key()
    certificate = new_authority(
        key, trust_domain=trust_domain, not_before=now - _BACKDATE_S, not_after=now + AUTHORITY_LIFE_S
    )
    name = f"ca-{secrets.token_hex(4)}.pem"
    write_private(folder / name, private_pem(key) + to_pem(certificate))
    return name


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the settings whole."""
    write_private(folder / SETTINGS, msgspec.json.format(msgspec.json.encode(settings), indent=2))


def read_material(folder: Path) -> Material:
    """Read settings and signing keys.

    Raises
    ------
    IdentityMissingError
        There is no authority in this folder.
    TrustError
        A file is damaged or missing, or others may read it.
    """
    path = folder / SETTINGS
    if not path.exists():
        raise IdentityMissingError(
            "there is no authority here", where=str(folder), hint="skerry keys init --hub https://NAME:PORT makes one"
        )
    try:
        settings = msgspec.json.decode(read_private(path), type=Settings)
    except msgspec.MsgspecError as error:
        raise TrustError(f"the authority's settings are damaged: {error}", where=str(path)) from error
    return Material(settings, tuple(_read_pair(folder / name) for name in settings.signing))


def _read_pair(path: Path) -> SigningPair:
    return SigningPair(read_certificate(read_private(path), where=str(path)), read_key(path))


def hub_pair(
    folder: Path, material: Material, names: Sequence[str], now: float, *, life_s: float, backdate_s: float
) -> Path:
    """Return the file with key and certificate of the hub, made again when it is due or for other names.

    The caller holds the folder alone.
    """
    path, pair = folder / HUB_PAIR, material.for_hub
    hosts = tuple(dict.fromkeys((*material.settings.names, *names, *_LOCAL_NAMES)))
    if not _serves(path, hosts, pair, now):
        key = new_key()
        certificate = server_certificate(
            pair.certificate, pair.key, key.public_key(), hosts,
            not_before=now - max(backdate_s, _BACKDATE_S), not_after=min(now + life_s, ends(pair.certificate)),
        )  # fmt: skip
        write_private(path, private_pem(key) + to_pem(certificate))
    return path


def _serves(path: Path, hosts: Sequence[str], pair: SigningPair, now: float) -> bool:
    """Tell whether the hub's certificate is there, for these names, by this authority, and not due yet."""
    try:
        certificate = read_certificate(path.read_bytes())
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (OSError, CertificateRefusedError, ValueError, x509.ExtensionNotFound):
        return False
    begin, end = starts(certificate), ends(certificate)
    in_time = begin <= now < begin + (end - begin) * 2 / 3
    return in_time and names == host_names(hosts) and issued_by(certificate, [pair.certificate]) is not None


def begin_rotation(folder: Path, now: float) -> None:
    """Add a signing key for devices; raises ``TrustError`` when that was done already."""
    with alone(folder):
        settings = read_material(folder).settings
        if len(settings.signing) > 1:
            raise TrustError("the authority is being rotated already", hint="skerry keys rotate --finish ends it")
        fresh = add_signing_pair(folder, settings.trust_domain, now)
        write_settings(folder, msgspec.structs.replace(settings, signing=(*settings.signing, fresh)))


def end_rotation(folder: Path) -> None:
    """Forget every signing key but the newest, and delete the others; raises ``TrustError`` when there is one only."""
    with alone(folder):
        settings = read_material(folder).settings
        if len(settings.signing) < 2:
            raise TrustError("no rotation is under way", hint="skerry keys rotate begins one")
        write_settings(folder, msgspec.structs.replace(settings, signing=settings.signing[-1:]))
        for old in settings.signing[:-1]:
            (folder / old).unlink(missing_ok=True)


def host_of(url: str) -> str:
    """Return the host of a hub's URL; raises ``TrustError`` for what is none."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme == "https" and host and not parts.query and not parts.fragment:
        return host
    raise TrustError(
        f"{url!r} is no address of a hub", expected="https://NAME:PORT, as devices reach it",
        hint="for a hub on this machine only, nothing has to be made: loopback needs no keys",
    )  # fmt: skip
