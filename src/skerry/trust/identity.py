"""The identity of a device: its key, its certificate and whom it believes, in a private folder.

The folder holds generations, and ``current`` points to the one in use::

    identity/            0700
    ├── current          -> g-5f0c2a91
    ├── g-5f0c2a91/      what belongs together, written whole before anything points to it
    │   ├── identity.json    device id, trust domain, the hub's URL
    │   ├── key.pem          0600
    │   ├── certificate.pem  of that key; absent for a hub on loopback
    │   ├── lasting.pem      the certificate of the key in the chip, where there is one
    │   └── authority.pem    whom the device believes
    └── g-0b7de144/      the one before, for a process that still has its paths

So a power cut at any moment leaves a key and a certificate that go together.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from skerry.spec.errors import IdentityMissingError, TrustError
from skerry.trust.folder import alone, make_private, point, read_private, state_folder, sweep, write_private
from skerry.trust.names import Role, checked_name

if TYPE_CHECKING:
    from cryptography import x509

    from skerry.trust.keys import KeySigner

CARD, KEY, CERTIFICATE, AUTHORITY = "identity.json", "key.pem", "certificate.pem", "authority.pem"
LASTING = "lasting.pem"
LOOPBACK_DOMAIN = "loopback"
"""The trust domain of an identity that only a hub on the same machine believes."""
_CURRENT = "current"
_TRIES = 10
"""A generation may be removed while it is read, when another process renews twice: then there is a newer one."""
_TO_ENROL = "ask whoever runs the hub for a token (`skerry keys token NAME`), then: skerry enroll TOKEN"


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What ``identity.json`` says.

    ``key`` is empty, or the PKCS #11 URI (RFC 7512) of a key in a chip: that one then renews the certificate, and the
    key in the file beside, which is made anew each time, is of no use when its certificate is over.
    """

    device: str
    trust_domain: str
    role: Role = "device"
    hub: str = ""
    key: str = ""


@dataclass(frozen=True)
class Identity:
    """Who this device is, as read from a folder at one moment; rotation makes another one.

    Parameters
    ----------
    device:
        The device id, or the name of an operator.
    trust_domain:
        Of the fleet it belongs to.
    folder:
        The folder of the identity.
    files:
        The generation in it that this one was read from.
    role:
        ``device`` or ``operator``.
    hub:
        The URL of the hub; empty on loopback.
    key:
        Empty, or the PKCS #11 URI of the key in a chip that renews the certificate.
    """

    device: str
    trust_domain: str
    folder: Path
    files: Path
    role: Role = "device"
    hub: str = ""
    key: str = ""

    @property
    def certificate_file(self) -> Path:
        """The certificate in PEM; it fits :attr:`key_file` whenever both are taken from one ``Identity``."""
        return self.files / CERTIFICATE

    @property
    def key_file(self) -> Path:
        """The private key in PEM, readable by its owner only."""
        return self.files / KEY

    @property
    def authority_file(self) -> Path:
        """The certificates of the authority that the device believes, in PEM."""
        return self.files / AUTHORITY

    @cached_property
    def signer(self) -> KeySigner:
        """What vouches for batches.

        Raises
        ------
        TrustError
            The key is damaged, or others may read it.
        """
        from skerry.trust.keys import KeySigner, read_key

        return KeySigner(read_key(self.key_file))

    @property
    def public_key(self) -> bytes:
        """The public key as DER, SubjectPublicKeyInfo: what a hub on loopback is shown at first use."""
        return self.signer.public_key

    @property
    def has_certificate(self) -> bool:
        """Whether an authority vouches for this identity; on loopback none does."""
        return self.certificate_file.is_file()

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The certificate.

        Raises
        ------
        IdentityMissingError
            There is none: this identity is for a hub on loopback.
        """
        from skerry.trust.certificate import read_certificate

        if not self.has_certificate:
            raise IdentityMissingError(
                "this identity has no certificate: only a hub on the same machine takes it",
                where=str(self.folder), hint=_TO_ENROL,
            )  # fmt: skip
        return read_certificate(self.certificate_file.read_bytes(), where=str(self.certificate_file))

    def client_context(self, *, clock_synced: bool | None = None, now: float | None = None) -> ssl.SSLContext:
        """Return a context that proves who we are and believes nobody but our authority: TLS 1.3 only.

        Parameters
        ----------
        clock_synced:
            Whether the wall clock was synchronised; ``None`` for unknown. A clock that is known to be wrong cannot
            tell whether the hub's certificate is over: it is then not asked (name and authority always are).
        now:
            Seconds since 1970, by default the wall clock's.

        Raises
        ------
        IdentityMissingError
            There is no certificate.
        TrustError
            A file is damaged, or others may read the key.
        """
        from skerry.trust.tls import client_context

        return client_context(self, clock_synced=clock_synced, now=now)


def default_folder() -> Path:
    """Return ``$SKERRY_IDENTITY``, else ``skerry/identity`` in ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    return state_folder("SKERRY_IDENTITY", "identity")


