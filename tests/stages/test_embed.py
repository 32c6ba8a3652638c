"""The embed stage: a batch is one run of the model, and each record's vector is what it is alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from skerry.run.stages.embed import EmbedOptions, EmbedStage
from skerry.spec.errors import ModelMissingError, SpecError, StageError
from skerry.spec.ports import BatchStage
from skerry.spec.record import Record
from skerry.testing.sinks import a_context
from skerry.testing.words import BagOfWords, models_of


def embed_stage(home: Path, model: BagOfWords, **options: object) -> EmbedStage:
    stage = EmbedStage(EmbedOptions(model="words", **options))  # type: ignore[arg-type]
    stage.open(msgspec.structs.replace(a_context(home), models=models_of(words=model)))
    return stage


def test_a_batch_is_one_run_and_equals_singles(tmp_path: Path) -> None:
    model = BagOfWords()
    stage = embed_stage(tmp_path, model)
    texts = ["disk full", "all is well", "", "disk"]
    records = [Record({"text": text}) for text in texts]
    assert stage.process_batch(records) == records
    assert model.calls == [4]
    for record, text in zip(records, texts, strict=True):
        alone = Record({"text": text})
        assert stage.process(alone) is alone
        np.testing.assert_array_equal(record.fields["embedding"], alone.fields["embedding"])
        assert record.fields["embedding"].shape == (64,)
        assert record.fields["embedding"].dtype == np.float32
        assert record.fields["embedding"].base is None  # it does not hold the whole batch


def test_a_record_without_text_fails_alone(tmp_path: Path) -> None:
    stage = embed_stage(tmp_path, BagOfWords(), field="text", to="vector")
    records = [Record({"text": "a"}), Record({"txt": "b"}), Record({"text": 5}), Record({"text": "c"})]
    answers = stage.process_batch(records)
    assert [type(answer) for answer in answers] == [Record, StageError, StageError, Record]
    assert "did you mean 'txt'" in str(answers[1])
    assert "vector" in records[3].fields
    with pytest.raises(StageError, match="is a int"):
        stage.process(records[2])


def test_it_is_a_batch_stage() -> None:
    stage = EmbedStage(EmbedOptions(model="m", max_batch=4))
    assert isinstance(stage, BatchStage)
    assert stage.max_batch == 4


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        EmbedStage(EmbedOptions(model="m", max_batch=0))
    with pytest.raises(ModelMissingError):
        EmbedStage(EmbedOptions(model="m")).open(a_context(tmp_path))
    stage = embed_stage(tmp_path, BagOfWords())
    stage.close()
    stage.close()
    with pytest.raises(StageError, match="not open"):
        stage.process(Record({"text": "a"}))
