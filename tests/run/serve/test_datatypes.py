"""Datatypes: what goes in comes out again, in JSON and in binary."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from skerry.run.serve import datatypes
from skerry.run.serve.refusal import GRPC_CODES, Refusal, refusal_of
from skerry.spec.errors import ModelError, TensorError

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = [datatype for datatype in datatypes.DTYPES if datatype != "BYTES"]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Any]:
    datatype = draw(st.sampled_from(NUMBERS))
    dtype = np.dtype(datatypes.DTYPES[datatype])
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return datatype, draw(arrays.arrays(dtype, SHAPES, elements=arrays.from_dtype(dtype, **elements)))


@given(tensors())
def test_numbers_survive(given_tensor: tuple[str, Any]) -> None:
    datatype, array = given_tensor
    raw = datatypes.to_bytes(array)
    found = datatypes.from_bytes("x", datatype, array.shape, memoryview(raw))
    np.testing.assert_array_equal(found, array)
    text = msgspec.Raw(msgspec.json.encode(datatypes.to_json("x", array)))
    flat = datatypes.from_json("x", datatype, array.shape, text)
    np.testing.assert_array_equal(flat, array)
    assert flat.dtype == found.dtype == array.dtype
    if array.ndim and array.size:
        nested = datatypes.from_json("x", datatype, array.shape, msgspec.Raw(msgspec.json.encode(array.tolist())))
        np.testing.assert_array_equal(nested, array)


@given(arrays.array_shapes(max_dims=2, max_side=4).flatmap(
    lambda shape: arrays.arrays(object, shape, elements=st.text(max_size=8).filter(lambda t: t.isprintable()))
))  # fmt: skip
def test_texts_survive(array: Any) -> None:
    raw = datatypes.to_bytes(array)
    np.testing.assert_array_equal(datatypes.from_bytes("x", "BYTES", array.shape, memoryview(raw)), array)
    text = msgspec.Raw(msgspec.json.encode(datatypes.to_json("x", array)))
    np.testing.assert_array_equal(datatypes.from_json("x", "BYTES", array.shape, text), array)


@given(st.binary(max_size=60), st.sampled_from(list(datatypes.DTYPES)), st.lists(st.integers(-2, 5), max_size=3))
def test_any_bytes_are_read_or_refused(data: bytes, datatype: str, shape: list[int]) -> None:
    try:
        found = datatypes.from_bytes("x", datatype, shape, memoryview(data))
    except Refusal as refusal:
        assert refusal.status == 400 and "'x'" in refusal.message
    else:
        assert list(found.shape) == shape


def test_what_json_cannot_carry_is_said() -> None:
    with pytest.raises(Refusal, match="ask for binary"):
        datatypes.to_json("y", np.array([np.nan], np.float32))


def test_errors_become_refusals() -> None:
    told = refusal_of(TensorError("wrong", expected="right", hint="turn it"))
    assert (told.status, told.message) == (400, "wrong; expected: right (turn it)")
    assert refusal_of(ModelError("it broke", where="/secret/place")).message == "it broke"
    assert refusal_of(KeyError("/secret")).message == "the model failed: KeyError"
    assert all(status in GRPC_CODES for status in (400, 404, 429, 503, 504))
