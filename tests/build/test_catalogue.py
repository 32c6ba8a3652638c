"""The catalogue of models: its data hold together, and names are found."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from skerry.build.catalogue import HOWS, How, ModelEntry, catalogue, check_task, entries, load_model, tasks
from skerry.spec.errors import ModelMissingError, UsageError

MODELS = list(catalogue().values())
PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
ASKED_FOR = (
    "mobilebert-uncased", "tinybert-4l-312", "tinybert-6l-768", "all-minilm-l6-v2", "all-minilm-l12-v2",
    "paraphrase-minilm-l3-v2", "distilbert-base-uncased", "distilroberta-base", "bge-small-en-v1.5", "e5-small-v2",
    "gte-small", "snowflake-arctic-embed-xs", "modernbert-base", "mobilevit-xxs", "mobilevit-xs", "mobilevit-s",
    "efficientformer-l1", "efficientformer-l3", "mobilenetv3-large-100", "mobilenetv4-conv-small",
    "efficientnet-lite0", "mobileclip-s0", "mobileclip-s1", "clip-vit-base-patch32", "dinov2-small", "yolox-nano",
    "nanodet-plus-m-320", "rtdetr-r18", "smollm2-135m-instruct", "qwen2.5-0.5b-instruct", "qwen3-0.6b",
    "llama-3.2-1b-instruct", "gemma-3-270m", "gemma-3-1b-it", "whisper-tiny", "whisper-base", "moonshine-tiny",
    "moonshine-base", "silero-vad",
)  # fmt: skip


def test_the_families_of_the_mission_are_there() -> None:
    assert [name for name in ASKED_FOR if name not in catalogue()] == []
    assert get_args(How) == HOWS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_an_entry_holds_together(model: ModelEntry) -> None:
    known = tasks()
    assert model.tasks and set(model.tasks) <= set(known.tasks)
    assert all(figure.metric in known.metrics and figure.value > 0 for figure in model.quality)
    assert 0 <= model.embedding_parameters < model.parameters.value or model.work.kind == "static"
    assert (model.shape.vocabulary is None) == (model.shape.tokenizer is None)
    assert 2015 <= model.year <= 2026
    assert "/" in model.hub and "  " not in model.note
    assert all(re.fullmatch(r"[a-z]{2,3}", code) for code in model.languages)
    assert len(set(model.languages)) == len(model.languages)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_figure_has_a_source_that_is_resolved(model: ModelEntry) -> None:
    figures = [model.parameters, *model.quality, *([model.work.macs] if model.work.macs else [])]
    assert all(figure.source.strip() for figure in (*figures, model.licence))
    keys = {key for file in files("skerry.build.catalogue").iterdir() if file.name.endswith(".toml")
            for key in tomllib.loads(file.read_text("utf-8")).get("sources", {})}  # fmt: skip
    assert not {figure.source.partition(":")[0] for figure in (*figures, model.licence)} & keys


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_what_a_prediction_needs_is_there(model: ModelEntry) -> None:
    shape, kind = model.shape, model.work.kind
    if kind in {"encoder", "decoder"}:
        assert None not in (shape.hidden, shape.layers, shape.heads, shape.feed_forward, shape.vocabulary)
    if kind in {"image", "speech"}:
        assert model.work.macs is not None and model.work.item
    if kind == "decoder":
        assert shape.key_value is not None
        assert model.embedding_parameters == (shape.vocabulary or 0) * (shape.hidden or 0)


@pytest.mark.parametrize(
    "model",
    [m for m in MODELS if m.work.kind == "encoder" and "mobilebert" not in m.name],
    ids=lambda model: model.name,
)
def test_an_encoder_has_the_weights_of_its_shape(model: ModelEntry) -> None:
    shape = model.shape
    hidden, inner = shape.hidden or 0, shape.feed_forward or 0
    matrices = (shape.layers or 0) * (4 * hidden**2 + (3 if "modern" in model.name else 2) * hidden * inner)
    assert model.parameters.value == pytest.approx(matrices + model.embedding_parameters, rel=0.05)


def test_unknown_fields_and_unconfirmed_facts() -> None:
    document = tomllib.loads((files("skerry.build.catalogue") / "speech.toml").read_text("utf-8"))
    document["models"]["silero-vad"]["colour"] = "blue"
    with pytest.raises(msgspec.ValidationError, match="colour"):
        entries(document)
    fields = set(ModelEntry.__struct_fields__)
    assert all(fact.partition(".")[0] in fields for model in MODELS for fact in model.unconfirmed)


@pytest.mark.parametrize(
    "name",
    ["all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2", "hf://sentence-transformers/all-MiniLM-L6-v2"],
)
def test_a_model_by_its_name_or_its_id(name: str) -> None:
    assert load_model(name).title == "all-MiniLM-L6-v2"


def test_wrong_names_have_the_nearest_as_a_hint() -> None:
    with pytest.raises(ModelMissingError) as missing:
        load_model("all_MiniLM_L6")
    assert "all-minilm-l6-v2" in missing.value.hint
    with pytest.raises(UsageError) as wrong:
        check_task("embeding")
    assert "'embedding'" in wrong.value.hint


def test_the_page_names_every_model_task_and_metric() -> None:
    table = PAGE.partition("## The catalogue")[2]
    rows = dict(re.findall(r"^\| `([\w.-]+)` \| [\w, -]+ \| ([^|]+) \|", table, re.MULTILINE))
    assert {name: title.strip() for name, title in rows.items()} == {m.name: m.title for m in MODELS}
    assert [task for task in tasks().tasks if f"`{task}`" not in PAGE] == []
    assert [metric for metric in tasks().metrics if f"`{metric}`" not in PAGE] == []


def test_the_page_counts_what_is_not_confirmed() -> None:
    open_facts = sum(
        not figure.confirmed
        for model in MODELS
        for figure in (model.parameters, model.licence, *model.quality, *([model.work.macs] if model.work.macs else []))
    )
    assert f"{len(MODELS)} models" in PAGE and f"{open_facts} figures and licences" in PAGE
