"""Predicted latency: work read from graphs, ways told from steps, rates fitted, and what is given up by them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.build.artifact import Artifact, Step
from skerry.build.cache import Cache
from skerry.build.figures import Estimate, Figures
from skerry.build.latency.calibration import reference
from skerry.build.latency.foresight import MARGIN, Foresight, is_far
from skerry.build.latency.forms import chains
from skerry.build.latency.rates import Rates, Sample, Table, fit, least_squares
from skerry.build.latency.reading import read_workload
from skerry.build.latency.way import Way, shape_of, way_of
from skerry.build.latency.workload import Dense, Work, Workload
from skerry.build.progress import Progress
from skerry.build.technique import Workbench, techniques
from skerry.spec.budget import Budget
from skerry.spec.errors import ModelKindError
from skerry.spec.units import Duration, Size
from tests.build.conftest import SMALL, write_model

TEXTS = tuple(" ".join("abcdefgh"[: 1 + number % 8]) for number in range(24))
BENCH = Workbench(texts=TEXTS, progress=Progress(None))


def made(artifact: Artifact, name: str, settings: dict[str, object], folder: Path) -> Artifact:
    folder.mkdir()
    found: Artifact = techniques()[name]().apply(artifact, settings, BENCH, folder)
    return found


@pytest.fixture(scope="module")
def origin(bert: Path) -> Artifact:
    return Artifact(
        form="transformer", folder=bert, file="config.json", files=("config.json", "model.safetensors"),
        source="sha256:1", tokenizer=bert / "tokenizer.json", max_tokens=64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def graph(origin: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made(origin, "export-onnx", {}, tmp_path_factory.mktemp("graph") / "onnx")


# Work


def test_work_is_read_from_a_graph_for_any_length(graph: Artifact) -> None:
    workload = read_workload(graph.path, (4, 16, 64))
    width, inner = SMALL["hidden_size"], SMALL["intermediate_size"]
    layers = 2 * (4 * width * width + 2 * width * inner)
    assert workload.at(40).weights - layers in {0, width * width}  # the second with a pooler
    read, reckoned = read_workload(graph.path, (40,)).at(40), workload.at(40)
    for name in ("kernels", "pairs", "heavy", "light"):
        assert getattr(reckoned, name) == pytest.approx(getattr(read, name)), name
    assert [layer.rows for layer in reckoned.dense] == pytest.approx([layer.rows for layer in read.dense])


def test_a_quantized_graph_has_the_same_layers(graph: Artifact, tmp_path: Path) -> None:
    small = made(graph, "onnx-dynamic", {"smooth": 0.0}, tmp_path / "int8")
    assert read_workload(small.path, (8,)).at(8).weights == read_workload(graph.path, (8,)).at(8).weights


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelKindError, match="cannot be read"):
        read_workload(tmp_path / "model.onnx", (8,))


@given(st.lists(st.floats(0, 100), min_size=3, max_size=3), st.integers(1, 512))
def test_three_readings_decide_a_polynomial(factors: list[float], tokens: int) -> None:
    def work(length: int) -> Work:
        value = factors[0] + factors[1] * length + factors[2] * length**2
        return Work(tokens=length, kernels=1, dense=(), pairs=value, heavy=0, light=0)

    workload = Workload(readings=tuple(work(length) for length in (8, 32, 128)))
    assert workload.at(tokens).pairs == pytest.approx(work(tokens).pairs, rel=1e-6, abs=1e-6)


# Ways


def test_the_way_of_every_form_that_techniques_make_is_known(graph: Artifact, origin: Artifact) -> None:
    for name, kind in techniques().items():
        if name.startswith(("prune", "trim", "distill")):
            continue
        technique = kind()
        given_to = next((each for each in (origin, graph) if not technique.refuses(each)), None)
        if given_to is None or name == "litert-int8":
            continue
        step = Step(technique=name, version=1, settings={})
        way = way_of(msgspec.structs.replace(given_to, steps=(*given_to.steps, step)))
        if name in {"export-onnx", "convert-litert"} or name.startswith(("onnx-", "openvino", "nncf-")):
            assert way is not None, name


def test_the_ways_of_openvino_are_those_that_rates_are_known_of(graph: Artifact) -> None:
    known = reference().rates
    for name, settings_of, key in (
        ("openvino", {}, "fp32"), ("openvino", {"half": False}, "fp32"), ("nncf-weights", {}, "int8-weights"),
        ("nncf-weights", {"bits": 4}, "int4-weights"), ("nncf-ptq", {}, "int8"),
    ):  # fmt: skip
        way = way_of(planned(graph, name, **settings_of))
        assert way is not None
        assert way.key == f"openvino/{key}"
        assert way.key in known


def test_every_form_of_the_calibration_has_a_way_and_all_rates_are_of_such_forms(graph: Artifact) -> None:
    known, keys = techniques(), set()
    for those in chains((8, 16)).values():
        for chain in those:
            steps = tuple(Step(technique=name, version=known[name].version, settings=told) for name, told in chain)
            way = way_of(msgspec.structs.replace(graph, steps=steps))
            assert way is not None, chain
            keys.add(way.key)
    assert keys >= set(reference().rates)


def test_a_step_from_elsewhere_gives_no_way(graph: Artifact) -> None:
    step = Step(technique="somebody-elses", version=1)
    assert way_of(msgspec.structs.replace(graph, steps=(*graph.steps, step))) is None


def test_texts_are_padded_to_the_lengths_of_the_graph(origin: Artifact) -> None:
    steps = (Step(technique="convert-litert", version=1, settings={"buckets": [8, 32]}),
             Step(technique="litert-int8", version=1, settings={"bits": 4}))  # fmt: skip
    way = way_of(msgspec.structs.replace(origin, steps=steps))
    assert way is not None
    assert way.key == "litert/int4"
    assert [way.padded(tokens) for tokens in (1, 8, 9, 99)] == [8, 8, 32, 32]


def test_teaching_changes_no_work_and_pruning_does(origin: Artifact) -> None:
    prune, teach = Step(technique="prune-layers", version=1), Step(technique="distill", version=1)
    pruned = msgspec.structs.replace(origin, steps=(prune,))
    assert shape_of(msgspec.structs.replace(origin, steps=(prune, teach))) == shape_of(pruned) != shape_of(origin)


# Rates


def layer(name: str, rows: float, inputs: int, outputs: int) -> Dense:
    return Dense(name=name, rows=rows, inputs=inputs, outputs=outputs)


def encoder(tokens: int, width: int, layers: int) -> Work:
    dense = tuple(layer(f"{place}", tokens, width, 4 * width) for place in range(layers))
    return Work(
        tokens=tokens, kernels=20 * layers, dense=dense, pairs=2 * width * tokens**2 * layers,
        heavy=5 * width * tokens * layers, light=9 * width * tokens * layers,
    )  # fmt: skip


def test_rates_are_found_again_from_the_times_that_they_give() -> None:
    truth = Rates(each_ms={"runs": 0.02, "kernels": 1e-3, "products": 5e-9, "weights": 6e-8, "heavy": 1e-6})
    table = Table(machine="m", cached_bytes=8e6, rates={"onnxruntime/fp32": truth})
    way = Way(runtime="onnxruntime")
    known = [
        encoder(tokens, width, layers) for tokens in (8, 32, 256) for width, layers in ((128, 2), (320, 6), (768, 3))
    ]
    taken = [Sample(work=work, ms=table.parts(work, way).total) for work in known]  # type: ignore[union-attr]
    fitted = Table(machine="m", cached_bytes=8e6, rates={"onnxruntime/fp32": fit(taken, "fp32", 8e6)})
    other = encoder(50, 512, 6)
    expected, found = table.parts(other, way), fitted.parts(other, way)
    assert expected is not None
    assert found is not None
    assert found.total == pytest.approx(expected.total, rel=0.02)
    assert fitted.rates["onnxruntime/fp32"].error < 0.01


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_least_squares_are_not_negative_and_no_worse_than_their_neighbours(seed: int) -> None:
    random = np.random.default_rng(seed)
    factors, values = random.random((12, 5)), random.random(12)
    found = least_squares(factors, values)
    assert (found >= 0).all()
    best = np.linalg.norm(factors @ found - values)
    for place in range(5):
        for change in (-1e-3, 1e-3):
            near = found.copy()
            near[place] = max(0.0, near[place] + change)
            assert np.linalg.norm(factors @ near - values) >= best - 1e-9


def test_spared_layers_are_timed_in_their_own_precision() -> None:
    rates = {
        "onnxruntime/fp32": Rates(each_ms={"products": 4.0}),
        "onnxruntime/int8-dynamic": Rates(each_ms={"products": 1.0, "runs": 2.0}),
    }  # fmt: skip
    table = Table(machine="m", cached_bytes=0, rates=rates)
    work = Work(tokens=1, kernels=0, dense=(layer("a", 1, 1, 1), layer("b", 1, 1, 1)), pairs=0, heavy=0, light=0)
    parts = table.parts(work, Way(runtime="onnxruntime", precision="int8-dynamic", spared=frozenset({"b"})))
    assert parts is not None
    assert (parts.integers, parts.floats, parts.overhead) == (1.0, 4.0, 2.0)
    assert table.parts(work, Way(runtime="tensorrt")) is None


def test_the_rates_that_come_with_skerry_know_every_runtime_that_is_predicted() -> None:
    table = reference()
    assert {key.partition("/")[0] for key in table.rates} == {"onnxruntime", "litert", "openvino"}
    assert all(value >= 0 for rates in table.rates.values() for value in rates.each_ms.values())


# Foresight


def figures(cpu_ms: float) -> Figures:
    one = Estimate.exact(cpu_ms)
    return Figures(latency_p50_ms=one, latency_p99_ms=one, speedup=Estimate.exact(1.0), cpu_ms=cpu_ms)


def foresight(graph: Artifact, cache: Path, **limits: object) -> Foresight:
    return Foresight(Budget(**limits), (8, 16, 40), reference(), Cache(cache), graph)  # type: ignore[arg-type]


def planned(artifact: Artifact, technique: str, **settings: object) -> Artifact:
    step = Step(technique=technique, version=1, settings=dict(settings))
    return msgspec.structs.replace(artifact, steps=(*artifact.steps, step))


def test_a_form_is_foreseen_before_it_is_made_and_weighs_what_was_foreseen(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", vocab_size=4000, hidden_size=128, intermediate_size=512)
    origin = Artifact(
        form="transformer", folder=folder, file="config.json", files=("config.json",), source="sha256:3",
        tokenizer=folder / "tokenizer.json", max_tokens=64,
    )  # fmt: skip
    graph = made(origin, "export-onnx", {}, tmp_path / "onnx")
    seer = foresight(graph, tmp_path / "cache")
    for name, settings_of in (("onnx-dynamic", {"smooth": 0.0}), ("onnx-weight-only", {"bits": 4}), ("onnx-fp16", {})):
        foreseen = seer.foresee(planned(graph, name, **settings_of))
        assert foreseen is not None
        assert 0 < foreseen.latency_p50_ms <= foreseen.latency_p99_ms
        small = made(graph, name, dict(settings_of), tmp_path / name)
        assert foreseen.size_bytes == pytest.approx(small.size_with_tokenizer, rel=0.1), name


def test_halves_take_half_the_disk_and_as_long_as_what_they_are_widened_to(graph: Artifact, tmp_path: Path) -> None:
    seer = foresight(graph, tmp_path)
    whole, half = (seer.foresee(planned(graph, "openvino", half=half)) for half in (False, True))
    assert whole is not None
    assert half is not None
    assert half.latency_p50_ms == pytest.approx(whole.latency_p50_ms, rel=0.01)
    weights = whole.size_bytes - (graph.size_with_tokenizer - graph.size)
    assert whole.size_bytes - half.size_bytes == pytest.approx(weights / 2)


def test_what_the_given_model_took_corrects_all_predictions(graph: Artifact, tmp_path: Path) -> None:
    seer = foresight(graph, tmp_path)
    before = seer.foresee(planned(graph, "onnx-dynamic"))
    own = seer.parts(graph)
    assert before is not None
    assert own is not None
    seer.correct(figures(3 * own.total))
    after = seer.foresee(planned(graph, "onnx-dynamic"))
    assert after is not None
    assert after.latency_p50_ms == pytest.approx(3 * before.latency_p50_ms)


def test_the_given_model_is_never_hopeless_and_nothing_is_where_nothing_does_better(
    graph: Artifact, tmp_path: Path
) -> None:
    seer = foresight(graph, tmp_path, latency_p50=Duration(1e-9), memory=Size(1), size=Size(1))
    assert seer.hopeless(graph) is None
    assert seer.hopeless(planned(graph, "onnx-dynamic")) is None


def test_what_misses_a_limit_by_far_is_hopeless_and_says_the_figures(graph: Artifact, tmp_path: Path) -> None:
    seer = foresight(graph, tmp_path)
    fast = seer.foresee(planned(graph, "onnx-dynamic"))
    assert fast is not None
    seer = foresight(graph, tmp_path, memory=Size(fast.peak_bytes * 0.99))  # type: ignore[operator]
    assert seer.hopeless(planned(graph, "onnx-dynamic")) is None  # within the margin
    why = seer.hopeless(planned(graph, "nncf-ptq"))
    assert why is not None
    assert why.by == "prediction"
    assert "peak memory predicted at" in why.reason
    assert "times the limit of" in why.reason


def test_what_is_not_known_is_not_given_up(graph: Artifact, tmp_path: Path) -> None:
    seer = foresight(graph, tmp_path, latency_p50=Duration(1e-9))
    assert seer.foresee(planned(graph, "somebody-elses")) is None
    assert seer.hopeless(planned(graph, "somebody-elses")) is None
    stranger = msgspec.structs.replace(graph, source="sha256:2")
    assert seer.foresee(stranger) is None


# On recorded figures: forms of encoders that the rates were not fitted to, as bench/build_rows/prediction.py gives them


def recorded() -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return predicted and measured milliseconds of the forms of each encoder at each length of text."""
    path = Path(__file__).parent / "recorded" / "predictions.json"
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for encoder_name, _, tokens, predicted_ms, measured_ms in json.loads(path.read_text(encoding="utf-8")):
        found.setdefault((encoder_name, tokens), []).append((predicted_ms, measured_ms))
    return found


def test_no_form_that_keeps_a_limit_is_given_up_and_trials_are_saved() -> None:
    saved = trials = 0
    for forms in recorded().values():
        for limit in sorted(measured for _, measured in forms):
            best = float("inf")
            for predicted, measured in forms:
                best = min(best, predicted)
                far = is_far(predicted, limit, best, MARGIN)
                assert not (far and measured <= limit), (predicted, measured, limit)
                saved += far
                trials += 1
    assert saved > 0.05 * trials  # of all, at limits that each of the forms just keeps


def test_predictions_were_near_what_was_measured() -> None:
    errors = [abs(predicted / measured - 1) for forms in recorded().values() for predicted, measured in forms]
    assert len(errors) >= 40
    assert sum(error <= 0.25 for error in errors) >= 0.9 * len(errors)
