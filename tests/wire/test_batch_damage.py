"""Batches that were cut, flipped, forged or made to hurt: an error of the wire, and nothing else, ever."""

from __future__ import annotations

import random
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.spec.errors import SignatureError, WireError, WireVersionError
from skerry.wire.batch import decode, encode, peek
from skerry.wire.body import decode_body
from skerry.wire.compression import compress, decompress
from skerry.wire.limits import DEFAULT_LIMITS, Limits
from skerry.wire.record import WireRecord
from tests.wire.words import BOOT, HEADER, Key, batches, record, records

ROWS: list[dict[str, Any]] = [
    {
        "time": f"2026-11-22 16:00:{place:02d}",
        "load": place / 8,
        "score": place / 7,
        "label": "up" if place % 3 else "down",
        "message": f"unit {place % 5} of host-{place} is {'up' if place % 2 else 'down'}",
        "cores": [place, 100.0 - place],
        "mixed": [None, place, "x", {"deep": [place]}][place % 4],
        "ragged": {f"key-{place}-{inner}": inner for inner in range(place % 3)},
        "huge": 2**70 + place,
    }
    for place in range(40)
]
KEY = Key()


def varint(value: int) -> bytes:
    """Return a number as the format writes it."""
    text = bytearray()
    while value > 127:
        text.append(value & 127 | 128)
        value >>= 7
    return bytes([*text, value])


def parts(body: bytes) -> tuple[bytes, bytes]:
    """Return what a body's packed part unpacks to, and its bits."""
    size = shift = place = 0
    while True:
        size |= (body[place] & 127) << shift
        shift += 7
        place += 1
        if body[place - 1] < 128:
            break
    return decompress(body[place : place + size], DEFAULT_LIMITS.unpacked), body[place + size :]


def body_of(data: bytes) -> bytes:
    """Return the body of an unsigned batch."""
    return data[7 + int.from_bytes(data[5:7], "little") : -4]


def assemble(unpacked: bytes, bits: bytes) -> bytes:
    """Return a body of these parts."""
    packed = compress(unpacked, 1)
    return varint(len(packed)) + packed + bits


def test_every_cut_is_an_error() -> None:
    for data, verify in ((encode(HEADER, records(ROWS)), None), (encode(HEADER, records(ROWS), KEY), None)):
        for length in range(len(data)):
            with pytest.raises(WireError):
                decode(data[:length], verify)
        with pytest.raises(WireError):
            decode(data + b"\0", verify)


def test_every_flipped_bit_of_a_signed_batch_is_an_error() -> None:
    data = encode(HEADER, records(ROWS[:3]), KEY)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(WireError):
            decode(bytes(changed), KEY.verify)


def test_every_flipped_byte_of_an_unsigned_batch_is_an_error() -> None:
    data = encode(HEADER, records(ROWS))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        with pytest.raises(WireError):
            decode(bytes(changed))


def test_bodies_with_flipped_bytes_and_a_right_checksum_never_crash() -> None:
    chance = random.Random(16)
    data = encode(HEADER, records(ROWS))
    for _ in range(1500):
        changed = bytearray(data[:-4])
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(4, len(changed))] = chance.randrange(256)
        read_or_refuse(bytes(changed) + crc32(changed).to_bytes(4, "little"))


def test_unpacked_parts_with_flipped_bytes_never_crash() -> None:
    chance = random.Random(4)
    unpacked, bits = parts(body_of(encode(HEADER, records(ROWS))))
    for _ in range(4000):
        changed, codes = bytearray(unpacked), bytearray(bits)
        for _ in range(chance.randint(1, 4)):
            target = codes if chance.random() < 0.2 else changed
            target[chance.randrange(len(target))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        refuse_or_read_body(assemble(bytes(changed), bytes(codes)), len(ROWS))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=60), st.integers(1, 30))
def test_any_bytes_as_a_body_never_crash(unpacked: bytes, bits: bytes, count: int) -> None:
    refuse_or_read_body(assemble(unpacked, bits), count)
    refuse_or_read_body(unpacked, count)


@settings(max_examples=100, deadline=None)
@given(batches(), st.randoms(use_true_random=False))
def test_damaged_bodies_of_any_batch_never_crash(sent: list[WireRecord], chance: random.Random) -> None:
    unpacked, bits = parts(body_of(encode(HEADER, sent)))
    changed = bytearray(unpacked)
    changed[chance.randrange(len(changed))] = chance.randrange(256)
    refuse_or_read_body(assemble(bytes(changed), bits), len(sent))
    refuse_or_read_body(assemble(unpacked[: chance.randrange(len(unpacked))], bits), len(sent))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_batch_never_crash(data: bytes) -> None:
    read_or_refuse(data)
    read_or_refuse(b"SKB\x01\x00" + data)


def test_a_float_of_more_than_64_bits_is_refused() -> None:
    unpacked, bits = parts(body_of(encode(HEADER, records([{"x": -0.0}]))))
    place = unpacked.index(bytes([33, 0]), unpacked.index(b"\x08\x01"))
    end = place + 2
    while unpacked[end] > 127:
        end += 1
    changed = unpacked[: place + 2] + varint(2**66) + unpacked[end + 1 :]
    size = unpacked[0] + len(changed) - len(unpacked)
    with pytest.raises(WireError, match="too large"):
        decode_body(assemble(bytes([size]) + changed[1:], bits), 1, 1, BOOT, DEFAULT_LIMITS)


