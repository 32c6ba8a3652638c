"""What quantizing does to small real models, beyond the contract."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.artifact import Artifact
from skerry.build.search import SETTINGS
from skerry.build.technique import Workbench
from skerry.build.techniques import onnx_dynamic
from skerry.build.techniques.export_onnx import ExportOnnx
from skerry.build.techniques.graph import Graph, import_onnx
from skerry.build.techniques.integers import by_block, by_column, by_row, sums_saturate
from skerry.build.techniques.onnx_dynamic import OnnxDynamic
from skerry.build.techniques.onnx_fp16 import OnnxHalf
from skerry.build.techniques.onnx_static import OnnxStatic
from skerry.build.techniques.onnx_weight_only import OnnxWeightOnly
from skerry.build.techniques.prune_ffn import PruneFfn
from skerry.build.techniques.samples import Samples
from skerry.build.techniques.sensitivity import sensitivities
from skerry.build.techniques.smoothing import smooth
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelKindError, SpecError
from skerry.testing.techniques import vectors

from ..conftest import write_model
from .conftest import LINES, Family, folder_artifact


def cosine(one: Artifact, other: Artifact) -> float:
    """Return the mean cosine between two models' vectors of the texts."""
    return float((vectors(one, LINES) * vectors(other, LINES)).sum(axis=1).mean())