def load_identity(folder: Path | None = None) -> Identity:
    """Read the identity of this device.

    Raises
    ------
    IdentityMissingError
        It was never enrolled, or files are gone.
    TrustError
        A file is damaged, or others may read or replace the key.
    """
    home = default_folder() if folder is None else folder
    link = home / _CURRENT
    if not link.is_dir():
        raise IdentityMissingError("this device is not enrolled", where=str(home), hint=_TO_ENROL)
    make_private(home)
    for _ in range(_TRIES):
        files = link.resolve()
        try:
            return _read(home, files)
        except IdentityMissingError:
            if link.resolve() == files:
                raise
    raise TrustError("the identity changes faster than it can be read", where=str(home))


def _read(home: Path, files: Path) -> Identity:
    """Read one generation; raises ``IdentityMissingError`` where it was removed meanwhile."""
    try:
        card = msgspec.json.decode(read_private(files / CARD), type=Card)
    except msgspec.MsgspecError as error:
        raise TrustError(f"the identity is damaged: {error}", where=str(files / CARD), hint=_TO_ENROL) from error
    read_private(files / KEY)  # a key that others may read is refused before it is used
    return Identity(card.device, card.trust_domain, home, files, card.role, card.hub, card.key)


def loopback_identity(folder: Path, device: str) -> Identity:
    """Return an identity for a hub on the same machine, which trusts its key at first use; made when first asked for.

    Parameters
    ----------
    folder:
        Where its key is kept.
    device:
        The device id; another one may be given next time, the key stays.

    Raises
    ------
    TrustError
        A bad device id, or a folder that cannot be used.
    """
    from skerry.trust.keys import new_key, private_pem

    checked_name(device)
    make_private(folder)
    with alone(folder):
        if not (folder / _CURRENT).is_dir():
            card = Card(device=device, trust_domain=LOOPBACK_DOMAIN)
            install(folder, {KEY: private_pem(new_key()), CARD: msgspec.json.encode(card)})
    found = load_identity(folder)
    return Identity(device, found.trust_domain, folder, found.files, found.role, found.hub, found.key)


def install(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a generation and point ``current`` to it; the caller holds :func:`alone`.

    Raises
    ------
    TrustError
        It cannot be written (no space, no right): the generation before stays in use.
    """
    generation = folder / f"g-{secrets.token_hex(4)}"
    before = (folder / _CURRENT).resolve().name
    try:
        make_private(generation)
        for name, content in files.items():
            write_private(generation / name, content)
        point(folder / _CURRENT, generation.name)
    except TrustError:
        shutil.rmtree(generation, ignore_errors=True)
        raise
    _forget(folder, {generation.name, before})


def _forget(folder: Path, kept: set[str]) -> None:
    """Remove older generations and broken links; what cannot be removed is left for the next time."""
    sweep(folder, _CURRENT)
    for old in folder.glob("g-*"):
        if old.name not in kept:
            with contextlib.suppress(OSError):
                shutil.rmtree(old)
