"""The null runtime: its file, its answers, its delay."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtimes.null import NullModel, NullRuntime, NullSession, write_null_model
from skerry.spec.errors import ModelCorruptError, ModelKindError, SpecError
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import TensorSpec
from skerry.spec.units import Duration


def _load(path: Path, model: NullModel, **named: Any) -> NullSession:
    return NullRuntime().load(write_null_model(path / "model.null.json", model), **named)


def _declared(dtype: str, axis: str) -> str:
    """Return a null model with an input of ``dtype`` on the axis ``n`` and an output on ``axis``."""
    inputs, outputs = [TensorSpec("x", dtype, ("n",))], [TensorSpec("y", "int8", (axis,))]
    return msgspec.json.encode({"skerry_null": 1, "inputs": inputs, "outputs": outputs}).decode()


def test_it_is_found_through_the_plugin_door() -> None:
    assert load_plugin("skerry.runtimes", "null") is NullRuntime


def test_a_text_encoder_gives_float32_vectors_per_token(tmp_path: Path) -> None:
    session = _load(tmp_path, NullModel(dimension=384))
    ids = np.arange(12).reshape(3, 4)
    answer = session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["last_hidden_state"]
    assert answer.shape == (3, 4, 384)
    assert answer.dtype == np.float32
    assert -1 <= answer.min() < -0.9
    assert 0.9 < answer.max() <= 1


def test_padding_changes_nothing(tmp_path: Path) -> None:
    sentence = NullModel(
        inputs=(TensorSpec("input_ids", "int64", ("batch", "tokens")),),
        outputs=(
            TensorSpec("tokens", "float32", ("batch", "tokens", 4)),
            TensorSpec("sentence", "float32", ("batch", 4)),
        ),
    )
    session = _load(tmp_path, sentence)
    short = session.run({"input_ids": np.array([[7, 8, 9]])})
    padded = session.run({"input_ids": np.array([[7, 8, 9, 0, 0]])})
    assert np.array_equal(short["tokens"], padded["tokens"][:, :3])
    assert np.array_equal(short["sentence"], padded["sentence"])


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=6), st.lists(st.integers(0, 2**31), min_size=1, max_size=6))
def test_other_input_has_another_answer(
    tmp_path_factory: pytest.TempPathFactory, one: list[int], other: list[int]
) -> None:
    model = NullModel(
        inputs=(TensorSpec("x", "int64", ("batch", "n")),), outputs=(TensorSpec("y", "float64", ("batch", 8)),)
    )
    session = _load(tmp_path_factory.getbasetemp(), model)
    answers = [session.run({"x": np.array([row])})["y"] for row in (one, other)]
    while one and one[-1] == 0:
        one = one[:-1]
    while other and other[-1] == 0:
        other = other[:-1]
    assert np.array_equal(*answers) == (one == other)


def test_answers_are_the_same_on_every_machine(tmp_path: Path) -> None:
    session = _load(tmp_path, NullModel(dimension=3))
    ids = np.array([[1, 2]])
    answer = session.run({"input_ids": ids, "attention_mask": ids})["last_hidden_state"]
    first, second = [0.4994964897632599, -0.2552131414413452, -0.12343218922615051], [
        -0.4915723502635956, 0.7894464135169983, -0.25222355127334595,
    ]  # fmt: skip
    assert answer.tolist() == [[first, second]]


def test_the_delay_is_waited_and_can_be_set_at_load(tmp_path: Path) -> None:
    ids = np.array([[1, 2]])
    inputs = {"input_ids": ids, "attention_mask": ids}
    slow = _load(tmp_path, NullModel(dimension=3, delay=Duration.parse("50ms")))
    before = time.monotonic()
    expected = slow.run(inputs)
    assert time.monotonic() - before >= 0.05
    slower = _load(tmp_path, NullModel(dimension=3), options={"delay": "70ms"})
    before = time.monotonic()
    assert np.array_equal(slower.run(inputs)["last_hidden_state"], expected["last_hidden_state"])
    assert time.monotonic() - before >= 0.07


def test_an_empty_batch_is_answered_with_an_empty_one(tmp_path: Path) -> None:
    ids = np.zeros((0, 5), dtype=np.int64)
    answer = _load(tmp_path, NullModel(dimension=3)).run({"input_ids": ids, "attention_mask": ids})
    assert answer["last_hidden_state"].shape == (0, 5, 3)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"skerry_null": 1}', ModelCorruptError, "lacks tensors"),
        ('{"skerry_null": 2, "dimension": 3}', ModelCorruptError, "skerry_null"),
        ('{"skerry_null": 1, "dimension": 0}', ModelCorruptError, "positive dimension"),
        ('{"skerry_null": 1, "dimension": 3, "delay": "2"}', ModelCorruptError, "a time with a unit"),
        ('{"skerry_null": 1, "dimension": 3, "speed": 2}', ModelCorruptError, "speed"),
        ('{"a": 1}', ModelKindError, "a JSON file"),
        (
            _declared("str", "n"),
            ModelCorruptError,
            "no number's dtype",
        ),
        (
            _declared("int8", "m"),
            ModelCorruptError,
            "no input has the axis 'm'",
        ),
    ],
)
def test_a_file_without_sense_is_refused(text: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.null.json"
    path.write_text(text)
    with pytest.raises(error, match=words):
        NullRuntime().load(path)


def test_a_wrong_delay_option_says_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a time with a unit"):
        _load(tmp_path, NullModel(dimension=3), options={"delay": "soon"})
