"""``trim-vocabulary``: the embedding keeps the rows of the pieces that the user's texts need, and of a fallback.

For small encoders the embedding is half of all weights. Rows of other pieces are left out and a word that needed one is
spelled by smaller pieces: nothing becomes unreadable, rare words are read less well. The new folder holds the new
tokenizer and ``coverage.json``, which tells what share of texts that were not looked at is read as before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import FILE, Graph, refuses_onnx
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.transformer import Transformer
from skerry.build.techniques.vocabulary import Vocabulary, renumbered_settings, used_pieces
from skerry.run.tokens import VocabularyTokens
from skerry.spec.errors import ModelKindError, SpecError
from skerry.spec.ports import Array

TOKENIZER, COVERAGE = "tokenizer.json", "coverage.json"
_COMMON = (20_000, 12_000, 6000)
_HELD_OUT = 5
"""One text of so many is left out when coverage is estimated."""


class TrimSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    common:
        How many of the vocabulary's first pieces stay whatever the texts hold: vocabularies begin with the
        commonest ones.
    """

    common: Annotated[int, msgspec.Meta(ge=0)] = 12_000


class TrimVocabulary:
    """A smaller embedding and its tokenizer."""

    name: ClassVar[str] = "trim-vocabulary"
    kind: ClassVar[Kind] = "prune"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "embedding rows of the user's words and of a fallback that spells all others"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return "" if artifact.form == "transformer" else refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return falling counts of common pieces, those that cut something."""
        require_accepted(self.refuses(artifact), self.name)
        size = len(Vocabulary(artifact.vocabulary))
        return [plain(TrimSettings(common=common)) for common in (*_COMMON, 0) if common < size]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the model, its tokenizer and ``coverage.json``."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(TrimSettings, settings, self.name)
        if not workbench.texts:
            raise SpecError("there is no text whose words are to be kept", expected="at least one text")
        vocabulary = Vocabulary(artifact.vocabulary)
        tokens = VocabularyTokens(artifact.vocabulary, artifact.max_tokens)
        rows = [list(row) for row in tokens.many(workbench.texts)]
        always = vocabulary.fallback() | {number for number in vocabulary.pieces if number < told.common}
        kept = (always | used_pieces(rows)) & vocabulary.pieces.keys()
        coverage = _coverage(always, rows)
        numbers = vocabulary.cut(kept, target / TOKENIZER)
        change = _cut_transformer if artifact.form == "transformer" else _cut_graph
        files = change(artifact, numbers, workbench, target)
        note = {"pieces": len(kept), "pieces_before": len(vocabulary), **coverage}
        (target / COVERAGE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        return forged(artifact, self, settings, target, (*files, TOKENIZER), tokenizer=target / TOKENIZER)


def _coverage(always: set[int], rows: list[list[int]]) -> dict[str, float]:
    """Return the shares of pieces and of texts that stay as they are, for texts whose own words were not kept."""
    seen = always | used_pieces(row for number, row in enumerate(rows) if number % _HELD_OUT)
    held_out = rows[::_HELD_OUT]
    known = [sum(piece in seen for piece in row) for row in held_out]
    return {
        "held_out_pieces": round(sum(known) / max(sum(map(len, held_out)), 1), 4),
        "held_out_texts": round(
            sum(count == len(row) for count, row in zip(known, held_out, strict=True)) / len(held_out), 4
        ),
    }


def _places(numbers: dict[int, int], size: int, where: Path) -> list[int]:
    """Return the rows that stay, in their new order."""
    places = sorted(numbers, key=numbers.__getitem__)
    if places and places[-1] >= size:
        raise ModelKindError(f"the tokenizer has pieces beyond the {size} rows of the embedding", where=str(where))
    return places


def _cut_transformer(
    artifact: Artifact, numbers: dict[int, int], workbench: Workbench, target: Path
) -> tuple[str, ...]:
    transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
    torch, model = transformer.torch, transformer.model
    table = model.get_input_embeddings()
    places = _places(numbers, len(table.weight), artifact.folder)
    smaller = torch.nn.Embedding.from_pretrained(
        table.weight.detach()[places].clone(), freeze=False,
        padding_idx=None if table.padding_idx is None else numbers.get(table.padding_idx),
    )  # fmt: skip
    model.set_input_embeddings(smaller)
    model.config.vocab_size = len(places)
    for name, value in renumbered_settings(model.config.to_dict(), numbers).items():
        setattr(model.config, name, value)
    return tuple(name for name in transformer.save(target) if name not in {TOKENIZER, COVERAGE})


def _cut_graph(artifact: Artifact, numbers: dict[int, int], workbench: Workbench, target: Path) -> tuple[str, ...]:
    graph = Graph(artifact.path)
    users = graph.users()
    found = [node for node in graph.tables() if node.input[1] == "input_ids"]
    if len(found) != 1 or len(users[found[0].input[0]]) != 1:
        raise ModelKindError("the graph has no one table that token ids are looked up in", where=str(artifact.path))
    table: Array = graph.array(found[0].input[0])
    places = _places(numbers, len(table), artifact.path)
    found[0].input[0] = graph.put(f"{found[0].input[0]}_kept", table[places].copy())
    if any(node is not found[0] for node in users["input_ids"] if node.op_type in {"Equal", "NotEqual"}):
        raise ModelKindError("the graph compares token ids with fixed numbers", where=str(artifact.path))
    graph.save(target / FILE)
    return (FILE,)
