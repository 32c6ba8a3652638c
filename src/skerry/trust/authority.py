"""The private certificate authority of a fleet: it says who is a device of ours, for a day at a time."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from skerry.spec.errors import CertificateRefusedError, EnrolmentRefusedError, TrustError
from skerry.spec.words import did_you_mean
from skerry.trust.authority_folder import (
    LEDGER,
    SETTINGS,
    Material,
    Settings,
    add_signing_pair,
    begin_rotation,
    default_authority_folder,
    end_rotation,
    host_of,
    hub_pair,
    read_material,
    write_settings,
)
from skerry.trust.authority_options import AuthorityOptions
from skerry.trust.certificate import (
    client_certificate,
    ends,
    fingerprint,
    is_session,
    issued_by,
    read_certificate,
    serial_text,
    spiffe_of,
    starts,
    to_der,
    to_pem,
)
from skerry.trust.folder import alone, make_private
from skerry.trust.keys import key_id, public_der, require_p256, vouches
from skerry.trust.ledger import Entry, Ledger, Member
from skerry.trust.names import Role, SpiffeId, checked_domain, checked_name
from skerry.trust.nonce import is_fresh, new_nonce, renewal_message
from skerry.trust.peer import Peer
from skerry.trust.request import read_request, require_own
from skerry.trust.token import new_token, read_token

_REMEMBERED_CERTIFICATES = 4096
"""Certificates whose signature was checked and need not be again: about 1 kB each."""
_WRITTEN = 1_760_000_000.0
"""October 2025: a clock that shows an earlier time is wrong for sure."""


class Authority:
    """Vouches for devices and operators, and for the hub. Safe to use from several threads and processes.

    Made by :meth:`init` or :meth:`load`. Every time is given in seconds since 1970 (``time.time()``). Methods raise
    ``HubError`` while the ledger cannot be read or written.
    """

    def __init__(self, folder: Path, options: AuthorityOptions | None = None) -> None:
        self.folder = folder
        self.options = options or AuthorityOptions()
        self._lock = threading.Lock()
        self._material_of: tuple[int, int] | None = None
        self._material_read: Material | None = None
        self._checked: OrderedDict[bytes, x509.Certificate] = OrderedDict()
        self._material()
        self._ledger = Ledger(folder / LEDGER)

    @classmethod
    def init(
        cls, folder: Path | None, *, hub: str, now: float, trust_domain: str = "", names: Sequence[str] = (),
        options: AuthorityOptions | None = None,
    ) -> Authority:  # fmt: skip
        """Make an authority in a folder.

        Parameters
        ----------
        folder:
            Where; by default ``$SKERRY_AUTHORITY`` or the user's state folder.
        hub:
            The URL by which devices reach the hub, such as ``https://hub.example.org:8443``.
        now:
            Seconds since 1970.
        trust_domain:
            The name of the fleet, by default the host of the hub; it stays when the hub moves.
        names:
            Further names and addresses of the hub.
        options:
            How long things last.

        Raises
        ------
        TrustError
            There is an authority already, the URL is none of ``https``, the clock is years behind, or the folder
            cannot be used.
        """
        home = default_authority_folder() if folder is None else folder
        host = host_of(hub)
        if now < _WRITTEN:
            raise TrustError(
                "the clock of this machine is years behind, and the authority would be over before it is used",
                hint="set the clock (date), then make the authority",
            )  # fmt: skip
        domain = checked_domain(trust_domain or host.lower().replace(":", "-"))
        make_private(home)
        with alone(home):
            if (home / SETTINGS).exists():
                raise TrustError(
                    "there is an authority in this folder already", where=str(home),
                    hint="its key vouches for every device: move the folder away if you mean to begin anew",
                )  # fmt: skip
            settings = Settings(
                trust_domain=domain, hub=hub.rstrip("/"), names=tuple(dict.fromkeys((host, *names))),
                signing=(add_signing_pair(home, domain, now),), nonce_key=secrets.token_bytes(32),
            )  # fmt: skip
            Ledger(home / LEDGER, make=True).close()
            write_settings(home, settings)
        return cls(home, options)

    @classmethod
    def load(cls, folder: Path | None = None, options: AuthorityOptions | None = None) -> Authority:
        """Open the authority of a folder; raises ``IdentityMissingError`` where there is none, else ``TrustError``."""
        home = default_authority_folder() if folder is None else folder
        if home.is_dir():
            make_private(home)
        return cls(home, options)

    def close(self) -> None:
        """Close the ledger; safe to call twice."""
        self._ledger.close()

    def _material(self) -> Material:
        """Return settings and keys, read again when another process has changed them."""
        with self._lock:
            try:
                seen = (self.folder / SETTINGS).stat()
                stamp = (seen.st_mtime_ns, seen.st_ino)
            except OSError:
                stamp = None
            if self._material_read is None or stamp != self._material_of:
                self._material_read, self._material_of = read_material(self.folder), stamp
                self._checked.clear()
            return self._material_read

    @property
    def hub(self) -> str:
        """The URL by which devices reach the hub."""
        return self._material().settings.hub

    @property
    def trust_domain(self) -> str:
        """The name of the fleet."""
        return self._material().settings.trust_domain

    def certificates_pem(self) -> bytes:
        """Return the authority's own certificates in PEM: what devices believe, and ``GET /v1/ca`` answers."""
        return b"".join(to_pem(certificate) for certificate in self._material().certificates)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the certificate that vouches for the hub, in hex, to compare by eye."""
        return fingerprint(self._material().for_hub.certificate).hex()

    # Letting in

    def issue_token(self, name: str, ttl: float = 86400.0, *, role: Role = "device", now: float) -> str:
        """Return a string that makes its first bearer ``name``; it counts for ``ttl`` seconds.

        Raises
        ------
        TrustError
            A bad name, or a time that is too long.
        """
        longest = float(self.options.longest_token_life)
        if not 0 < ttl <= longest:
            raise TrustError("a token cannot last that long", expected=f"at most {longest / 86400:.0f} days")
        material = self._material()
        token = new_token(
            material.settings.hub, fingerprint(material.for_hub.certificate), role, checked_name(name, role=role), now
        )
        self._ledger.add_token(token.digest(), role, name, now, now + ttl)
        return token.text()

    def enrol(self, token: str, csr_pem: bytes, now: float) -> bytes:
        """Return a certificate (PEM) for the bearer of a token; the request's key is all that is taken from it.

        Whoever had this name before is out: one name is one device.

        Raises
        ------
        EnrolmentRefusedError
            The token is unknown, used, expired or withdrawn, or the request is damaged, claims to be somebody else, or
            brings a key that is another's.
        """
        told = read_token(token)
        key, claimed = read_request(csr_pem)
        who = SpiffeId(self.trust_domain, told.role, told.name)
        require_own(claimed, who)
        certificate, entry = self._certified(who, key, now)
        self._ledger.admit(entry, token=told.digest(), keep_s=float(self.options.memory))
        return to_pem(certificate)

    def certify_operator(self, name: str, key: ec.EllipticCurvePublicKey, life_s: float, now: float) -> bytes:
        """Return a certificate (PEM) for the key of a person: no token, and it cannot renew itself.

        Whoever had this name before is out, so that making it again is also how it is replaced.

        Raises
        ------
        TrustError
            A bad name, a life that is too long, or a key that is another's.
        """
        longest = float(self.options.longest_operator_life)
        if not 60 <= life_s <= longest:
            raise TrustError("a certificate cannot last that long", expected=f"1 minute to {longest / 86400:.0f} days")
        who = SpiffeId(self.trust_domain, "operator", checked_name(name, role="operator"))
        certificate, entry = self._certified(who, key, now, life_s=life_s, session=True)
        self._ledger.admit(entry, keep_s=float(self.options.memory))
        return to_pem(certificate)

    def nonce(self, now: float) -> str:
        """Return what a device must sign to renew; the authority need not remember it."""
        return new_nonce(self._material().settings.nonce_key, now)

    def renew(
        self, certificate_pem: bytes, csr_pem: bytes, proof: bytes, nonce: str, now: float, *, session: bool = False
    ) -> bytes:
        """Return a new certificate (PEM) for the holder of an old one, which may be over for months.

        Parameters
        ----------
        certificate_pem:
            The old certificate.
        csr_pem:
            The request with the new key, or again the old one.
        proof:
            The 64 bytes by which the **old** key vouches for :func:`~skerry.trust.nonce.renewal_message`.
        nonce:
            From :meth:`nonce`.
        now:
            Seconds since 1970.
        session:
            Whether the new certificate must not renew itself, because the old key stays and is in a chip.

        Raises
        ------
        CertificateRefusedError
            The old certificate is forged or revoked.
        HubError
            Not so often.
        EnrolmentRefusedError
            The old certificate must not renew itself, the nonce is too old, the proof is wrong, or the request claims
            to be somebody else.
        """
        certificate = self._read_once(to_der(read_certificate(certificate_pem)))
        who = self._holder(certificate)
        if is_session(certificate):
            again = "the key in the device's chip renews it"
            if who.role == "operator":
                again = f"`skerry keys operator {who.name}` makes a new one"
            raise EnrolmentRefusedError("this certificate cannot renew itself", hint=again)
        if not is_fresh(self._material().settings.nonce_key, nonce, now, float(self.options.nonce_life)):
            raise EnrolmentRefusedError("the nonce is too old or not ours", hint="ask for another one and sign that")
        old = public_der(require_p256(certificate.public_key()))
        if not vouches(old, renewal_message(nonce, csr_pem), proof):
            raise EnrolmentRefusedError("the key of the old certificate does not vouch for this request")
        key, claimed = read_request(csr_pem)
        require_own(claimed, who)
        fresh, entry = self._certified(who, key, now, session=session)
        options, before = self.options, serial_text(certificate)
        self._ledger.renew(entry, before, counts=not session, an_hour=options.an_hour, keep_s=float(options.memory))
        return to_pem(fresh)

    def _certified(
        self, who: SpiffeId, key: ec.EllipticCurvePublicKey, now: float, *, life_s: float = 0.0, session: bool = False
    ) -> tuple[x509.Certificate, Entry]:
        """Make a certificate and what is to be noted of it; it may leave this house only once that is noted."""
        pair = self._material().for_clients
        not_after = min(now + (life_s or float(self.options.certificate_life)), ends(pair.certificate))
        if now >= not_after:
            raise TrustError("the authority is over", hint="is the clock right? Then: skerry keys rotate")
        certificate = client_certificate(
            pair.certificate, pair.key, key, who,
            not_before=now - float(self.options.backdate), not_after=not_after, session=session,
        )  # fmt: skip
        der = public_der(key)
        return certificate, Entry(who, serial_text(certificate), key_id(der), der, pair.key_id, now, not_after)

    # Keeping out

    def verify_peer(self, der: bytes | None, now: float, *, device: str = "") -> Peer:
        """Return who holds the certificate that TLS took from a connection (``getpeercert(binary_form=True)``).

        The only way to be somebody: nothing that a request says about itself counts. With ``device``, that is what the
        request claims, and another one's certificate is refused.

        Raises
        ------
        CertificateRefusedError
            There is none, it is forged, not valid now, revoked, or another device's.
        """
        if not der:
            raise CertificateRefusedError("no certificate was shown", hint="a device has one after `skerry enroll`")
        certificate = self._read_once(der)
        who = self._holder(certificate)
        if not starts(certificate) <= now < ends(certificate):
            over = now >= ends(certificate)
            raise CertificateRefusedError(
                f"the certificate of {who.name!r} {'is over' if over else 'does not count yet'}",
                hint="it can be renewed with its key" if over else "is the clock of the hub right?",
            )
        if device and (who.role != "device" or who.name != device):
            raise CertificateRefusedError(f"the certificate is that of {who.role} {who.name!r}, not of {device!r}")
        return Peer(
            role=who.role, name=who.name, serial=serial_text(certificate), not_after=ends(certificate),
            key_id=key_id(public_der(require_p256(certificate.public_key()))),
        )  # fmt: skip

    def _read_once(self, der: bytes) -> x509.Certificate:
        """Return a certificate, without checking the signature of the same bytes at every request."""
        material = self._material()
        digest = hashlib.sha256(der).digest()
        with self._lock:
            if digest in self._checked:
                self._checked.move_to_end(digest)
                return self._checked[digest]
        try:
            certificate = x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion) as error:
            raise CertificateRefusedError(f"the certificate cannot be read: {error}") from error
        if issued_by(certificate, material.certificates) is None:
            raise CertificateRefusedError(
                "the certificate was not made by this authority", hint="a device of another fleet has to enrol here"
            )
        with self._lock:
            if self._material_read is material:  # else an authority may have been ended since
                self._checked[digest] = certificate
            while len(self._checked) > _REMEMBERED_CERTIFICATES:
                self._checked.popitem(last=False)
        return certificate

    def _holder(self, certificate: x509.Certificate) -> SpiffeId:
        """Return who a certificate of ours is for, whatever its dates; raises ``CertificateRefusedError``."""
        material = self._material()
        who = spiffe_of(certificate)
        if who.trust_domain != material.settings.trust_domain:
            raise CertificateRefusedError(f"the certificate is of another fleet: {who.trust_domain!r}")
        if self._ledger.is_revoked(who.role, who.name, serial_text(certificate)):
            raise CertificateRefusedError(
                f"the certificate of {who.name!r} was revoked", hint="`skerry keys token NAME` lets it in again"
            )
        return who

    def is_revoked(self, who: str) -> bool:
        """Tell whether a device is kept out, by its id, or a certificate, by its serial number in hex digits.

        A device that enrolled again after it was revoked is not kept out, its old certificates are.
        """
        return self._ledger.is_out(who)

    def revoke(self, *, device: str = "", operator: str = "", serial: str = "", now: float) -> int:
        """Keep somebody out from now on, or one certificate; return how many certificates that took back.

        A member's unused tokens are withdrawn too. A running hub knows at its next request.

        Raises
        ------
        TrustError
            Nobody of that name, and no certificate of that number, is known here.
        """
        if serial:
            wanted = serial.lower().replace(":", "").lstrip("0")
            if not self._ledger.knows_serial(wanted):
                raise TrustError(f"no certificate has the serial number {serial!r}", hint="see `skerry keys list`")
            return self._ledger.revoke_serial(wanted, now)
        role: Role = "operator" if operator else "device"
        name = operator or device
        known = [member.name for member in self.members(now) if member.role == role]
        if name not in known:
            raise TrustError(
                f"no {role} {name!r} is known here", hint=did_you_mean(name, known) or "see `skerry keys list`"
            )
        return self._ledger.revoke(role, name, now)

    def verify(self, key_id: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether a key of an unrevoked device vouches for a message; whose it is tells :meth:`device_of`."""
        known = self._ledger.key(key_id)
        return known is not None and vouches(known[2], message, signature)

    def device_of(self, key_id: bytes) -> str:
        """Return the device that a key was certified for; empty when the key is unknown, an operator's or revoked."""
        known = self._ledger.key(key_id)
        return known[1] if known is not None and known[0] == "device" else ""

    def members(self, now: float) -> list[Member]:
        """Return every device and operator that was ever let in, or has a token that still counts."""
        return self._ledger.members(now)

    # The hub and the authority themselves

    def server_certificate(self, names: Sequence[str], now: float) -> Path:
        """Return the file with key and certificate of the hub (PEM), made again when it is due.

        Parameters
        ----------
        names:
            Host names and addresses of the hub besides those of :meth:`init` and the loopback ones.
        now:
            Seconds since 1970.
        """
        options = self.options
        with alone(self.folder):
            return hub_pair(
                self.folder, self._material(), names, now,
                life_s=float(options.hub_certificate_life), backdate_s=float(options.backdate),
            )  # fmt: skip

    def rotate(self, now: float) -> None:
        """Sign devices with a new key from now on; the old one still counts, and still vouches for the hub.

        Every device hears of the new one when it renews; :meth:`finish_rotation` ends the old one.

        Raises
        ------
        TrustError
            A rotation is under way already.
        """
        begin_rotation(self.folder, now)

    def left_behind(self, now: float) -> list[str]:
        """Return who still holds a certificate of the key that a rotation ends: they have not renewed since."""
        material = self._material()
        return self._ledger.holders(material.for_hub.key_id, now) if len(material.pairs) > 1 else []

    def finish_rotation(self) -> None:
        """Forget the old key: it vouches for nobody any more, and is deleted.

        Raises
        ------
        TrustError
            No rotation is under way.
        """
        end_rotation(self.folder)
