"""The architectures: models built from their configurations, exported, quantized, and compared with PyTorch.

``python -m scripts.architectures`` prints a table for ``docs/importing.md``, with the shapes of published models and
random weights; ``--small`` takes shapes of a few thousand weights, as the tests do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.converters.torch_parts import load_part
from skerry.build.export import CHECKED_SIZES, export_transformer
from skerry.build.importing import Origin, find_origin
from skerry.build.parity import likeness
from skerry.build.progress import Progress
from skerry.build.technique import Workbench
from skerry.build.techniques.onnx_dynamic import OnnxDynamic
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import SkerryError
from skerry.spec.pipeline import Model

Settings = dict[str, Any]

_TEXT: Settings = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 70,
}  # fmt: skip
_IMAGE: Settings = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A model to be made: its family, its class, the parts to export, and settings of a small and of its true size."""

    family: str
    kind: str
    small: Settings
    true: Settings = {}
    parts: tuple[str, ...] = ("",)


SHAPES: dict[str, Shape] = {
    "BERT base": Shape(family="bert", kind="BertModel", small=_TEXT),
    "MobileBERT": Shape(
        family="mobilebert", kind="MobileBertModel",
        small={**_TEXT, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    ),
    "TinyBERT 4×312": Shape(
        family="bert", kind="BertModel", small={**_TEXT, "hidden_size": 24, "intermediate_size": 96},
        true={"num_hidden_layers": 4, "hidden_size": 312, "intermediate_size": 1200},
    ),
    "MiniLM 6×384": Shape(
        family="bert", kind="BertModel", small={**_TEXT, "num_hidden_layers": 3},
        true={"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536},
    ),
    "multilingual MiniLM 12×384": Shape(
        family="xlm-roberta", kind="XLMRobertaModel", small=_TEXT,
        true={"num_hidden_layers": 12, "hidden_size": 384, "intermediate_size": 1536, "max_position_embeddings": 514,
              "vocab_size": 50_000},
    ),
    "DistilBERT": Shape(
        family="distilbert", kind="DistilBertModel",
        small={"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48,
               "max_position_embeddings": 70},
    ),
    "RoBERTa base": Shape(
        family="roberta", kind="RobertaModel", small=_TEXT,
        true={"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "ViT tiny": Shape(
        family="vit", kind="ViTForImageClassification", small=_IMAGE,
        true={"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_labels": 1000},
    ),
    "MobileNetV2 1.0": Shape(
        family="mobilenet_v2", kind="MobileNetV2ForImageClassification",
        small={"image_size": 32, "depth_multiplier": 0.25}, true={"num_labels": 1001},
    ),
    "MobileViT small": Shape(
        family="mobilevit", kind="MobileViTForImageClassification",
        small={"image_size": 32, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
               "num_attention_heads": 2},
        true={"num_labels": 1000},
    ),
    "CLIP ViT-B/32": Shape(
        family="clip", kind="CLIPModel", parts=("text", "vision"),
        small={"text_config": {**_TEXT, "projection_dim": 16}, "vision_config": {**_IMAGE, "projection_dim": 16},
               "projection_dim": 16},
    ),
    "Whisper tiny": Shape(
        family="whisper", kind="WhisperForConditionalGeneration", parts=("encoder", "decoder"),
        small={"vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
               "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48,
               "decoder_ffn_dim": 48, "num_mel_bins": 16, "max_source_positions": 30, "max_target_positions": 40,
               "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        true={"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6,
              "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536},
    ),
    "Moonshine tiny": Shape(
        family="moonshine", kind="MoonshineForConditionalGeneration", parts=("encoder", "decoder"),
        small={"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "encoder_num_hidden_layers": 1,
               "decoder_num_hidden_layers": 1, "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2,
               "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    ),
    "T5 small": Shape(
        family="t5", kind="T5ForConditionalGeneration", parts=("encoder", "decoder"),
        small={"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2},
    ),
    "Llama (135 M)": Shape(
        family="llama", kind="LlamaForCausalLM", small={**_TEXT, "num_key_value_heads": 1},
        true={"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
              "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
}  # fmt: skip
"""The shapes by name; an empty ``true`` is the default of the family's configuration."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one part: what it takes, the least cosine of fp32 and of int8, the sizes and the seconds."""

    name: str
    part: str
    inputs: str
    fp32: float
    int8: float
    fp32_bytes: int
    int8_bytes: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="shapes of a few thousand weights")
    parser.add_argument("names", nargs="*", help="only these")
    chosen = parser.parse_args(arguments)
    print("| architecture | part | takes | export | least cosine | int8 cosine | MB, fp32 → int8 | s |")
    print("|---|---|---|---|---|---|---|---|")
    failed = False
    for name, shape in SHAPES.items():
        if chosen.names and name not in chosen.names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = write(shape, Path(scratch) / "model", small=chosen.small)
            for part in shape.parts:
                try:
                    print(_row(judged(name, part, folder, Path(scratch))), flush=True)
                except SkerryError as error:
                    failed = True
                    print(f"| {name} | {part} | | no: {error.message} | | | | |", flush=True)
    return int(failed)


def write(shape: Shape, folder: Path, *, small: bool) -> Path:
    """Write a model with random weights as Hugging Face does."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(shape.family, **(shape.small if small else shape.true))
    # Several threads would wait for each other where others are at work too.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = getattr(transformers, shape.kind)(config)
    for module in model.modules():
        # The library's own start lets the signal of a deep network fade to denormal numbers.
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    model.save_pretrained(folder)
    return folder


def judged(name: str, part: str, folder: Path, scratch: Path) -> Line:
    """Export a part, quantize it, and compare both with PyTorch."""
    origin = find_origin(Model(from_=str(folder), task="tensors", part=part or None), folder)
    fp32 = scratch / f"{part or 'whole'}.onnx"
    start = time.monotonic()
    cosine = export_transformer(origin, "tensors", fp32)
    seconds = time.monotonic() - start
    int8, inputs = _int8_cosine(origin, fp32)
    return Line(
        name=name, part=part, inputs=inputs, fp32=cosine, int8=int8,
        fp32_bytes=fp32.stat().st_size, int8_bytes=_int8_path(fp32).stat().st_size, seconds=seconds,
    )  # fmt: skip


def quantized(origin: Origin, graph: Path) -> Path:
    """Quantize a graph dynamically, without texts to smooth by."""
    artifact = Artifact(
        form="onnx", folder=graph.parent, file=graph.name, files=(graph.name,), source=origin.digest, part=origin.part,
        task="tensors", max_tokens=origin.max_tokens,
    )  # fmt: skip
    target = _int8_path(graph).parent
    target.mkdir()
    OnnxDynamic().apply(artifact, {"smooth": 0.0}, Workbench(texts=(), progress=Progress(None)), target)
    return _int8_path(graph)


def _int8_path(graph: Path) -> Path:
    return graph.parent / f"{graph.stem}-int8" / "model.onnx"


def _int8_cosine(origin: Origin, graph: Path) -> tuple[float, str]:
    """Return the least cosine of the int8 form to PyTorch, and what the part takes."""
    import torch

    part = load_part(torch, origin.path, "tensors", origin.part)
    session = OnnxRuntime().load(quantized(origin, graph))
    with torch.no_grad():
        cosines = list(_cosines(torch, part, session))
    session.close()
    return min(cosines), ", ".join(one.name for one in part.inputs)


def _cosines(torch: Any, part: Any, session: Any) -> Iterator[float]:
    for sizes in CHECKED_SIZES[1:3]:
        example = part.example(torch, {**sizes, "tokens": min(sizes["tokens"], part.most)})
        taken = {spec.name for spec in session.describe().inputs}
        answers = session.run({name: tensor.numpy() for name, tensor in example.items() if name in taken})
        mask = example.get("attention_mask")
        for name, theirs in zip(part.outputs, part.module(*example.values()), strict=True):
            yield likeness(theirs.numpy(), answers[name], None if mask is None else mask.numpy(), scale=1.0)


def _row(line: Line) -> str:
    cells = (
        line.name, line.part, f"`{line.inputs}`".replace(", ", "`, `"), "ok",
        f"{line.fp32:.6f}", f"{line.int8:.4f}", f"{line.fp32_bytes / 1e6:.2f} → {line.int8_bytes / 1e6:.2f}",
        f"{line.seconds:.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
