"""Signatures of several shapes are one model with dynamic axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtimes.signatures import Signature, Signatures
from skerry.spec.errors import ModelKindError, TensorError
from skerry.spec.ports import TensorSpec


def _encoder(rows: int | str, tokens: int | str, key: str = "") -> Signature:
    return Signature(
        key or f"encode_{rows}_{tokens}",
        (TensorSpec("ids", "int64", (rows, tokens)), TensorSpec("mask", "int64", (rows, tokens))),
        (TensorSpec("hidden", "float32", (rows, tokens, 4)), TensorSpec("sentence", "float32", (rows, 4))),
    )


def _together(*shapes: tuple[int, int]) -> Signatures:
    return Signatures([_encoder(*shape) for shape in shapes], "here")


def _chosen(together: Signatures, rows: int, tokens: int) -> list[tuple[str, int, int]]:
    pieces = together.pieces({"batch": rows, "length": tokens})
    return [(piece.signature.key, piece.start, piece.stop) for piece in pieces]


def test_the_differing_axis_is_the_length_and_one_row_is_a_batch() -> None:
    together = _together((1, 8), (1, 16))
    assert together.inputs[0].shape == ("batch", "length")
    assert [spec.shape for spec in together.outputs] == [("batch", "length", 4), ("batch", 4)]


def test_one_signature_keeps_its_length() -> None:
    assert _together((1, 8)).inputs[0].shape == ("batch", 8)


def test_a_fixed_number_of_rows_stays() -> None:
    assert _together((4, 8), (4, 16)).inputs[0].shape == (4, "length")


def test_axes_that_are_open_in_the_file_keep_their_names() -> None:
    together = Signatures([_encoder("ids.0", "ids.1")], "here")
    assert together.inputs[0].shape == ("batch", "ids.1")
    assert _encoder("ids.0", "ids.1").is_fixed is False


def test_an_output_with_sizes_of_its_own_is_left_as_it_is() -> None:
    """Such as the frames of a convolution, of which nobody knows which ones are padding."""
    signatures = [
        Signature(f"s{n}", (TensorSpec("a", "float32", (1, n)),), (TensorSpec("b", "float32", (1, n // 4)),))
        for n in (16, 32)
    ]
    together = Signatures(signatures, "here")
    assert together.outputs[0].shape == ("batch", "b.1")
    (piece,) = together.pieces({"batch": 1, "length": 9})
    assert together.trimmed(piece, {"b": np.zeros((1, 4))}, {"batch": 1, "length": 9})["b"].shape == (1, 4)


def test_the_smallest_that_fits_is_taken_whatever_the_order_in_the_file() -> None:
    together = _together((1, 32), (1, 8), (1, 16))
    assert _chosen(together, 1, 8) == [("encode_1_8", 0, 1)]
    assert _chosen(together, 1, 9) == [("encode_1_16", 0, 1)]
    assert _chosen(together, 2, 32) == [("encode_1_32", 0, 1), ("encode_1_32", 1, 2)]


def test_too_long_tells_the_largest() -> None:
    with pytest.raises(TensorError, match="length = 33") as caught:
        _together((1, 8), (1, 32)).pieces({"batch": 1, "length": 33})
    assert caught.value.expected == "at the most length = 32"


def test_no_rows_are_an_error() -> None:
    with pytest.raises(TensorError, match="no rows"):
        _together((1, 8), (1, 32)).pieces({"batch": 0, "length": 3})


def test_rows_are_cut_into_the_largest_batches_that_fit() -> None:
    together = _together((1, 8), (4, 8), (1, 16))
    assert _chosen(together, 6, 5) == [("encode_4_8", 0, 4), ("encode_1_8", 4, 5), ("encode_1_8", 5, 6)]
    assert _chosen(together, 2, 12) == [("encode_1_16", 0, 1), ("encode_1_16", 1, 2)]


def test_rows_are_padded_where_no_batch_is_small_enough() -> None:
    together = _together((4, 8), (8, 8))
    assert _chosen(together, 5, 8) == [("encode_4_8", 0, 4), ("encode_4_8", 4, 5)]


@pytest.mark.parametrize(
    "other",
    [
        Signature("decode", (TensorSpec("ids", "int64", (1, 8)),), ()),
        Signature("decode", _encoder(1, 8).inputs, _encoder(1, 8).outputs[::-1]),
        _encoder("ids.0", 8),
    ],
)  # fmt: skip
def test_signatures_of_different_graphs_are_refused(other: Signature) -> None:
    with pytest.raises(ModelKindError, match="no sizes of one graph"):
        Signatures([_encoder(1, 8), other], "here")


sizes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 40)), min_size=1, max_size=6, unique=True)


@given(sizes, st.integers(1, 20), st.integers(1, 45), st.randoms(use_true_random=False))
def test_every_row_comes_back_once_and_unchanged(shapes, rows: int, tokens: int, random) -> None:  # type: ignore[no-untyped-def]
    """Whatever shapes there are: the graph here copies its input, so that padding and trimming must cancel out."""
    together = _together(*shapes)
    ids = np.array([[random.randrange(1, 99) for _ in range(tokens)] for _ in range(rows)])
    inputs = {"ids": ids, "mask": np.ones_like(ids)}
    asked = {
        axis: size for axis, size in zip(together.inputs[0].shape, (rows, tokens), strict=True) if isinstance(axis, str)
    }
    fixed = [axis for axis in together.inputs[0].shape if isinstance(axis, int)]
    if fixed and (rows, tokens)[together.inputs[0].shape.index(fixed[0])] != fixed[0]:
        return  # the check of the inputs, which comes first, refuses these
    if fixed == [*together.inputs[0].shape] and (rows, tokens) != tuple(fixed):
        return
    if tokens > max(length for _, length in shapes):
        with pytest.raises(TensorError):
            together.pieces(asked)
        return
    answers = []
    for piece in together.pieces(asked):
        arrays = together.padded(piece, inputs)
        assert {array.shape for array in arrays.values()} == {piece.signature.inputs[0].shape}
        hidden = np.repeat(arrays["ids"][..., None], 4, axis=-1)
        raw = {"hidden": hidden, "sentence": arrays["mask"].sum(axis=1, keepdims=True).repeat(4, axis=1)}
        answers.append(together.trimmed(piece, raw, asked))
    assert np.array_equal(np.concatenate([answer["hidden"][..., 0] for answer in answers]), ids)
    assert (np.concatenate([answer["sentence"] for answer in answers]) == tokens).all()
