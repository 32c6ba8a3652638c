"""The page of the format: its vectors are read as it says, and its dictionary is the one in use."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import msgspec
import pytest

from skerry.spec.errors import SignatureError
from skerry.wire.batch import Header, decode, peek
from skerry.wire.receipt import Receipt, decode_receipt, encode_receipt
from skerry.wire.record import WireRecord, canonical, record_digest
from skerry.wire.vocabulary import VOCABULARY
from tests.wire.words import same

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
Block = list[tuple[str, str]]


def blocks() -> list[Block]:
    """Return the vectors: names and values in the order of the page, lines that belong together joined."""
    found = re.findall(r"^```text\n(.*?)^```", PAGE.partition("## Vectors")[2], re.DOTALL | re.MULTILINE)
    joined = [text.replace("\n  ", "").splitlines() for text in found]
    return [[(line.partition(": ")[0], line.partition(": ")[2]) for line in lines] for lines in joined]


def of_kind(first: str) -> list[Block]:
    """Return the vectors that begin with a name."""
    return [block for block in blocks() if block[0][0] == first]


def public_key() -> bytes:
    """Return the key of the page, as DER."""
    return bytes.fromhex(of_kind("public key")[0][0][1])


def verify(key_id: bytes, message: bytes, signature: bytes, /) -> bool:
    """Check a signature with the key of the page."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = serialization.load_der_public_key(public_key())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    whole = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(whole, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return key_id == hashlib.sha256(public_key()).digest()[:8]


def record_of(text: str) -> WireRecord:
    """Return a record of the page; by json of the standard library, which reads integers of any size."""
    return msgspec.convert(json.loads(text), WireRecord)


@pytest.mark.parametrize("block", of_kind("batch"), ids=lambda block: block[0][1][-16:])
def test_a_batch_of_the_page(block: Block) -> None:
    (_, data), (_, header), *records = block
    raw = bytes.fromhex(data)
    batch = decode(raw, verify if raw[4] & 1 else None)
    assert peek(raw) == batch.header == msgspec.json.decode(header, type=Header)
    assert all(map(same, batch.records, [record_of(text) for _, text in records]))
    assert len(batch.records) == len(records)


def test_a_changed_batch_of_the_page_is_refused() -> None:
    raw = bytearray.fromhex(next(block[0][1] for block in of_kind("batch") if block[0][1][8:10] == "01"))
    raw[20] ^= 1
    with pytest.raises(SignatureError):
        decode(bytes(raw), verify)


@pytest.mark.parametrize("block", of_kind("record"), ids=lambda block: block[2][1])
def test_a_digest_of_the_page(block: Block) -> None:
    (_, text), (_, encoding), (_, digest) = block
    assert canonical(record_of(text)).hex() == encoding
    assert record_digest(record_of(text)) == int(digest)


def test_the_receipt_of_the_page() -> None:
    ((_, text), (_, data)) = of_kind("receipt")[0]
    receipt = msgspec.json.decode(text, type=Receipt)
    assert encode_receipt(receipt).hex() == data
    assert decode_receipt(bytes.fromhex(data)) == receipt


def test_the_dictionary_of_the_page() -> None:
    words = re.search(r"## The dictionary.*?`([0-9a-f]{64})`.*?```text\n(.*?)```", PAGE, re.DOTALL)
    assert words is not None
    assert b"".join(word.encode() + b"\xff" for word in words[2].split()) == VOCABULARY
    assert hashlib.sha256(VOCABULARY).hexdigest() == words[1]
