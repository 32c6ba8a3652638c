"""Every architecture that the documentation names: built from its configuration, exported, quantized, compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.architectures import SHAPES, judged, write
from skerry.build.architecture import read_architecture
from skerry.build.export import export_transformer
from skerry.build.importing import find_origin
from skerry.run.encoder import load_encoder
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelKindError, SpecError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.pipeline import Model, Task

from .conftest import write_tokenizer

EVERY = [(name, part) for name, shape in SHAPES.items() for part in shape.parts]


class Zoo:
    """The small models by name, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> Path:
        pytest.importorskip("transformers", reason="transformers is not installed: pip install 'skerry[build]'")
        folder = self._folder / str(list(SHAPES).index(name))
        if not folder.exists():
            write(SHAPES[name], folder, small=True)
            write_tokenizer(folder)
        return folder


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize(("name", "part"), EVERY, ids=[f"{name} {part}".strip() for name, part in EVERY])
def test_exported_and_quantized_it_answers_as_torch_does(name: str, part: str, zoo: Zoo, tmp_path: Path) -> None:
    line = judged(name, part, zoo[name], tmp_path)
    assert line.fp32 > 0.9999
    assert line.int8 > 0.99
    assert line.int8_bytes < line.fp32_bytes


def exported(folder: Path, target: Path, task: Task = "tensors", part: str | None = None) -> Path:
    origin = find_origin(Model(from_=str(folder), task=task, part=part), folder)
    export_transformer(origin, task, target)
    return target


def test_inputs_keep_their_names_and_free_axes(zoo: Zoo, tmp_path: Path) -> None:
    session = OnnxRuntime().load(exported(zoo["T5 small"], tmp_path / "t5.onnx", part="decoder"))
    info = session.describe()
    assert {spec.name: spec.shape for spec in info.inputs} == {
        "decoder_input_ids": ("batch", "tokens"),
        "encoder_hidden_states": ("batch", "source", 32),
        "encoder_attention_mask": ("batch", "source"),
    }
    assert {spec.name: spec.shape for spec in info.outputs} == {"logits": ("batch", "tokens", 64)}
    session.close()


def test_encoder_and_decoder_together_answer_as_the_whole(zoo: Zoo, tmp_path: Path) -> None:
    """What a decoder takes is what the encoder's graph gives."""
    import torch
    import transformers

    folder = zoo["Whisper tiny"]
    encoder = OnnxRuntime().load(exported(folder, tmp_path / "encoder.onnx", part="encoder"))
    decoder = OnnxRuntime().load(exported(folder, tmp_path / "decoder.onnx", part="decoder"))
    sound = torch.randn(2, 16, 60, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1, 9, 33, 7], [1, 5, 5, 60]])
    hidden = encoder.run({"input_features": sound.numpy()})["last_hidden_state"]
    ours = decoder.run({"decoder_input_ids": ids.numpy(), "encoder_hidden_states": hidden})["logits"]
    whole = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = whole(input_features=sound, decoder_input_ids=ids).logits.numpy()
    assert np.allclose(ours, theirs, atol=1e-4)
    encoder.close()
    decoder.close()


def test_a_tower_of_texts_is_a_text_encoder(zoo: Zoo, tmp_path: Path) -> None:
    """With ``task: embedding`` the tower's own vector is taken, without a pooling over tokens."""
    origin = find_origin(Model(from_=str(zoo["CLIP ViT-B/32"]), part="text"), tmp_path)
    assert (origin.pooling, origin.max_tokens, origin.part) == ("none", 70, "text")
    export_transformer(origin, "embedding", tmp_path / "text.onnx")
    manifest = ModelManifest(
        source="clip", task="embedding", tokenizer=str(origin.tokenizer), max_tokens=origin.max_tokens,
        pooling=origin.pooling, normalize=origin.normalize,
    )  # fmt: skip
    encoder = load_encoder(tmp_path, manifest, Variant(name="fp32", runtime="onnxruntime", file="text.onnx"))
    vectors = encoder.embed(["ab cd", "a"])
    assert vectors.shape == (2, 16)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    encoder.close()


def test_an_encoder_of_texts_is_pooled(zoo: Zoo, tmp_path: Path) -> None:
    origin = find_origin(Model(from_=str(zoo["T5 small"]), part="encoder"), tmp_path)
    assert (origin.pooling, origin.normalize) == ("mean", True)
    info = OnnxRuntime().load(exported(zoo["T5 small"], tmp_path / "e.onnx", "embedding", "encoder")).describe()
    assert [spec.name for spec in info.outputs] == ["last_hidden_state"]


@pytest.mark.parametrize(
    ("name", "part", "match"),
    [
        ("CLIP ViT-B/32", None, r"(?s)has several parts.*`part: text` or `part: vision`"),
        ("Whisper tiny", None, r"(?s)has several parts.*`part: encoder` or `part: decoder`"),
        ("CLIP ViT-B/32", "visoin", r"(?s)no part 'visoin'.*did you mean 'vision'"),
        ("BERT base", "encoder", r"has no part 'encoder'"),
    ],
)
def test_parts_have_to_be_named(name: str, part: str | None, match: str, zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=match):
        find_origin(Model(from_=str(zoo[name]), task="tensors", part=part), tmp_path)


@pytest.mark.parametrize(("name", "part"), [("ViT tiny", None), ("CLIP ViT-B/32", "vision"), ("T5 small", "decoder")])
def test_what_takes_no_text_is_no_text_encoder(name: str, part: str | None, zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ModelKindError, match=r"(?s)takes no text.*task: tensors"):
        find_origin(Model(from_=str(zoo[name]), part=part), tmp_path)


def test_an_architecture_of_ones_own_is_refused_and_said_why(tmp_path: Path) -> None:
    config = {"model_type": "mine", "vocab_size": 9, "auto_map": {"AutoModel": "modeling_mine.MyModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_mine.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(ModelKindError, match=r"(?s)as a program, which is never run.*ONNX"):
        read_architecture(tmp_path)


def test_inputs_that_cannot_be_told_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    """A model of time series takes what no configuration describes alike."""
    import transformers

    config = transformers.PatchTSTConfig(
        num_input_channels=2, context_length=32, patch_length=8, patch_stride=8, d_model=16, num_hidden_layers=1,
        num_attention_heads=2, ffn_dim=16,
    )  # fmt: skip
    transformers.PatchTSTModel(config).save_pretrained(tmp_path / "series")
    with pytest.raises(ModelKindError, match=r"takes past_values.*cannot be told"):
        exported(tmp_path / "series", tmp_path / "x.onnx")