def weights(seed: int, rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@given(st.integers(0, 1000), st.integers(1, 70), st.integers(1, 70))
def test_rounding_is_never_off_by_more_than_half_a_scale(seed: int, rows: int, columns: int) -> None:
    array = weights(seed, rows, columns)
    for rounded, scales in (
        (by_column(array), by_column(array).scales),
        (by_row(array), by_row(array).scales[:, None]),
    ):
        assert (np.abs(rounded.restored - array) <= np.abs(scales) * 0.5001).all()
    for bits in (4, 8):
        found = by_block(array, bits, 32)
        scales = np.repeat(np.abs(found.scales), 32, axis=1)[:, :columns]
        # The number opposite to the largest one has no integer of its own, and is a whole scale off at the most.
        assert (np.abs(found.restored - array) <= scales * 1.0001).all()


def test_zeros_stay_zeros() -> None:
    nothing = np.zeros((4, 32), dtype=np.float32)
    for rounded in (by_column(nothing), by_row(nothing), by_block(nothing, 4, 32), by_block(nothing, 8, 32)):
        assert not rounded.restored.any() and np.isfinite(rounded.scales).all()


def test_fewer_bits_fit_into_sixteen() -> None:
    assert np.abs(by_column(weights(0, 30, 30), reduced=True).integers).max() == 63


@pytest.mark.parametrize(
    ("instructions", "saturate"),
    [(("avx2",), True), (("avx2", "avx512_vnni"), False), (("avx2", "avx_vnni"), False), (("neon", "dotprod"), False)],
)
def test_which_processors_saturate(instructions: tuple[str, ...], saturate: bool) -> None:
    assert sums_saturate(instructions) is saturate


def test_where_sums_saturate_weights_of_seven_bits_are_tried(
    exported: Artifact, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced = {}
    for saturate in (False, True):
        monkeypatch.setattr(onnx_dynamic, "sums_saturate", lambda saturate=saturate: saturate)
        tried = OnnxDynamic().candidates(exported, workbench)[:SETTINGS]
        reduced[saturate] = [one["reduce_range"] for one in tried].count(True)
    assert reduced == {False: 0, True: 1}


def write_gemms(path: Path, names: list[str]) -> None:
    """Write a graph of layers one behind the other, a ``Gemm`` for each name; an empty one is none."""
    onnx = import_onnx()
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    arrays = [onnx.numpy_helper.from_array(weights(place, 4, 4), f"w{place}") for place in range(len(names))]
    nodes = [
        helper.make_node("Gemm", [f"x{place}", f"w{place}"], [f"x{place + 1}"], name=name)
        for place, name in enumerate(names)
    ]
    ends = [helper.make_tensor_value_info(name, floats, ["rows", 4]) for name in ("x0", f"x{len(names)}")]
    graph = helper.make_graph(nodes, "gemms", ends[:1], ends[1:], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("names", [["MatMul_1", "", "x"], ["", "", "Gemm_0"], ["a", "b"]])
def test_layers_without_a_name_get_one_of_their_own(names: list[str], tmp_path: Path) -> None:
    write_gemms(tmp_path / "given.onnx", names)
    graph = Graph(tmp_path / "given.onnx")
    layers = graph.layers()
    assert [layer.weight for layer in layers] == [f"w{place}" for place in range(len(names))]
    assert len({layer.name for layer in layers}) == len(names)
    graph.save(tmp_path / "made.onnx")
    found = []
    for name in ("given.onnx", "made.onnx"):
        session = OnnxRuntime().load(tmp_path / name)
        found.append(next(iter(session.run({"x0": weights(9, 3, 4)}).values())))
        session.close()
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_smoothing_alone_changes_no_answer(
    exported: Artifact, workbench: Workbench, tmp_path: Path, strength: float
) -> None:
    graph = Graph(exported.path)
    before = [graph.array(layer.weight) for layer in graph.layers()]
    samples = Samples(exported, workbench)
    smooth(graph, samples, strength)
    assert not all(
        np.array_equal(one, graph.array(layer.weight)) for one, layer in zip(before, graph.layers(), strict=True)
    )
    graph.save(tmp_path / "model.onnx")
    found = [samples.vectors(path)[0] for path in (exported.path, tmp_path / "model.onnx")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_the_layer_with_an_outlier_is_the_most_sensitive(exported: Artifact, workbench: Workbench) -> None:
    graph = Graph(exported.path)
    victim = graph.layers()[3]
    weight = graph.array(victim.weight).copy()
    weight[:, :] = 0.01 * np.sign(weight)
    weight[0] = 5.0  # one row sets every column's scale, so the others are rounded away
    graph.put(victim.weight, weight)
    ranked = sensitivities(graph, exported, workbench, lambda array: by_column(array).restored, inputs=False)
    assert ranked[0][0] == victim.name
    assert [cost for _, cost in ranked] == sorted((cost for _, cost in ranked), reverse=True)


@pytest.mark.parametrize("kind", [OnnxDynamic, OnnxStatic])
def test_int8_is_close_and_a_quarter(
    kind: type[OnnxDynamic] | type[OnnxStatic], exported: Artifact, workbench: Workbench, tmp_path: Path
) -> None:
    made = kind().apply(exported, {}, workbench, tmp_path)
    assert cosine(exported, made) > 0.99
    operators = {node.op_type for node in Graph(made.path).nodes}
    assert operators & {"MatMulInteger", "QuantizeLinear"}


def test_named_layers_are_spared(exported: Artifact, workbench: Workbench, tmp_path: Path) -> None:
    names = [layer.name for layer in Graph(exported.path).layers()][:2]
    for spared, operator in (("fp32", "MatMul"), ("blocks", "MatMulNBits")):
        target = tmp_path / spared
        target.mkdir()
        made = OnnxDynamic().apply(exported, {"exclude": names, "spared": spared}, workbench, target)
        kinds = {node.name: node.op_type for node in Graph(made.path).nodes}
        assert [kinds[name] for name in names] == [operator, operator]
    with pytest.raises(ModelKindError, match="no layer 'nowhere'"):
        OnnxDynamic().apply(exported, {"exclude": ["nowhere"]}, workbench, tmp_path)


def test_fewer_bits_are_smaller_and_less_exact(family: Family, workbench: Workbench, tmp_path: Path) -> None:
    wide = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
    (tmp_path / "onnx").mkdir()
    base = ExportOnnx().apply(family("bert", **wide), {}, workbench, tmp_path / "onnx")
    tried = [
        {"bits": 8, "embedding": "int8"}, {"bits": 4, "embedding": "int8"}, {"bits": 4, "embedding": "int4"},
    ]  # fmt: skip
    made = []
    for number, settings in enumerate(tried):
        (tmp_path / str(number)).mkdir()
        made.append(OnnxWeightOnly().apply(base, settings, workbench, tmp_path / str(number)))
    sizes = [base.size, *(one.size for one in made)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    close = [cosine(base, one) for one in made]
    assert close == sorted(close, reverse=True) and close[0] > 0.999 and close[-1] > 0.9
    assert next(one.version for one in Graph(made[-1].path).model.opset_import if not one.domain) == 17


@pytest.mark.parametrize("settings", [{}, {"type": "bfloat16"}, {"compute": "fp16"}])
def test_half_precision(exported: Artifact, workbench: Workbench, tmp_path: Path, settings: dict[str, str]) -> None:
    made = OnnxHalf().apply(exported, settings, workbench, tmp_path)
    assert made.size < exported.size
    assert cosine(exported, made) > 0.999


def test_what_is_quantized_is_refused(exported: Artifact, workbench: Workbench, tmp_path: Path) -> None:
    made = OnnxDynamic().apply(exported, {}, workbench, tmp_path)
    assert "already" in OnnxWeightOnly().refuses(made)
    assert not any(layer.name for layer in Graph(made.path).layers())


def test_no_texts_are_told(exported: Artifact, workbench: Workbench, tmp_path: Path) -> None:
    without = msgspec.structs.replace(workbench, texts=())
    with pytest.raises(SpecError, match="no text to calibrate"):
        OnnxDynamic().apply(exported, {"smooth": 0.5}, without, tmp_path)
    assert OnnxDynamic().apply(exported, {"smooth": 0.0}, without, tmp_path).size


def test_a_classifier_is_pruned_exported_and_quantized(
    workbench: Workbench, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_model(tmp_path_factory.mktemp("labels") / "bert", architecture="Classifier", num_labels=3)
    model = folder_artifact(folder, task="classification", pooling="none", normalize=False, dimension=3)
    original = vectors(model, LINES)
    for kind, settings in ((PruneFfn, {"keep": 0.9}), (ExportOnnx, {}), (OnnxDynamic, {})):
        target = tmp_path / kind.name
        target.mkdir()
        model = kind().apply(model, settings, workbench, target)
    assert [step.technique for step in model.steps] == ["prune-ffn", "export-onnx", "onnx-dynamic"]
    found = vectors(model, LINES)
    assert found.shape == (len(LINES), 3)
    assert np.abs(found - original).max() < 0.1


@pytest.mark.parametrize("kind", ["distilbert", "albert", "roberta", "electra", "mpnet"])
def test_other_families_are_quantized_without_code_of_their_own(
    kind: str, family: Family, workbench: Workbench, tmp_path: Path
) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "int8").mkdir()
    model = family(kind)
    base = ExportOnnx().apply(model, {}, workbench, tmp_path / "onnx")
    made = OnnxDynamic().apply(base, {}, workbench, tmp_path / "int8")
    assert cosine(base, made) > 0.98