def read_or_refuse(data: bytes) -> None:
    """Decode; only an error of the wire may come out."""
    try:
        batch = decode(data)
    except WireError:
        return
    assert len(batch.records) == batch.header.count


def refuse_or_read_body(body: bytes, count: int) -> None:
    """Decode a body; only an error of the wire may come out."""
    try:
        came = decode_body(body, count, 1, BOOT, Limits(values=200_000, unpacked=1 << 20))
    except WireError:
        return
    assert len(came) == count


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    packed = compress(bytes(1 << 28), 1)
    assert len(packed) < 1 << 16
    with pytest.raises(WireError, match="unpacks to 268,435,456 bytes"):
        decode_body(varint(len(packed)) + packed, 1, 1, BOOT, DEFAULT_LIMITS)


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    packed = bytearray(compress(bytes(range(200)) * 20, 1))
    packed[1:3] = (300 - 256).to_bytes(2, "little")
    with pytest.raises(WireError):
        decompress(bytes(packed), DEFAULT_LIMITS.unpacked)


def test_few_bytes_that_stand_for_many_values_are_refused() -> None:
    one = encode(HEADER, records([{"x": [None] * 3000} for _ in range(1500)]), limits=Limits(values=10**7))
    assert len(one) < 4000
    with pytest.raises(WireError, match="too many values"):
        decode(one)


def test_few_bytes_that_stand_for_much_text_are_refused() -> None:
    rows = [{"x": "y" * 100_000} for _ in range(400)]
    one = encode(HEADER, records(rows), limits=Limits(unpacked=1 << 27))
    assert len(one) < 4000
    with pytest.raises(WireError, match="too much text"):
        decode(one)


def test_what_a_writer_makes_within_its_limits_its_reader_takes() -> None:
    rows = [{"x": [place], "y": f"a b {place}", "z": {"k": place, "l": [None, 1, "x"]}} for place in range(60)]
    needed = next(n for n in range(100, 5000, 25) if fits(rows, Limits(values=n)))
    limits = Limits(values=needed)
    assert len(decode(encode(HEADER, records(rows), limits=limits), limits=limits).records) == 60


def fits(rows: list[dict[str, Any]], limits: Limits) -> bool:
    """Tell whether a batch of these rows can be written within limits."""
    try:
        encode(HEADER, records(rows), limits=limits)
    except WireError:
        return False
    return True


def test_a_record_of_a_hundred_megabytes_is_refused_by_name() -> None:
    big = record({"frame": "x" * 100_000_000}, 7, "camera")
    with pytest.raises(WireError) as caught:
        encode(HEADER, [record({"x": 1}), big])
    assert caught.value.where == "record 7 of camera" and "blobs" in caught.value.hint


def test_too_many_records_and_none() -> None:
    for sent in ([], records([{"x": 1}] * 11)):
        with pytest.raises(WireError, match="records"):
            encode(HEADER, sent, limits=Limits(records=10))
    data = encode(HEADER, records([{"x": 1}] * 11))
    with pytest.raises(WireError, match="11 records"):
        decode(data, limits=Limits(records=10))
    with pytest.raises(WireError, match="bytes"):
        decode(data, limits=Limits(packed=100))


def test_nesting_has_an_end_on_both_sides() -> None:
    deep: Any = 1
    for level in range(300):
        deep = [deep] if level % 2 else {"x": deep, "y": 1}
    with pytest.raises(WireError, match="nested too deep"):
        encode(HEADER, [record({"x": deep})])
    data = encode(HEADER, [record({"x": [[[[1]]]]})])
    with pytest.raises(WireError, match="nested too deep"):
        decode(data, limits=Limits(depth=4))
    assert decode(data, limits=Limits(depth=5)).records[0].fields == {"x": [[[[1]]]]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", (1, 2), {1: 2}, b"x", {"\udfff": 1}, object()])
def test_what_json_cannot_say_is_refused_and_named(value: Any) -> None:
    with pytest.raises(WireError) as caught:
        encode(HEADER, [record({"x": 1}), record({"x": value}, 2)])
    assert caught.value.where == "record 2 of telemetry"


def test_another_version_is_refused_with_both_names() -> None:
    data = bytearray(encode(HEADER, [record({"x": 1})]))
    data[3] = 9
    for read in (decode, peek):
        with pytest.raises(WireVersionError, match="version 9, and version 1"):
            read(bytes(data))


def test_unknown_flags_are_refused() -> None:
    data = bytearray(encode(HEADER, [record({"x": 1})]))
    data[4] |= 0x80
    with pytest.raises(WireError, match="flags"):
        peek(bytes(data))


def test_no_signature_an_unknown_key_and_another_purpose_are_refused() -> None:
    with pytest.raises(SignatureError, match="nobody signed"):
        decode(encode(HEADER, [record({"x": 1})]), KEY.verify)
    data = encode(HEADER, [record({"x": 1})], KEY)
    with pytest.raises(SignatureError, match=KEY.key_id.hex()):
        decode(data, Key().verify)
    other = data[:-64] + KEY.sign(data[:-64])
    with pytest.raises(SignatureError):
        decode(other, KEY.verify)


@pytest.mark.parametrize(
    "wrong", [{"epoch": "xyz"}, {"epoch": "00"}, {"boot": "00"}, {"device": "\ud800"}, {"losses": {"x" * 70000: 1}}]
)
def test_a_header_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    import msgspec

    with pytest.raises(WireError):
        encode(msgspec.structs.replace(HEADER, **wrong), [record({"x": 1})])
