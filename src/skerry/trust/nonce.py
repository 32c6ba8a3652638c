"""A nonce: a question that only an answer of now fits, without remembering that it was asked.

It is the time, 8 random bytes and a keyed hash of both (HMAC, RFC 2104), so that every worker of a hub recognizes
what another one gave out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

_TIME, _RANDOM, _MAC = 8, 8, 16


def new_nonce(key: bytes, now: float) -> str:
    """Return a nonce of ``now`` (seconds since 1970) under the authority's key."""
    body = int(now * 1000).to_bytes(_TIME, "big") + secrets.token_bytes(_RANDOM)
    return base64.urlsafe_b64encode(body + _mac(key, body)).decode("ascii").rstrip("=")


def is_fresh(key: bytes, nonce: str, now: float, life_s: float) -> bool:
    """Tell whether a nonce was made under this key at most ``life_s`` seconds ago."""
    try:
        data = base64.b64decode(nonce + "=" * (-len(nonce) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    body, mac = data[: _TIME + _RANDOM], data[_TIME + _RANDOM :]
    if len(data) != _TIME + _RANDOM + _MAC or not hmac.compare_digest(mac, _mac(key, body)):
        return False
    age_s = now - int.from_bytes(body[:_TIME], "big") / 1000
    return -1.0 <= age_s <= life_s  # workers' clocks may differ by a little


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()[:_MAC]


def renewal_message(nonce: str, csr_pem: bytes) -> bytes:
    """Return what the old key signs to get a certificate for the key of a request.

    The first line keeps this signature apart from that of a batch, which the same key signs.
    """
    return b"skerry renewal 1\n" + nonce.encode() + b"\n" + csr_pem
