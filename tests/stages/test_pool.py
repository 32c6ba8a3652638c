"""The pool stage: pooling, shortening, length 1 and int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from skerry.run.stages.pool import PoolOptions, PoolStage
from skerry.spec.errors import SpecError, StageError
from skerry.spec.record import Record
from skerry.testing.sinks import a_context


def pooled(fields: dict[str, Any], **options: Any) -> dict[str, Any]:
    stage = PoolStage(PoolOptions(**options))
    record = Record(fields)
    assert stage.process(record) is record
    stage.close()
    return record.fields


TOKENS = np.array([[1, 0, 4], [3, 0, 0]], dtype=np.float32)


@pytest.mark.parametrize(("how", "expected"), [("mean", [2, 0, 2]), ("cls", [1, 0, 4]), ("max", [3, 0, 4])])
def test_pooling(how: str, expected: list[float]) -> None:
    found = pooled({"embedding": TOKENS.copy()}, how=how, normalize=False, to="vector")
    np.testing.assert_array_equal(found["vector"], expected)
    np.testing.assert_array_equal(found["embedding"], TOKENS)


def test_a_mask_leaves_tokens_out() -> None:
    found = pooled({"embedding": TOKENS, "mask": [0, 1]}, mask="mask", normalize=False)
    np.testing.assert_array_equal(found["embedding"], [3, 0, 0])


def test_shortened_vectors_have_length_1() -> None:
    found = pooled({"embedding": [3.0, 4.0, 100.0]}, dimensions=2)["embedding"]
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)


@given(arrays.arrays(np.float32, st.integers(1, 64), elements=st.floats(-1000, 1000, width=32, allow_subnormal=False)))
def test_int8_keeps_every_number_within_half_a_step(vector: Any) -> None:
    found = pooled({"embedding": vector.copy()}, quantize="int8", normalize=False)
    packed, scale = found["embedding"], found["embedding_scale"]
    assert packed.dtype == np.int8
    assert np.abs(packed * scale - vector).max() <= scale * 0.5001 + 1e-6


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"embedding": "text"}, {}),
        ({"embedding": []}, {}),
        ({"embedding": np.zeros((1, 2, 3))}, {}),
        ({"embedding": [1.0, float("nan")]}, {}),
        ({"embedding": [1.0]}, {"dimensions": 2}),
        ({"embedding": TOKENS, "m": [1]}, {"mask": "m"}),
        ({"embedding": TOKENS, "m": [0, 0]}, {"mask": "m"}),
    ],
)
def test_what_is_no_vector_fails(fields: dict[str, Any], options: dict[str, Any]) -> None:
    with pytest.raises(StageError):
        pooled(fields, **options)


def test_options_and_opening(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        PoolStage(PoolOptions(dimensions=0))
    PoolStage(PoolOptions()).open(a_context(tmp_path))
