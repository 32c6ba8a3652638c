"""An enrolment token: the one string that a newcomer pastes, and that works once."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import zlib

import msgspec

from skerry.spec.errors import EnrolmentRefusedError
from skerry.trust.names import Role

_PREFIX = "skerry1."
_SECRET_BYTES = 16


class EnrolmentToken(msgspec.Struct, frozen=True, array_like=True):
    """What a token says.

    Parameters
    ----------
    hub:
        The URL of the hub.
    fingerprint:
        The SHA-256 of the certificate of the authority that vouches for the hub: so that the newcomer believes the
        right one.
    secret:
        16 random bytes, of which the authority keeps a hash only.
    role, name:
        Who the bearer becomes.
    issued:
        When it was made, in seconds since 1970: a device whose clock shows less knows that its clock is wrong.
    """

    hub: str
    fingerprint: bytes
    secret: bytes
    role: Role
    name: str
    issued: int

    def text(self) -> str:
        """Return the string to paste; four bytes of it tell a string that was cut or mistyped."""
        body = msgspec.msgpack.encode(self)
        return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).rstrip(b"=").decode("ascii")

    def digest(self) -> bytes:
        """Return what the authority keeps: a SHA-256 of all of it (a slow hash is for what people think up)."""
        return hashlib.sha256(b"skerry enrolment token\0" + msgspec.msgpack.encode(self)).digest()


def new_token(hub: str, fingerprint: bytes, role: Role, name: str, now: float) -> EnrolmentToken:
    """Make a token with a fresh secret."""
    return EnrolmentToken(hub, fingerprint, secrets.token_bytes(_SECRET_BYTES), role, name, int(now))


def read_token(text: str) -> EnrolmentToken:
    """Read a token as it was pasted: spaces and line breaks in it do no harm.

    Raises
    ------
    EnrolmentRefusedError
        It is none, or not whole.
    """
    joined = "".join(text.split())
    coded = joined.removeprefix(_PREFIX)
    wrong = EnrolmentRefusedError(
        "this is no enrolment token, or a part of it is missing", expected=f"one string that starts with {_PREFIX!r}",
        hint="copy the whole line that `skerry keys token` printed",
    )  # fmt: skip
    if coded == joined:
        raise wrong
    try:
        data = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
        if _check(data[:-4]) != data[-4:]:
            raise wrong
        return msgspec.msgpack.decode(data[:-4], type=EnrolmentToken)
    except (binascii.Error, ValueError) as error:
        raise wrong from error


def _check(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "big")
