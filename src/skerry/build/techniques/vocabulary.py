"""A vocabulary: the pieces of a ``tokenizer.json``, cut to some of them and numbered anew.

Every word can still be read afterwards: single characters stay, with the pieces that continue a word by one, so a word
whose own piece is gone is spelled.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from skerry.spec.errors import ModelCorruptError, ModelKindError

KINDS = ("WordPiece", "Unigram")
"""Kinds of tokenizers whose pieces stand for themselves. Those of BPE hang on the merges that make them."""


class Vocabulary:
    """The pieces of a tokenizer by their numbers.

    Raises
    ------
    ModelCorruptError
        The file is damaged.
    ModelKindError
        The tokenizer is of a kind whose vocabulary cannot be cut.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            self._model: dict[str, Any] = self._told["model"]
            kind = str(self._model.get("type") or ("WordPiece" if "continuing_subword_prefix" in self._model else ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelCorruptError(f"this tokenizer is damaged: {error}", where=str(path)) from error
        if kind not in KINDS:
            raise ModelKindError(
                f"a vocabulary of the kind {kind or '(none)'} cannot be cut", where=str(path),
                expected=f"one of {', '.join(KINDS)}",
            )  # fmt: skip
        self._where = str(path)
        self.kind = kind
        self.pieces = self._pieces()

    def __len__(self) -> int:
        return max(self.pieces) + 1 if self.pieces else 0

    def fallback(self) -> set[int]:
        """Return the numbers of the special pieces, of single characters and of bytes."""
        prefix = str(self._model.get("continuing_subword_prefix", "")) if self.kind == "WordPiece" else "▁"
        special = {int(one["id"]) for one in self._told.get("added_tokens", [])}
        unknown = self._model.get("unk_token") if self.kind == "WordPiece" else self._model.get("unk_id")
        found = set(special)
        for number, piece in self.pieces.items():
            bare = piece.removeprefix(prefix) if prefix else piece
            is_byte = piece.startswith("<0x") and piece.endswith(">")
            if len(bare) <= 1 or is_byte or unknown in {piece, number}:
                found.add(number)
        return found

    def cut(self, kept: Collection[int], path: Path) -> dict[int, int]:
        """Write a tokenizer with only some pieces; return the new number of each old one.

        The order stays, so that commoner pieces still come first.
        """
        numbers = {old: new for new, old in enumerate(sorted(kept))}
        told = json.loads(json.dumps(self._told))
        model = told["model"]
        if self.kind == "WordPiece":
            vocabulary = {piece: numbers[old] for piece, old in self._model["vocab"].items() if old in numbers}
            model["vocab"] = dict(sorted(vocabulary.items(), key=lambda pair: pair[1]))
        else:
            model["vocab"] = [pair for old, pair in enumerate(self._model["vocab"]) if old in numbers]
            if self._model.get("unk_id") is not None:
                model["unk_id"] = numbers[self._model["unk_id"]]
        for one in told.get("added_tokens", []):
            one["id"] = numbers[int(one["id"])]
        if told.get("padding"):
            told["padding"]["pad_id"] = numbers.get(int(told["padding"]["pad_id"]), 0)
        _renumber_processor(told.get("post_processor"), numbers)
        path.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        return numbers

    def _pieces(self) -> dict[int, str]:
        vocabulary = self._model["vocab"]
        if self.kind == "WordPiece":
            found = {int(number): str(piece) for piece, number in vocabulary.items()}
        else:
            found = {number: str(pair[0]) for number, pair in enumerate(vocabulary)}
        return found | {int(one["id"]): str(one["content"]) for one in self._told.get("added_tokens", [])}


def renumbered_settings(settings: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    """Return those of a configuration's entries that hold numbers of pieces (``pad_token_id``), renumbered."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name.endswith("_token_id") and isinstance(value, int):
            found[name] = numbers.get(value)
        elif name.endswith("_token_id") and isinstance(value, list):
            found[name] = [numbers[one] for one in value if one in numbers]
    return found


def _renumber_processor(told: Any, numbers: dict[int, int]) -> None:
    """Renumber the special pieces that a post-processor adds, in place."""
    if not isinstance(told, dict):
        return
    for one in told.get("processors") or ():
        _renumber_processor(one, numbers)
    for name in ("sep", "cls"):
        if isinstance(told.get(name), list):
            told[name][1] = numbers[int(told[name][1])]
    for one in (told.get("special_tokens") or {}).values():
        one["ids"] = [numbers[int(number)] for number in one["ids"]]


def used_pieces(rows: Iterable[Iterable[int]]) -> set[int]:
    """Return the numbers that occur in tokenized texts."""
    return {number for row in rows for number in row}
