"""Arrays are let through exactly when they are those that a model takes, and errors say what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtimes.tensors import TEXT, InputCheck, made_up_inputs
from skerry.spec.errors import TensorError
from skerry.spec.ports import TensorSpec

IDS = TensorSpec("input_ids", "int64", ("batch", "tokens"))
MASK = TensorSpec("attention_mask", "int64", ("batch", "tokens"))
PIXELS = TensorSpec("pixels", "float32", ("batch", 3, "height", "width"))

axes = st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["a", "b", "c"])), max_size=4).map(tuple)
specs = st.lists(axes, min_size=1, max_size=3).map(
    lambda shapes: [TensorSpec(f"input{place}", "float32", shape) for place, shape in enumerate(shapes)]
)


def _arrays(declared: list[TensorSpec], sizes: dict[str, int]) -> dict[str, Any]:
    return {
        spec.name: np.zeros([axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape], dtype=spec.dtype)
        for spec in declared
    }


@given(specs, st.fixed_dictionaries({name: st.integers(0, 4) for name in "abc"}))
def test_arrays_of_the_declared_shape_pass_and_give_the_sizes(declared: list[TensorSpec], sizes: dict) -> None:
    found = InputCheck(declared, "model")(_arrays(declared, sizes))
    assert found == {name: sizes[name] for name in found}
    assert set(found) == {axis for spec in declared for axis in spec.shape if isinstance(axis, str)}


@given(specs, st.data())
def test_one_size_that_differs_is_refused_unless_its_axis_is_free(declared: list[TensorSpec], data: Any) -> None:
    arrays = _arrays(declared, dict.fromkeys("abc", 2))
    spec = data.draw(st.sampled_from(declared))
    if not spec.shape:
        return
    axis = data.draw(st.integers(0, len(spec.shape) - 1))
    shape = list(arrays[spec.name].shape)
    shape[axis] += 1
    arrays[spec.name] = np.zeros(shape, dtype=spec.dtype)
    check = InputCheck(declared, "model")
    size = spec.shape[axis]
    if isinstance(size, str) and [axis for spec in declared for axis in spec.shape].count(size) == 1:
        check(arrays)
    else:
        with pytest.raises(TensorError):
            check(arrays)


@given(specs)
def test_made_up_inputs_pass_the_check(declared: list[TensorSpec]) -> None:
    check = InputCheck(declared, "model")
    for inputs in made_up_inputs(declared):
        check(inputs)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"input_ids": np.ones((2, 3), "i8")}, ["'attention_mask' is missing", "input_ids, attention_mask"]),
        (
            {"input_id": np.ones((2, 3), "i8"), "attention_mask": np.ones((2, 3), "i8")},
            ["no input 'input_id'", "did you mean 'input_ids'?"],
        ),
        (
            {"input_ids": np.ones((2, 3), "i4"), "attention_mask": np.ones((2, 3), "i8")},
            ["'input_ids' has the dtype int32", "int64 (batch, tokens)", "astype('int64')"],
        ),
        (
            {"input_ids": np.ones((2, 3), ">i8"), "attention_mask": np.ones((2, 3), "i8")},
            ["'input_ids' has the dtype >i8"],
        ),
        (
            {"input_ids": np.ones(3, "i8"), "attention_mask": np.ones((2, 3), "i8")},
            ["'input_ids' has 1 axes: shape (3,)", "int64 (batch, tokens)"],
        ),
        (
            {"input_ids": np.ones((2, 3), "i8"), "attention_mask": np.ones((2, 4), "i8")},
            ["'attention_mask' has tokens = 4", "tokens = 3"],
        ),
        ({"input_ids": [[1]], "attention_mask": np.ones((1, 1), "i8")}, ["'input_ids' is a list"]),
    ],
)
def test_the_error_names_the_input_and_what_is_right(inputs: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(TensorError) as caught:
        InputCheck([IDS, MASK], "models/m.onnx")(inputs)
    for word in ["models/m.onnx", *words]:
        assert word in str(caught.value)


def test_a_wrong_fixed_size_is_named() -> None:
    with pytest.raises(TensorError, match=r"size 4 on axis 1: shape \(1, 4, 8, 8\)"):
        InputCheck([PIXELS], "m")({"pixels": np.zeros((1, 4, 8, 8), "f4")})


def test_text_tensors_take_every_text_dtype_and_nothing_else() -> None:
    check = InputCheck([TensorSpec("text", TEXT, ("n",))], "m")
    check({"text": np.array(["a", "b"])})
    check({"text": np.array(["a", "b"], dtype=object)})
    with pytest.raises(TensorError, match="dtype int64"):
        check({"text": np.array([1])})
