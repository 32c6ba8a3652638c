"""Encoders of random weights: real ones in all but their answers, to measure how fast a machine computes them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.techniques.transformer import import_torch

MOST_TOKENS = 256
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder's shape: a family that transformers knows, and the settings that its configuration differs in."""

    name: str
    family: str = "bert"
    settings: dict[str, int]


def bert(name: str, layers: int, width: int, heads: int, inner: int, family: str = "bert") -> Shape:
    """Return a shape by its sizes, for families whose configuration has BERT's names."""
    settings = {
        "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner,
        "max_position_embeddings": MOST_TOKENS + 8,
    }  # fmt: skip
    return Shape(name=name, family=family, settings=settings)


def text_of(tokens: int) -> str:
    """Return a text of so many tokens, 3 at least, the first and the last of them the tokenizer's own."""
    return " ".join(_LETTERS[place % len(_LETTERS)] for place in range(max(1, tokens - 2)))


def write_encoder(shape: Shape, folder: Path) -> list[str]:
    """Write an encoder as Hugging Face does, with a tokenizer of letters, and return the names of its files.

    Raises ``DependencyError`` when PyTorch or transformers is not installed.
    """
    torch = import_torch()
    transformers = importlib.import_module("transformers")

    with contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(shape.family, vocab_size=len(_WORDS), **shape.settings)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    return [path.name for path in folder.iterdir()]


def artifact_of(shape: Shape, folder: Path) -> Artifact:
    """Return a written encoder as an artifact."""
    files = tuple(sorted(path.name for path in folder.iterdir() if path.suffix in {".json", ".safetensors"}))
    return Artifact(
        form="transformer", folder=folder, file="config.json",
        files=tuple(name for name in files if name not in {"tokenizer.json", "entry.json"}),
        source=f"shape:{msgspec.json.encode(shape, order='deterministic').decode()}",
        tokenizer=folder / "tokenizer.json", max_tokens=MOST_TOKENS,
    )  # fmt: skip


def _tokenizer() -> dict[str, Any]:
    """Return a WordPiece tokenizer in the format of the package tokenizers: a letter is a token."""
    vocabulary = {word: number for number, word in enumerate(_WORDS)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": None,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }  # fmt: skip
