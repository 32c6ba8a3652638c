"""The converters on a small real encoder, where their toolchains are installed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scripts.architectures import SHAPES, write
from skerry.build import toolchain
from skerry.build.converters.torch_parts import load_part
from skerry.build.export import export_transformer
from skerry.build.importing import find_origin
from skerry.build.parity import likeness
from skerry.build.progress import Progress
from skerry.build.technique import Workbench, techniques
from skerry.build.techniques.convert_litert import ConvertLiteRt
from skerry.run.encoder import load_encoder
from skerry.runtimes.litert import LiteRtRuntime
from skerry.runtimes.modelfile import EXECUTORCH, LITERT, OPENVINO, kind_of
from skerry.spec.errors import ModelCorruptError, ModelMissingError, SpecError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.pipeline import Model

from .test_importing import artifact_of, origin_of

Run = Callable[..., dict]


def runner(name: str) -> Run:
    """Return what runs a converter of a toolchain; the test is skipped where that is not installed."""
    if toolchain.find(name) is None:
        pytest.skip(f"the toolchain {name} is not installed: skerry toolchain install {name}")
    return lambda script, **request: toolchain.run(name, script, {key: _plain(value) for key, value in request.items()})


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


@pytest.fixture(scope="module")
def litert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A LiteRT model with two lengths, and the converter's answer."""
    target = tmp_path_factory.mktemp("litert") / "tiny.tflite"
    return target, runner("litert")("litert_from_torch.py", model=bert, target=target, buckets=[16, 8])


def test_litert_has_a_signature_for_each_length_and_one_set_of_weights(litert: tuple[Path, dict]) -> None:
    target, answer = litert
    assert answer["signatures"] == ["tokens_8", "tokens_16"] and answer["least_cosine"] > 0.9999
    assert kind_of(target) is LITERT and answer["bytes"] == target.stat().st_size
    assert not list(target.parent.glob("*.part"))


def test_litert_is_quantized_by_recipe_by_rules_and_by_calibration(litert: tuple[Path, dict], tmp_path: Path) -> None:
    run, source = runner("litert"), litert[0]
    made = {
        "recipe": {"recipe": "dynamic_wi8_afp32"},
        "rules": {"rules": [{"bits": 8}, {"regex": ".*BertOutput.*", "bits": 0}]},
        "static": {"recipe": "static_wi8_ai16", "calibrate": [[2, 7, 9, 3], list(range(4, 16))]},
    }
    sizes = {}
    for name, request in made.items():
        target = tmp_path / f"{name}.tflite"
        sizes[name] = run("litert_quantize.py", source=source, target=target, **request)["bytes"]
        assert kind_of(target) is LITERT
    assert sizes["recipe"] < sizes["rules"] < litert[1]["bytes"]


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({"recipe": "no_such"}, r"(?s)no recipe 'no_such'.*dynamic_wi8_afp32"),
        ({"rules": [{"bit": 8}]}, "no key 'bit'"),
        ({"rules": [{"bits": 8, "granularity": "row"}]}, "cannot be used"),
        ({"recipe": "static_wi8_ai8"}, "needs texts to calibrate on"),
        ({}, "a recipe or rules are needed"),
    ],
)
def test_litert_quantization_refuses(litert: tuple[Path, dict], tmp_path: Path, request_: dict, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        runner("litert")("litert_quantize.py", source=litert[0], target=tmp_path / "q.tflite", **request_)
    assert not list(tmp_path.iterdir())


def test_a_litert_file_beside_its_tokenizer_is_a_model_to_build(
    litert: tuple[Path, dict], onnx_file: Path, bert: Path, tmp_path: Path
) -> None:
    """It is its own baseline, and answers as the ONNX graph of the same weights does."""
    pytest.importorskip("ai_edge_litert", reason="the runtime is not installed: pip install 'skerry[litert]'")
    shutil.copy(litert[0], tmp_path / "tiny.tflite")
    shutil.copy(onnx_file, tmp_path / "tiny.onnx")
    shutil.copy(bert / "tokenizer.json", tmp_path)
    vectors = []
    for name, runtime in (("tiny.tflite", "litert"), ("tiny.onnx", "onnxruntime")):
        origin = find_origin(Model(from_=name, max_tokens=16), tmp_path)
        assert origin.kind == ("litert" if runtime == "litert" else "onnx")
        manifest = ModelManifest(
            source=name, task="embedding", tokenizer="tokenizer.json", max_tokens=origin.max_tokens, dimension=32
        )
        encoder = load_encoder(tmp_path, manifest, Variant(name="given", runtime=runtime, file=name))
        vectors.append(encoder.embed(["ab cd ef", "a", "abc " * 5]))
        encoder.close()
    assert np.allclose(*vectors, atol=1e-4)


def test_a_model_of_pictures_becomes_litert_by_the_same_technique(tmp_path: Path) -> None:
    """From a folder to a file that answers as PyTorch does, which is then a model to build itself."""
    pytest.importorskip("ai_edge_litert", reason="the runtime is not installed: pip install 'skerry[litert]'")
    runner("litert")
    folder = write(SHAPES["ViT tiny"], tmp_path / "vit", small=True)
    given = artifact_of(origin_of(folder, task="tensors"))
    bench = Workbench(texts=(), progress=Progress(None), toolchain=toolchain.run)
    made = ConvertLiteRt().apply(given, {}, bench, tmp_path)
    origin = origin_of(made.path, task="tensors")
    assert (made.form, origin.kind, origin.tokenizer) == ("litert", "litert", None)
    session = LiteRtRuntime().load(origin.path)
    assert {spec.name: spec.shape[1:] for spec in session.describe().inputs} == {"pixel_values": (3, 32, 32)}
    part = load_part(importlib.import_module("torch"), folder, "tensors", "")
    example = part.example(importlib.import_module("torch"))
    theirs = part.module(*example.values())[0].detach().numpy()
    assert likeness(theirs, session.run({name: row.numpy() for name, row in example.items()})["logits"]) > 0.9999
    session.close()


def test_techniques_for_whole_text_encoders_refuse_parts(bert: Path) -> None:
    whole = artifact_of(origin_of(bert, task="tensors"))
    tower = msgspec.structs.replace(whole, part="text", task="embedding", tokenizer=bert / "tokenizer.json")
    for name in ("prune-layers", "prune-ffn", "convert-litert"):
        assert "the part text" in techniques()[name]().refuses(tower)
        assert name == "convert-litert" or techniques()[name]().refuses(whole)


def test_weights_cut_short_are_told(bert: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in bert.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelCorruptError, match="cannot be read"):
        runner("litert")("litert_from_torch.py", model=broken, target=tmp_path / "x.tflite", buckets=[8])
    assert not (tmp_path / "x.tflite").exists()


def test_a_length_beyond_the_model_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="1 to 70"):
        runner("litert")("litert_from_torch.py", model=bert, target=tmp_path / "x.tflite", buckets=[8, 512])


