"""Techniques by NNCF, ExecuTorch and TensorRT, and sparsity: the contract where it can be kept, and what is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from skerry.build import toolchain
from skerry.build.artifact import Artifact
from skerry.build.search import SETTINGS
from skerry.build.technique import Workbench, techniques
from skerry.build.techniques import convert_tensorrt
from skerry.build.techniques.convert_tensorrt import TensorRtSettings, built, shapes
from skerry.build.techniques.transformer import Transformer
from skerry.runtimes.tensorrt import TensorRtRuntime
from skerry.spec.errors import DependencyError, ModelKindError, SpecError
from skerry.testing.techniques import CHECKS, Specimen, the_same_seed_gives_the_same, vectors

from .conftest import LINES, StandIn, require

Check = Callable[[Specimen], None]
NAMES = ("convert-executorch", "nncf-ptq", "nncf-weights")
QUICK: dict[str, dict[str, Any]] = {"nncf-ptq": {"texts": 8}, "convert-executorch": {"quantize": "int8"}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(
    name: str, check: Check, transformer: Artifact, exported: Artifact, real: Workbench, tmp_path: Path
) -> None:
    require(name)
    given, refused = (transformer, exported) if name == "convert-executorch" else (exported, transformer)
    bench = real
    if check is the_same_seed_gives_the_same:
        bench = msgspec.structs.replace(real, toolchain=toolchain.run)
    check(
        Specimen(
            technique=techniques()[name],
            artifact=given,
            refused=refused,
            workbench=bench,
            folder=tmp_path,
            settings=QUICK.get(name, {}),
            is_exact=False,
        )
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_sparsity_keeps_the_contract(
    check: Check, transformer: Artifact, exported: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    check(
        Specimen(
            technique=techniques()["prune-sparse"],
            artifact=transformer,
            refused=exported,
            workbench=workbench,
            folder=tmp_path,
        )
    )


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, {"mode": "int8_asym"}),
        ({"zeros": False}, {"mode": "int8_sym"}),
        ({"bits": 4, "ratio": 0.5}, {"mode": "int4_asym", "group": 32, "ratio": 0.5, "embeddings": False}),
    ],
)
def test_what_nncf_is_asked(
    settings: dict, asked: dict, exported: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path
) -> None:
    made = techniques()["nncf-weights"]().apply(exported, settings, fast, tmp_path)
    paths = {"model": str(exported.path), "target": str(tmp_path / "model.xml"), "how": "weights"}
    assert stand_in.asked == [("openvino", "openvino_quantize.py", paths | asked)]
    assert (made.form, made.files) == ("openvino", ("model.xml", "model.bin"))


def test_scales_of_four_bits_are_found_on_the_texts(
    exported: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path
) -> None:
    techniques()["nncf-weights"]().apply(exported, {"bits": 4, "scales": "texts"}, fast, tmp_path)
    assert len(stand_in.asked[0][2]["calibrate"]) == 64
    with pytest.raises(SpecError, match="4 bits only"):
        techniques()["nncf-weights"]().apply(exported, {"scales": "texts"}, fast, tmp_path)


def test_ptq_spares_the_layers_that_lose_most(
    exported: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path
) -> None:
    technique = techniques()["nncf-ptq"]()
    first, second, third = technique.candidates(exported, fast)
    assert first["exclude"] == [] and second["exclude"] == third["exclude"][:2]
    technique.apply(exported, second | {"texts": 5}, fast, tmp_path)
    request = stand_in.asked[0][2]
    assert request["how"] == "ptq" and len(request["calibrate"]) == 5 and len(request["ignore"]) == 2
    with pytest.raises(ModelKindError, match="no layer 'nowhere'"):
        technique.apply(exported, {"exclude": ["nowhere"]}, fast, tmp_path)


def test_without_texts_only_weights_are_rounded(exported: Artifact, fast: Workbench) -> None:
    bare = msgspec.structs.replace(fast, texts=())
    found = techniques()["nncf-weights"]().candidates(exported, bare)
    assert [one["bits"] for one in found] == [8, 4, 4] and {one["scales"] for one in found} == {"weights"}
    assert techniques()["nncf-ptq"]().candidates(exported, bare) == []


def test_a_model_of_tensors_is_not_calibrated_on_texts(exported: Artifact) -> None:
    tensors = msgspec.structs.replace(exported, task="tensors")
    assert "takes none" in techniques()["nncf-ptq"]().refuses(tensors)


def test_of_eight_bits_and_four_the_first_are_tried(exported: Artifact, fast: Workbench) -> None:
    found = techniques()["nncf-weights"]().candidates(exported, fast)[:SETTINGS]
    assert [one["bits"] for one in found] == [8, 4, 4, 4]
    assert {one["scales"] for one in found[1:]} == {"texts"} and found[-1]["embeddings"]


@pytest.mark.parametrize("name", ["nncf-weights", "nncf-ptq"])
def test_every_candidate_of_nncf_answers_nearly_as_before(
    name: str, exported: Artifact, real: Workbench, tmp_path: Path
) -> None:
    require(name)
    before, candidates = vectors(exported, LINES), techniques()[name]().candidates(exported, real)
    for number, settings in enumerate(candidates):
        (tmp_path / str(number)).mkdir()
        made = techniques()[name]().apply(exported, settings, real, tmp_path / str(number))
        alike = float((vectors(made, LINES) * before).sum(axis=1).mean())
        assert alike > (0.9 if settings.get("bits") == 4 else 0.99), settings
    assert len(candidates) >= 3


def test_scales_from_texts_lose_less(exported: Artifact, real: Workbench, tmp_path: Path) -> None:
    require("nncf-weights")
    alike = {}
    for scales in ("weights", "texts"):
        (tmp_path / scales).mkdir()
        settings = {"bits": 4, "scales": scales}
        made = techniques()["nncf-weights"]().apply(exported, settings, real, tmp_path / scales)
        alike[scales] = float((vectors(made, LINES) * vectors(exported, LINES)).sum(axis=1).mean())
    assert 0.95 < alike["weights"] < alike["texts"]  # unless weights are turned beforehand, texts lose far more


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"how": "guess"}, r"(?s)no way 'guess'.*weights, ptq"),
        ({"how": "weights", "mode": "int7"}, r"(?s)no mode 'int7'.*int4_asym"),
        ({"how": "ptq"}, "needs texts to calibrate on"),
        ({"how": "weights", "target": "model.bin"}, "must end in .xml"),
    ],
)
def test_the_converter_refuses(asked: dict, match: str, exported: Artifact, tmp_path: Path) -> None:
    require("nncf-ptq")
    request = {"model": str(exported.path), "target": str(tmp_path / "x.xml")} | asked
    with pytest.raises(SpecError, match=match):
        toolchain.run("openvino", "openvino_quantize.py", request)
    assert not list(tmp_path.iterdir())


def test_what_executorch_is_asked(transformer: Artifact, fast: Workbench, stand_in: StandIn, tmp_path: Path) -> None:
    technique = techniques()["convert-executorch"]()
    made = technique.apply(transformer, {"tokens": 32}, fast, tmp_path)
    assert stand_in.asked == [
        ("executorch", "executorch_from_torch.py", {
            "model": str(transformer.folder), "target": str(tmp_path / "model.pte"), "batch": 1, "tokens": 32,
            "compress": "int8", "output": "last_hidden_state",
        })
    ]  # fmt: skip
    assert (made.form, made.max_tokens) == ("executorch", 32)
    with pytest.raises(SpecError, match="tokens: no text has 65 tokens"):
        technique.apply(transformer, {"tokens": 65}, fast, tmp_path)
    assert technique.refuses(msgspec.structs.replace(transformer, part="vision"))


@pytest.mark.parametrize("by", ["inputs", "magnitude"])
@pytest.mark.parametrize(("settings", "share"), [({"pattern": "2:4"}, 0.5), ({"pattern": "any", "keep": 0.25}, 0.25)])
def test_as_many_weights_are_zeros_as_was_said(
    settings: dict, share: float, by: str, transformer: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    made = techniques()["prune-sparse"]().apply(transformer, settings | {"by": by}, workbench, tmp_path)
    before, after = Transformer(transformer), Transformer(made)
    for pair in zip(before.layers().parameters(), after.layers().parameters(), strict=True):
        one, other = (tensor.detach().numpy() for tensor in pair)
        if one.ndim < 2:
            assert np.array_equal(one, other)
            continue
        kept = other != 0
        assert np.array_equal(one[kept], other[kept]) and abs(kept.mean() - share) < 0.02
        if settings["pattern"] == "2:4":
            assert (kept.reshape(-1, 4).sum(axis=1) == 2).all()
    assert abs(made.size - transformer.size) < 2000  # zeros take as much room as other numbers


def test_by_inputs_keeps_more_than_by_magnitude(transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
    alike = {}
    for by in ("inputs", "magnitude"):
        (tmp_path / by).mkdir()
        made = techniques()["prune-sparse"]().apply(transformer, {"keep": 0.3, "by": by}, workbench, tmp_path / by)
        alike[by] = float((vectors(made, LINES) * vectors(transformer, LINES)).sum(axis=1).mean())
    assert alike["inputs"] != alike["magnitude"] and min(alike.values()) > 0.3


def test_without_a_gpu_no_engine_is_built(exported: Artifact, workbench: Workbench, tmp_path: Path) -> None:
    if TensorRtRuntime.availability().usable:
        pytest.skip("there is a GPU with TensorRT here")
    technique = techniques()["convert-tensorrt"]()
    assert technique.refuses(exported) == "" and technique.candidates(exported, workbench) == []
    with pytest.raises(DependencyError, match="built where it runs: ") as caught:
        technique.apply(exported, {}, workbench, tmp_path)
    assert caught.value.hint and not list(tmp_path.iterdir())
    with pytest.raises(SpecError, match="no_such"):
        technique.apply(exported, {"no_such": 1}, workbench, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_tensorrt_keeps_the_contract(
    check: Check, transformer: Artifact, exported: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    if not TensorRtRuntime.availability().usable:
        pytest.skip("TensorRT or its GPU is missing: pip install 'skerry[tensorrt]' on a machine with one")
    check(
        Specimen(
            technique=techniques()["convert-tensorrt"],
            artifact=exported,
            refused=transformer,
            workbench=workbench,
            folder=tmp_path,
            is_exact=False,
        )
    )


class Recorded:
    """Stands for TensorRT's library: notes every call by its path, and answers as it was told to."""

    def __init__(self, answers: dict[str, Any], calls: list[tuple[Any, ...]], path: str = "") -> None:
        self._answers, self._calls, self._path = answers, calls, path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        return self._answers.get(path, Recorded(self._answers, self._calls, path))

    def __call__(self, *given: Any) -> Any:
        self._calls.append((self._path, *(one for one in given if not isinstance(one, Recorded))))
        return self._answers.get(f"{self._path}()", self)

    def __int__(self) -> int:
        return 1


