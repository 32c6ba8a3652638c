"""The converters on a small real encoder, where their toolchains are installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from skerry.build import toolchain
from skerry.build.export import export_transformer
from skerry.build.importing import find_origin
from skerry.runtimes.modelfile import EXECUTORCH, LITERT, OPENVINO, kind_of
from skerry.spec.errors import ModelCorruptError, ModelMissingError, SpecError
from skerry.spec.pipeline import Model

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


@pytest.mark.parametrize("how", ["none", "int8_weights", "int4_weights", "int8"])
def test_openvino(how: str, onnx_file: Path, tmp_path: Path) -> None:
    target, texts = tmp_path / "tiny.xml", [[2, 7, 9, 3], list(range(4, 16))]
    answer = runner("openvino")("openvino_from_onnx.py", model=onnx_file, target=target, compress=how, calibrate=texts)
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
    with pytest.raises(SpecError, match="no compression"):
        run("openvino_from_onnx.py", model=onnx_file, target=target, compress="int7")
    with pytest.raises(SpecError, match="needs texts"):
        run("openvino_from_onnx.py", model=onnx_file, target=target, compress="int8")
    assert not target.exists()


def test_executorch(bert: Path, tmp_path: Path) -> None:
    target, run = tmp_path / "tiny.pte", runner("executorch")
    answer = run("executorch_from_torch.py", model=bert, target=target, batch=4, tokens=32, compress="int8")
    assert kind_of(target) is EXECUTORCH and answer["least_cosine"] > 0.98
    assert answer["outputs"][0]["shape"] == ["batch", "tokens", 32]
