"""The infer stage: the model's raw outputs as fields."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from skerry.run.stages.infer import InferOptions, InferStage
from skerry.spec.errors import SpecError, StageError, TensorError
from skerry.spec.record import Record
from skerry.testing.sinks import a_context
from skerry.testing.words import BagOfWords, models_of


def infer_stage(home: Path, **options: object) -> InferStage:
    stage = InferStage(InferOptions(model="words", **options))  # type: ignore[arg-type]
    stage.open(msgspec.structs.replace(a_context(home), models=models_of(words=BagOfWords())))
    return stage


def test_every_output_without_padding(tmp_path: Path) -> None:
    records = [Record({"text": "one two three"}), Record({"text": "one"})]
    assert infer_stage(tmp_path).process_batch(records) == records
    assert [record.fields["last_hidden_state"].shape for record in records] == [(3, 64), (1, 64)]
    assert records[0].fields["pooler_output"].shape == (64,)


@pytest.mark.parametrize(
    ("outputs", "fields"),
    [(["pooler_output"], {"text", "pooler_output"}), ({"pooler_output": "vector"}, {"text", "vector"})],
)
def test_chosen_outputs(tmp_path: Path, outputs: object, fields: set[str]) -> None:
    record = Record({"text": "one"})
    infer_stage(tmp_path, outputs=outputs).process(record)
    assert set(record.fields) == fields


def test_an_unknown_output_names_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(TensorError, match="did you mean 'pooler_output'"):
        infer_stage(tmp_path, outputs=["pooled_output"]).process(Record({"text": "one"}))


def test_a_record_without_text_fails_alone(tmp_path: Path) -> None:
    answers = infer_stage(tmp_path).process_batch([Record({}), Record({"text": "one"})])
    assert [type(answer) for answer in answers] == [StageError, Record]


def test_no_outputs_is_an_error() -> None:
    with pytest.raises(SpecError, match="names nothing"):
        InferStage(InferOptions(model="m", outputs=[]))