class Input(msgspec.Struct):
    name: str
    shape: tuple[int, ...]


def library(calls: list[tuple[Any, ...]], **answers: Any) -> Recorded:
    inputs = [Input("input_ids", (-1, -1)), Input("attention_mask", (-1, -1))]
    network = Recorded({"num_inputs": 2, "get_input": lambda place: inputs[place]}, calls)
    known = {"Builder.create_network()": network, "Builder.build_serialized_network()": b"plan"}
    return Recorded(known | answers, calls)


def test_the_engine_that_is_asked_for(tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []
    assert built(library(calls), tmp_path / "x.onnx", TensorRtSettings(batch=4), 256) == b"plan"
    told = {call[0]: call[1:] for call in calls}
    assert told["Builder.create_network"] == (2,)  # the flag of strongly typed networks
    assert told["OnnxParser.parse_from_file"] == (str(tmp_path / "x.onnx"),)
    assert told["Builder.create_builder_config.set_memory_pool_limit"] == (1 << 30,)
    assert [call[1:] for call in calls if call[0].endswith("set_shape")] == [
        ("input_ids", (1, 1), (1, 32), (4, 256)), ("attention_mask", (1, 1), (1, 32), (4, 256)),
    ]  # fmt: skip
    assert any(call[0].endswith("add_optimization_profile") for call in calls)


def test_what_tensorrt_refuses_is_told(tmp_path: Path) -> None:
    unread = {"OnnxParser.parse_from_file()": False, "OnnxParser.num_errors": 1, "OnnxParser.get_error.desc()": "no Op"}
    with pytest.raises(ModelKindError, match="cannot read the graph: no Op"):
        built(library([], **unread), tmp_path / "x.onnx", TensorRtSettings(), 256)
    with pytest.raises(ModelKindError, match="no engine"):
        built(library([], **{"Builder.build_serialized_network()": None}), tmp_path / "x", TensorRtSettings(), 256)


def test_shapes_of_an_engine() -> None:
    assert shapes("x", (-1, 3, 8, 8), 4, 0) == ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))
    assert shapes("ids", (-1, -1), 2, 16) == ((1, 1), (1, 16), (2, 16))
    for shape in ((-1, 3, -1, -1), (-1, -1, 5)):
        with pytest.raises(ModelKindError, match="neither texts nor tokens"):
            shapes("x", shape, 4, 16)


def test_tensorrt_is_asked_for_a_graph_in_fp16(
    exported: Artifact, workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(TensorRtRuntime, "availability", classmethod(lambda cls: _usable()))
    monkeypatch.setattr(convert_tensorrt, "import_tensorrt", lambda: (None, None))
    monkeypatch.setattr(
        convert_tensorrt, "built", lambda library, graph, told, most: seen.append(graph.read_bytes()) or b"plan"
    )
    for number, precision in enumerate(("fp32", "fp16")):
        target = tmp_path / str(number)
        target.mkdir()
        made = techniques()["convert-tensorrt"]().apply(exported, {"precision": precision}, workbench, target)
        assert (made.form, made.path.read_bytes()) == ("tensorrt", b"plan")
    assert seen[0] == exported.path.read_bytes() and len(seen[1]) < 0.75 * len(seen[0])


def _usable() -> Any:
    from skerry.spec.ports import Availability

    return Availability(usable=True, version="11.0", devices=("cuda",))