@pytest.fixture(scope="module")
def onnx_file(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small encoder as ONNX."""
    target = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    model = msgspec.convert({"from": str(bert), "task": "embedding"}, Model)
    export_transformer(find_origin(model, bert.parent), "embedding", target)
    return target


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        ("openvino_from_onnx.py", {"half": True}),
        ("openvino_quantize.py", {"how": "weights", "mode": "int8_sym"}),
        ("openvino_quantize.py", {"how": "weights", "mode": "int4_sym"}),
        ("openvino_quantize.py", {"how": "ptq", "calibrate": [[2, 7, 9, 3], list(range(4, 16))]}),
    ],
)
def test_openvino(script: str, asked: dict, onnx_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.xml"
    answer = runner("openvino")(script, model=onnx_file, target=target, **asked)
    assert answer["bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert answer["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert kind_of(target) is OPENVINO and target.with_suffix(".bin").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.bin", "tiny.xml"]


def test_openvino_refuses(onnx_file: Path, tmp_path: Path) -> None:
    run, target = runner("openvino"), tmp_path / "tiny.xml"
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(ModelCorruptError, match="cannot read"):
        run("openvino_from_onnx.py", model=damaged, target=target)
    with pytest.raises(ModelMissingError):
        run("openvino_from_onnx.py", model=tmp_path / "absent.onnx", target=target)
    with pytest.raises(SpecError, match="must end in"):
        run("openvino_from_onnx.py", model=onnx_file, target=tmp_path / "tiny.bin")
    assert not target.exists()


def test_executorch(bert: Path, tmp_path: Path) -> None:
    target, run = tmp_path / "tiny.pte", runner("executorch")
    answer = run("executorch_from_torch.py", model=bert, target=target, batch=4, tokens=32, compress="int8")
    assert kind_of(target) is EXECUTORCH and answer["least_cosine"] > 0.98
    assert answer["outputs"][0]["shape"] == ["batch", "tokens", 32]
