"""Small real models: encoders of a few thousand weights, random, built from their configurations, and projects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.build.building import build_project
from skerry.build.cache import Cache
from skerry.build.progress import Progress
from skerry.build.report import Report
from skerry.spec.reading import read_project

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
SMALL = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 70,
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def quiet_hub() -> Iterator[None]:
    """No test of this room asks the network for anything."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    if before is None:
        del os.environ["HF_HUB_OFFLINE"]


def write_model(folder: Path, kind: str = "bert", architecture: str = "Model", **changes: Any) -> Path:
    """Write a random model of a family with its tokenizer, as Hugging Face does."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'skerry[build]'")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    settings = {**SMALL, **changes}
    if kind == "distilbert":
        settings = {
            "vocab_size": 64,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 48,
            "max_position_embeddings": 70,
        }
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    wanted = transformers.AutoModelForSequenceClassification if architecture == "Classifier" else transformers.AutoModel
    wanted.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small BERT; tests that change it copy it first."""
    return write_model(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def write_project(folder: Path, source: str, **model: Any) -> Path:
    """Write a pipeline file with one model, and twenty-odd texts."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{chr(97 + number % 26)}{chr(97 + number % 7)} {'word ' * (number % 5)}{chr(97 + number % 11)}"
        for number in range(60)
    ]
    (folder / "texts.txt").write_text("\n".join(lines))
    extra = "".join(f"    {key}: {value}\n" for key, value in model.items())
    (folder / "pipeline.yaml").write_text(
        f"skerry: 1\nname: tiny\nmodels:\n  m:\n    from: {source}\n    data: {{evaluate: texts.txt}}\n{extra}"
        "source: timer:///1s\nstages: [pass]\nsinks: ['stdout:']\n"
    )
    return folder


Build = Callable[..., Report]


@pytest.fixture
def build(shared_cache: Path) -> Build:
    def run(project: Path, cache: Path | None = None, **options: Any) -> Report:
        return build_project(read_project(project), Cache(cache or shared_cache), Progress(None), **options)

    return run
