"""Receipts: what a hub answers comes back, and anything else is an error of the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.errors import WireError, WireVersionError
from skerry.wire.ranges import merge
from skerry.wire.receipt import Receipt, decode_receipt, encode_receipt

spans = st.lists(st.tuples(st.integers(1, 2**40), st.integers(0, 2**20))).map(
    lambda pairs: merge((first, first + length) for first, length in pairs)
)
receipts = st.builds(
    Receipt,
    epoch=st.binary(min_size=8, max_size=8).map(bytes.hex),
    committed=spans,
    dead=st.lists(st.tuples(st.integers(1, 2**50), st.text(st.characters(blacklist_categories=("Cs",))))),
    forked=spans,
    count=st.integers(0, 2**60),
    checksum=st.integers(0, 2**64 - 1),
    hub_ms=st.integers(0, 2**45),
    desired=st.sampled_from(["", "7f", "v12"]),
)
PLAIN = Receipt(epoch="9f3c2a7be1d04856", committed=[(1, 100)], count=100, checksum=2**64 - 1, hub_ms=1_795_397_307_397)


@given(receipts)
def test_any_receipt_comes_back(receipt: Receipt) -> None:
    assert decode_receipt(encode_receipt(receipt)) == receipt


def test_a_receipt_is_small() -> None:
    assert len(encode_receipt(PLAIN)) < 45


@given(st.binary(max_size=60))
def test_any_bytes_never_crash(data: bytes) -> None:
    for text in (data, b"\x99\x01" + data):
        try:
            decode_receipt(text)
        except WireError:
            continue


def test_every_cut_is_an_error() -> None:
    data = encode_receipt(PLAIN)
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode_receipt(data[:length])


def test_a_page_of_html_is_no_receipt() -> None:
    with pytest.raises(WireError, match="no receipt"):
        decode_receipt(b"<html><title>Please log in</title></html>")


def test_another_version_is_named() -> None:
    data = bytearray(encode_receipt(PLAIN))
    data[1] = 2
    with pytest.raises(WireVersionError, match="version 2, and version 1"):
        decode_receipt(bytes(data))


def test_a_receipt_too_large_is_not_looked_at() -> None:
    with pytest.raises(WireError, match="2,000,000 bytes"):
        decode_receipt(bytes(2_000_000))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": "zz"}, {"epoch": "00"}, {"committed": [(5, 4)]}, {"committed": [(5, 6), (1, 2)]}, {"count": -1},
        {"checksum": 2**64}, {"checksum": -1}, {"dead": [(1, "\ud800")]}, {"hub_ms": 2**70},
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_not_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        encode_receipt(msgspec.structs.replace(PLAIN, **wrong))
