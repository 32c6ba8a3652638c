"""Techniques whose work a converter does: the contract where its toolchain is installed, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build import toolchain
from skerry.build.artifact import Artifact
from skerry.build.technique import Workbench, techniques
from skerry.build.techniques.buckets import doubling, fitted
from skerry.spec.errors import DependencyError, ModelKindError, SpecError
from skerry.testing.techniques import CHECKS, Specimen, the_same_seed_gives_the_same, vectors

from .conftest import LINES, NEEDS, Family, StandIn, require

Check = Callable[[Specimen], None]
NAMES = ("convert-litert", "litert-int8", "openvino")


@pytest.fixture(scope="session")
def litert(transformer: Artifact, real: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The small BERT as a LiteRT model."""
    require("convert-litert")
    target = tmp_path_factory.mktemp("litert")
    return techniques()["convert-litert"]().apply(transformer, {"buckets": [8, 64]}, real, target)


@pytest.fixture
def specimen(request: pytest.FixtureRequest, name: str, real: Workbench, tmp_path: Path) -> Specimen:
    require(name)
    transformer = request.getfixturevalue("transformer")
    refused = transformer
    if name == "convert-litert":
        # Each length takes seconds to convert.
        artifact = msgspec.structs.replace(transformer, max_tokens=16)
        refused = request.getfixturevalue("exported")
    else:
        artifact = request.getfixturevalue("litert" if name == "litert-int8" else "exported")
    settings = {"buckets": [16]} if name == "convert-litert" else {}
    return Specimen(
        technique=techniques()[name], artifact=artifact, refused=refused, workbench=real, folder=tmp_path,
        settings=settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: Check, specimen: Specimen) -> None:
    if check is the_same_seed_gives_the_same:
        bench = msgspec.structs.replace(specimen.workbench, toolchain=toolchain.run)
        specimen = Specimen(**{**vars(specimen), "workbench": bench})
    check(specimen)


@pytest.mark.parametrize("name", ["litert-int8"])
def test_every_candidate_answers_nearly_as_before(name: str, specimen: Specimen) -> None:
    before = vectors(specimen.artifact, LINES)
    found = []
    for number, settings in enumerate(specimen.technique().candidates(specimen.artifact, specimen.workbench)):
        try:
            made = specimen.apply(str(number), settings)
        except ModelKindError as error:  # the feed-forward of 48 neurons has no blocks of 32
            assert settings["bits"] == 4 and "divisible" in str(error)
            continue
        found.append(float((vectors(made, LINES) * before).sum(axis=1).mean()))
        assert found[-1] > (0.9 if "int4" in str(settings) else 0.99), settings
    assert len(found) >= 3


@pytest.mark.parametrize("name", ["convert-litert"])
def test_smoothing_alone_changes_no_answer(name: str, specimen: Specimen) -> None:
    one = specimen.apply("smooth", {"buckets": [16], "smooth": 0.8})
    other = specimen.apply("plain", {"buckets": [16], "smooth": 0.0})
    assert np.allclose(vectors(one, LINES), vectors(other, LINES), atol=1e-4)
    assert one.path.read_bytes() != other.path.read_bytes()


@pytest.fixture
def made_up(transformer: Artifact, tmp_path: Path) -> Artifact:
    """A LiteRT model of which only the name is there."""
    return msgspec.structs.replace(transformer, form="litert", folder=tmp_path, file="x.tflite", files=("x.tflite",))


def test_litert_is_asked_for_lengths_that_hold_every_text(
    transformer: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path
) -> None:
    technique = techniques()["convert-litert"]()
    first, *_ = technique.candidates(transformer, fast)
    assert first["buckets"][-1] == transformer.max_tokens and first["buckets"] == sorted(set(first["buckets"]))
    made = technique.apply(transformer, {"buckets": [16, 8, 16], "smooth": 0.0}, fast, tmp_path)
    name, script, request = stand_in.asked[0]
    assert (name, script) == ("litert", "litert_from_torch.py")
    assert request == {
        "model": str(transformer.folder), "target": str(tmp_path / "model.tflite"), "buckets": [8, 16],
        "output": "last_hidden_state", "pooling": "mean", "normalize": True,
    }  # fmt: skip
    assert (made.pooling, made.normalize) == ("none", False)
    assert (made.form, made.files, made.max_tokens) == ("litert", ("model.tflite",), 16)


def test_litert_smooths_on_the_texts(transformer: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path) -> None:
    techniques()["convert-litert"]().apply(transformer, {}, fast, tmp_path)
    request = stand_in.asked[0][2]
    assert request["buckets"] == [8, 16, 32, 64] and request["smooth"] == 0.5
    assert len(request["calibrate"]) > 10 and all(isinstance(one, int) for ids in request["calibrate"] for one in ids)


def test_without_texts_nothing_is_calibrated(transformer: Artifact, fast: Workbench) -> None:
    bare = msgspec.structs.replace(fast, texts=())
    litert = techniques()["convert-litert"]().candidates(transformer, bare)
    assert litert == [{"buckets": [8, 16, 32, 64], "pooled": True, "smooth": 0.0}]


