"""Batches: whatever JSON can say comes back, to the last bit."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.wire.batch import decode, encode, peek
from skerry.wire.record import Moment, WireRecord, record_digest
from tests.wire.words import BOOT, HEADER, Key, batches, floats, record, records, same, times


def round_trip(rows: list[dict[str, Any]]) -> None:
    """Check that records with these fields come back as they were."""
    sent = records(rows)
    came = decode(encode(HEADER, sent)).records
    assert len(came) == len(sent) and all(map(same, came, sent))


@settings(max_examples=250, deadline=None)
@given(batches())
def test_any_batch_comes_back(sent: list[WireRecord]) -> None:
    data = encode(HEADER, sent)
    came = decode(data)
    assert len(came.records) == len(sent) and all(map(same, came.records, sent))
    assert [record_digest(one) for one in came.records] == [record_digest(one) for one in sent]
    assert data == encode(HEADER, sent), "the same records must give the same bytes"
    header = peek(data)
    assert header == came.header
    numbers = [one.seq for one in sent]
    assert (header.count, header.first, header.last) == (len(sent), min(numbers), max(numbers))
    assert (header.device, header.losses, header.sent_mono_us) == (HEADER.device, HEADER.losses, HEADER.sent_mono_us)


@settings(max_examples=150, deadline=None)
@given(st.lists(floats, min_size=1, max_size=120))
def test_a_column_of_any_floats(column: list[float]) -> None:
    round_trip([{"x": value} for value in column])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=120))
def test_a_column_of_single_precision(column: list[float]) -> None:
    round_trip([{"x": value} for value in column])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**40),
    st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=150),
)
def test_a_column_of_integers_that_drift(first: int, step: int, noise: list[int]) -> None:
    clamp = range(-(2**63), 2**63)
    column = [min(max(first + place * step + value, clamp[0]), clamp[-1]) for place, value in enumerate(noise)]
    round_trip([{"x": value} for value in column])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "bb", "", "status", "/usr/lib", "é"]), max_size=15), min_size=4))
def test_a_column_of_texts_made_of_words(rows: list[list[str]]) -> None:
    round_trip([{"x": " ".join(words)} for words in rows])


@settings(max_examples=60, deadline=None)
@given(st.lists(times, min_size=1, max_size=30), st.sampled_from(["", "Z", "+02:00", ":", " x"]))
def test_a_column_of_times(column: list[str], tail: str) -> None:
    round_trip([{"x": text + tail} for text in column])


@pytest.mark.parametrize(
    "column",
    [
        [-0.0, 0.0, 0.0],
        [5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308],
        [0.0, 0.0, 1.5, -1.797693134862316e307],
        [1, 1.0, True, None, "1", [1], {"1": 1}],
        [2**63 - 1, -(2**63), 0],
        [2**63, 10**4000, -(10**5000)],
        ["", "", "\0", "\x7f", "\U0010ffff", "ÿ"],
        [[], [[]], [[], [[]]], [{}], [{"": {}}]],
        [{}, {"a": 1}, {"b": 2, "a": 1}, {"a": 1, "b": 2}],
        [[0.1, 0.2], [0.3, 0.4], [-0.1, -0.0]],
        [list(range(100)), list(range(7)), []],
        ["2026-11-22T16:00:00", "2026-11-22T16:00:01", "0001-01-01T00:00:00", "9999-12-31T23:59:59"],
        ["2026-11-22 16:00:00,123", "2026-11-22 16:00:00,999", "2026-11-22 16:00:00,000"],
        ["2026-11-22 16:00:00", "2026-11-22 24:00:00", "2026-02-30 16:00:00"],
        ["2026-11-22 16:00:00.١٢٣", "2026-11-22 16:00:01.123"],
        [0.1 + 0.2, 1 / 3, 1e22, 1e23, 123456789.125],
        [float(2**53), float(2**53 + 2), 2.0**63, -(2.0**63), 2.0**64],
        [1795397307.3977172, 1795397308.3979461, 1795397309.3978353],
        [None] * 9,
        ["a b c d e f g h i j k l m n o p"] * 3 + ["a  b", " ", "x y"],
    ],
)
def test_what_is_easily_lost(column: list[Any]) -> None:
    round_trip([{"x": value} for value in column])


def test_numbers_of_very_uneven_sizes_come_back() -> None:
    counts = [1, 1]
    while len(counts) < 18:
        counts.append(counts[-1] + counts[-2])  # of these, Huffman's code would have words of 17 bits
    column = [(1 << size) - 1 for size, count in enumerate(counts) for _ in range(count)]
    random.Random(4).shuffle(column)
    round_trip([{"x": value} for value in column])


def test_every_float_of_a_hard_sort_keeps_its_bits() -> None:
    patterns = [
        struct.unpack("<d", struct.pack("<Q", (exponent << 52) | 0x8_0000_0000_0001))[0] for exponent in range(2047)
    ]
    round_trip([{"x": value, "y": -value} for value in patterns])


def test_ragged_records_come_back_and_stay_small() -> None:
    rows = [{f"k{place * 7919 % 1000}-{inner}": place * inner for inner in range(place % 7)} for place in range(400)]
    round_trip(rows)
    assert len(encode(HEADER, records(rows))) < len(str(rows)) // 2


def test_nested_objects_become_columns() -> None:
    rows = [{"axis": {"x": place / 100, "y": {"z": place}}, "ok": place % 2 == 0} for place in range(100)]
    flat = [{"x": place / 100, "z": place, "ok": place % 2 == 0} for place in range(100)]
    round_trip(rows)
    assert len(encode(HEADER, records(rows))) < len(encode(HEADER, records(flat))) + 40


def test_words_that_were_forgotten_come_again() -> None:
    rows = [{"x": f"status unit-{place % 300} is up"} for place in range(900)]
    round_trip([*rows, {"x": "one"}])


def test_moments_priorities_releases_and_streams_are_kept() -> None:
    sent = [
        WireRecord(9, "a", {"x": 1}, 5, Moment(BOOT, -1, synced=False), 0, ""),
        WireRecord(3, "b", {"y": 2}, 4, Moment("0" * 32, 2**42, synced=True), 3, "sha256:" + "0" * 64),
        WireRecord(7, "a", {"x": 2}, 3, Moment(BOOT, 1, synced=True), 1, "sha256:" + "A" * 64),
    ]
    assert decode(encode(HEADER, sent)).records == sent


def test_a_signature_names_its_key() -> None:
    key = Key()
    batch = decode(encode(HEADER, [record({"x": 1})], key), key.verify)
    assert (batch.key_id, batch.signed) == (key.key_id, True)
    unsigned = decode(encode(HEADER, [record({"x": 1})]))
    assert (unsigned.key_id, unsigned.signed) == (b"", False)
