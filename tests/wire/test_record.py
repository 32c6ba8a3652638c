"""Digests of records: the same on both ends, different for different content, and blind to the number."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from skerry.spec.errors import WireError
from skerry.wire.record import Moment, WireRecord, canonical, record_digest
from tests.wire.words import BOOT, batches, record


@settings(max_examples=100, deadline=None)
@given(batches())
def test_a_digest_has_64_bits_and_ignores_number_priority_and_order_of_keys(sent: list[WireRecord]) -> None:
    for one in sent:
        digest = record_digest(one)
        turned = dict(reversed(one.fields.items()))
        assert 0 <= digest < 2**64
        assert digest == record_digest(msgspec.structs.replace(one, seq=one.seq + 1, priority=3, fields=turned))


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "other"}, {"mono_us": 2}, {"release": ""}, {"moment": Moment(BOOT, 1, synced=True)},
        {"fields": {"x": 1.0}}, {"fields": {"x": True}}, {"fields": {"x": "1"}}, {"fields": {"X": 1}}, {"fields": {}},
        {"fields": {"x": -1}}, {"fields": {"x": 2**64}}, {"fields": {"x": [1]}}, {"fields": {"x": None}},
    ],
)  # fmt: skip
def test_any_other_content_has_another_digest(change: dict[str, Any]) -> None:
    one = record({"x": 1})
    assert record_digest(one) != record_digest(msgspec.structs.replace(one, **change))


def test_zero_and_minus_zero_are_two() -> None:
    assert record_digest(record({"x": 0.0})) != record_digest(record({"x": -0.0}))


def test_integers_of_any_size_have_a_digest() -> None:
    sizes = (2**63, 2**64 - 1, 2**64, 2**65, -(2**63), -(2**63) - 1, 10**4000, -(10**4000))
    numbers = [record_digest(record({"x": [value]})) for value in sizes]
    assert len(set(numbers)) == len(numbers)
    assert canonical(record({"x": 2**64})).count(b"\xc7\x09\x01\x01" + bytes(8)) == 1


@pytest.mark.parametrize("value", ["\ud800", object(), {1: 2}])
def test_what_json_cannot_say_has_none(value: Any) -> None:
    with pytest.raises(WireError):
        record_digest(record({"x": value}))


def test_nesting_without_end_has_none() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(WireError, match="nested too deep"):
        record_digest(record({"x": deep}))
