"""Unseen models: two small encoders of other architectures, trained for minutes on this machine's text, and two texts.

``python -m bench.unseen_models FOLDER`` writes ``distilbert/``, ``xlm-roberta/``, ``manuals.txt`` and ``packages.txt``
into the folder, for ``python -m bench.build --unseen FOLDER/distilbert FOLDER/manuals.txt`` and its like. Nobody has
tuned anything on them. The models are trained so that their weights are not random: two halves of a docstring are to be
nearer to each other than to those of others (as in the inverse cloze task of Lee, Chang, Toutanova: Latent Retrieval
for Weakly Supervised Open Domain Question Answering, 2019). They are good for nothing but this.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import itertools
import json
import random
import re
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

VOCABULARY, LONGEST, BATCH = 8000, 128, 32
PASSAGES, LINES = 20_000, 2000
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ROFF = re.compile(r"^[.'].*$|\\f.|\\[&-]", re.MULTILINE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Write the texts, and train and write both models."""
    parser = argparse.ArgumentParser(prog="python -m bench.unseen_models", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=2.5, help="of processor time to train each model (2.5)")
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("manuals", manuals()), ("packages", packages())):
        kept = list(itertools.islice(dict.fromkeys(lines), LINES))
        (chosen.folder / f"{name}.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
        print(f"{name}.txt: {len(kept)} lines", file=sys.stderr)
    passages = list(itertools.islice(docstrings(), PASSAGES))
    print(f"{len(passages)} docstrings to train on", file=sys.stderr)
    for name, make in (("distilbert", distilbert), ("xlm-roberta", xlm_roberta)):
        target = chosen.folder / name
        target.mkdir(exist_ok=True)
        train(name, target, passages, make, 60 * chosen.minutes)
    return 0


def docstrings() -> Iterator[str]:
    """Yield docstrings of installed packages, of at least twelve words; nothing is imported for it."""
    places = {Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib")}
    paths = sorted(path for place in places for path in place.rglob("*.py"))
    random.Random(0).shuffle(paths)
    for path in paths:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                if len(text.split()) >= 12:
                    yield text[:800]


def manuals(folder: Path = Path("/usr/share/man")) -> Iterator[str]:
    """Yield sentences of this system's manual pages, or of its licences where it has no manuals."""
    paths = sorted([*folder.glob("man[158]/*.gz"), *Path("/usr/share/common-licenses").glob("*")])
    random.Random(1).shuffle(paths)
    for path in paths:
        try:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except OSError:
            continue
        plain = _ROFF.sub("", raw.decode("utf-8", "replace"))
        for paragraph in re.split(r"\n\s*\n", plain):
            found = (sentence.strip() for sentence in _SENTENCE.split(" ".join(paragraph.split())))
            yield from itertools.islice((one for one in found if 6 <= len(one.split()) <= 60 and one[0].isupper()), 2)


def packages(status: Path = Path("/var/lib/dpkg/status")) -> Iterator[str]:
    """Yield what the packages of this system are said to be, summaries and sentences of the descriptions."""
    for entry in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        found = re.search(r"^Description: (.+(?:\n .*)*)", entry, re.MULTILINE)
        if found:
            summary, *rest = found[1].split("\n")
            yield summary
            yield from (one for one in _SENTENCE.split(" ".join(" ".join(rest).split())) if len(one.split()) >= 5)


def distilbert(vocabulary: int) -> tuple[Any, Any, dict[str, Any]]:
    """Return a tokenizer to train, a configuration, and the tokenizer's settings: word pieces, 4 wide layers."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import DistilBertConfig

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    configuration = DistilBertConfig(
        vocab_size=vocabulary, dim=320, n_layers=4, n_heads=5, hidden_dim=1280, max_position_embeddings=LONGEST
    )
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return tokenizer, configuration, special


def xlm_roberta(vocabulary: int) -> tuple[Any, Any, dict[str, Any]]:
    """Return the same of other make: unigrams with blanks in them, 6 narrow layers, positions that begin at 2."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import XLMRobertaConfig

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    configuration = XLMRobertaConfig(
        vocab_size=vocabulary, hidden_size=256, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1024,
        max_position_embeddings=LONGEST + 2, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    return tokenizer, configuration, {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def train(name: str, target: Path, passages: Sequence[str], make: Any, seconds: float) -> None:
    """Train the tokenizer and then the encoder for so many seconds, and write the folder."""
    import torch
    import transformers

    models: Any = transformers.AutoModel
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer, configuration, special = make(VOCABULARY)
    _train_tokenizer(tokenizer, passages, special)
    configuration.vocab_size = tokenizer.get_vocab_size()
    configuration.pad_token_id = tokenizer.token_to_id(special["pad"])
    model = models.from_config(configuration)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    chance, begin, steps, loss = random.Random(0), time.process_time(), 0, float("nan")
    model.train()
    while time.process_time() - begin < seconds:
        loss = _step(torch, model, optimizer, tokenizer, configuration.pad_token_id, chance.sample(passages, BATCH))
        steps += 1
        if steps % 100 == 0:
            print(f"{name}: {steps} steps, loss {loss:.2f}", file=sys.stderr, flush=True)
    print(f"{name}: {steps} steps, loss {loss:.2f}", file=sys.stderr, flush=True)
    model.save_pretrained(target)
    _save_tokenizer(tokenizer, target, special)


def _train_tokenizer(tokenizer: Any, passages: Sequence[str], special: dict[str, str]) -> None:
    from tokenizers import processors, trainers

    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY, "special_tokens": list(special.values()), "show_progress": False
    }  # fmt: skip
    unigram = type(tokenizer.model).__name__ == "Unigram"
    trainer = (
        trainers.UnigramTrainer(unk_token="<unk>", **settings) if unigram else trainers.WordPieceTrainer(**settings)
    )
    tokenizer.train_from_iterator(passages, trainer)
    first, last = special["cls"], special["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )  # fmt: skip


def _step(torch: Any, model: Any, optimizer: Any, tokenizer: Any, pad: int, passages: Sequence[str]) -> float:
    """Take a step: each first half is to find its second half among those of the batch; return the loss."""
    halves: list[str] = []
    for words in (passage.split() for passage in passages):
        halves += [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
    vectors = _vectors(torch, model, tokenizer, pad, halves)
    likeness = vectors[0::2] @ vectors[1::2].T / 0.05
    loss = torch.nn.functional.cross_entropy(likeness, torch.arange(len(passages)))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _vectors(torch: Any, model: Any, tokenizer: Any, pad: int, texts: Sequence[str]) -> Any:
    """Return the mean over the tokens of each text, of length 1: float32 of shape (len(texts), dimension)."""
    rows = [encoding.ids[:48] for encoding in tokenizer.encode_batch(list(texts))]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    answer = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    return torch.nn.functional.normalize(answer.sum(dim=1), dim=-1)


def _save_tokenizer(tokenizer: Any, target: Path, special: dict[str, str]) -> None:
    """Write the tokenizer, its settings, and how tokens become a vector, as sentence-transformers has it."""
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": LONGEST, **{f"{kind}_token": token for kind, token in special.items()}})
    )
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (target / "modules.json").write_text(json.dumps([
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(modules)
    ]))  # fmt: skip
    (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST, "do_lower_case": False}))
    (target / "1_Pooling").mkdir(exist_ok=True)
    (target / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))


if __name__ == "__main__":
    sys.exit(run())
