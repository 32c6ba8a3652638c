"""Trust at first use: the public key of a batch's signer, found from the signature itself.

A batch names its key by 8 bytes only. On loopback there is no certificate that could bring the key, but a signature of
ECDSA leaves at most four candidates for it (SEC 1 version 2.0, section 4.1.6), and the name tells which one it is.
"""

from __future__ import annotations

import hashlib
from typing import Final

from skerry.trust.keys import SIGNATURE_BYTES, key_id, public_der, vouches

_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_Point = tuple[int, int] | None
"""A point of P-256 (NIST SP 800-186, section 3.2.1.3); ``None`` is the one at infinity. Nothing here is secret."""


def recover_key(name: bytes, message: bytes, signature: bytes) -> bytes | None:
    """Return the public key (DER) that has this name and vouches for the message; ``None`` when there is none."""
    if len(signature) != SIGNATURE_BYTES:
        return None
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < _N and 0 < s < _N):
        return None
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(r, -1, _N)
    shift = _times(-digest * inverse % _N, _G)
    for x in (r, r + _N):
        for point in _points_at(x):
            public = _der(_add(_times(s * inverse % _N, point), shift))
            if public is not None and key_id(public) == name and vouches(public, message, signature):
                return public
    return None


def _points_at(x: int) -> list[tuple[int, int]]:
    square = (x * x * x - 3 * x + _B) % _P
    y = pow(square, (_P + 1) // 4, _P)
    return [(x, y), (x, _P - y)] if x < _P and y * y % _P == square else []


def _add(a: _Point, b: _Point) -> _Point:
    if a is None or b is None:
        return a if b is None else b
    if a[0] == b[0]:
        if (a[1] + b[1]) % _P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, _P) % _P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _P) % _P
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P


def _times(number: int, point: _Point) -> _Point:
    total: _Point = None
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total


def _der(point: _Point) -> bytes | None:
    from cryptography.hazmat.primitives.asymmetric import ec

    if point is None:
        return None
    return public_der(ec.EllipticCurvePublicNumbers(*point, ec.SECP256R1()).public_key())