def test_a_classifier_gives_logits(family: Family, fast: Workbench, stand_in: StandIn, tmp_path: Path) -> None:
    classifier = msgspec.structs.replace(family("bert", architecture="Classifier"), task="classification")
    techniques()["convert-litert"]().apply(classifier, {"smooth": 0.0}, fast, tmp_path)
    assert stand_in.asked[0][2]["output"] == "logits"


def test_a_length_that_the_model_does_not_take_is_told(transformer: Artifact, fast: Workbench, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="buckets: no text has 65 tokens"):
        techniques()["convert-litert"]().apply(transformer, {"buckets": [8, 65]}, fast, tmp_path)
    with pytest.raises(SpecError, match="buckets"):
        techniques()["convert-litert"]().apply(transformer, {"buckets": [0]}, fast, tmp_path)


def test_the_rules_of_litert(made_up: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path) -> None:
    settings = {"bits": 4, "block": 32, "embedding": "int8", "exclude": [".*last.*"], "scales": "octav"}
    target = tmp_path / "made"
    target.mkdir()
    techniques()["litert-int8"]().apply(made_up, settings, fast, target)
    name, script, request = stand_in.asked[0]
    assert (name, script, request["source"]) == ("litert", "litert_quantize.py", str(tmp_path / "x.tflite"))
    assert request["rules"] == [
        {"bits": 4, "granularity": "block32", "compute": "integer", "algorithm": "octav"},
        {"bits": 8, "granularity": "channel", "operator": "EMBEDDING_LOOKUP", "algorithm": "octav"},
        {"regex": ".*Embedding_position.*", "bits": 0},
        {"regex": ".*last.*", "bits": 0},
    ]


def test_blocks_that_would_leave_a_model_in_fp32_are_told(made_up: Artifact, fast: Workbench, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="blocks for weights of 4 bits only"):
        techniques()["litert-int8"]().apply(made_up, {"block": 32}, fast, tmp_path)


@pytest.mark.parametrize(("settings", "half"), [({}, True), ({"half": False}, False)])
def test_what_openvino_is_asked(
    settings: dict, half: bool, exported: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path
) -> None:
    made = techniques()["openvino"]().apply(exported, settings, fast, tmp_path)
    asked = {"model": str(exported.path), "target": str(tmp_path / "model.xml"), "half": half}
    assert stand_in.asked == [("openvino", "openvino_from_onnx.py", asked)]
    assert (made.form, made.files, made.size) == ("openvino", ("model.xml", "model.bin"), 8)


def test_openvino_in_halves_is_half_as_large_and_answers_the_same(
    exported: Artifact, real: Workbench, tmp_path: Path
) -> None:
    require("openvino")
    sizes = {}
    for half in (True, False):
        (tmp_path / str(half)).mkdir()
        made = techniques()["openvino"]().apply(exported, {"half": half}, real, tmp_path / str(half))
        sizes[half] = made.path.with_suffix(".bin").stat().st_size
        assert np.allclose(vectors(made, LINES), vectors(exported, LINES), atol=1e-2 if half else 1e-4)
    assert sizes[True] == pytest.approx(sizes[False] / 2, rel=0.01)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_where_there_is_no_toolchain_the_command_is_told(
    name: str, transformer: Artifact, exported: Artifact, made_up: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    technique, chain = techniques()[name](), NEEDS[name][0]
    artifact = next(one for one in (transformer, exported, made_up) if not technique.refuses(one))
    target = tmp_path / "made"
    target.mkdir()

    def broken(name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
        raise DependencyError(f"the toolchain {name} cannot be installed: no network", hint="copy one")

    for what in (None, broken):
        with pytest.raises(DependencyError, match=chain) as caught:
            technique.apply(artifact, {}, msgspec.structs.replace(workbench, toolchain=what), target)
        assert caught.value.hint.startswith(f"skerry toolchain install {chain}")
    assert not any(target.iterdir())


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_other_forms_are_refused(
    name: str, transformer: Artifact, exported: Artifact, made_up: Artifact, fast: Workbench, tmp_path: Path
) -> None:
    technique = techniques()[name]()
    taken = [one.form for one in (transformer, exported, made_up) if not technique.refuses(one)]
    form = "transformer" if name.startswith("convert-") else "litert" if name == "litert-int8" else "onnx"
    assert taken == [form]
    wrong = exported if form == "transformer" else transformer
    with pytest.raises(ModelKindError, match=name):
        technique.apply(wrong, {}, fast, tmp_path)


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 130), st.integers(1, 6))
def test_lengths_hold_every_text_and_no_fewer_compute_less(lengths: list[int], most: int, count: int) -> None:
    found = fitted(lengths, most, count)
    assert len(found) <= count and found[-1] == most and list(found) == sorted(set(found))
    assert len(fitted(lengths, most, count + 1)) >= len(found)


def test_lengths_beyond_the_longest_text_are_not_forgotten() -> None:
    found = fitted([10, 12, 14, 18, 22, 30] * 50, 256, 8)
    assert any(30 < length < 256 for length in found)


def test_doubling_lengths() -> None:
    assert doubling(256) == (8, 16, 32, 64, 128, 256) and doubling(8) == (8,) and doubling(5) == (5,)
