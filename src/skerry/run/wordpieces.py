"""Word pieces: the vocabulary of a BERT-like tokenizer in a tenth of the memory.

The package ``tokenizers`` holds 30,522 pieces in two tables of strings, 7 MB in all. Here their bytes lie one after the
other, with an open-addressed table of their numbers: 0.7 MB. Normalizing and splitting into words stay the
package's; what it then does with words is in Y. Wu et al., Google's neural machine translation system, 2016,
section 4.1, with the longest match first: the same numbers come out, in the same time, as words met before are kept.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

_MOST_KEPT = 2048
"""Words whose pieces are kept: half a megabyte, and most of the words of logs and sentences."""

Words = Callable[[str], list[tuple[str, tuple[int, int]]]]
"""Splits a normalized text into words, each with its place."""


class _Added(msgspec.Struct, frozen=True):
    """A token that is found in texts before anything else is done to them."""

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether its letters are all that counts."""
        return bool(self.content) and not (self.single_word or self.lstrip or self.rstrip or self.normalized)


class _Pieces(msgspec.Struct, frozen=True):
    """The model of a ``tokenizer.json``."""

    type: Literal["WordPiece"]
    vocab: dict[str, int]
    unk_token: str
    continuing_subword_prefix: str
    max_input_chars_per_word: int


class _Padding(msgspec.Struct, frozen=True):
    """What a ``tokenizer.json`` says about padding."""

    pad_id: int


class _File(msgspec.Struct, frozen=True):
    """What is read here of a ``tokenizer.json``."""

    model: _Pieces
    added_tokens: list[_Added]
    padding: _Padding | None = None


class Vocabulary:
    """Numbers by pieces of text.

    Parameters
    ----------
    pieces:
        The pieces by their numbers, which begin with 0.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self._bytes = "".join(pieces).encode()
        self._ends = array("I", [0])
        self._mask = (2 << len(pieces).bit_length()) - 1
        self._table = array("I", bytes(4 * (self._mask + 1)))
        self.longest = max(map(len, pieces), default=0)
        end = 0
        for number, piece in enumerate(pieces, start=1):
            name = piece.encode()
            end += len(name)
            self._ends.append(end)
            slot = zlib.crc32(name) & self._mask
            while self._table[slot]:
                slot = slot + 1 & self._mask
            self._table[slot] = number

    def find(self, piece: str) -> int | None:
        """Return the number of a piece, ``None`` where there is no such piece."""
        name = piece.encode()
        slot = zlib.crc32(name) & self._mask
        while number := self._table[slot]:
            if self._bytes[self._ends[number - 1] : self._ends[number]] == name:
                return number - 1
            slot = slot + 1 & self._mask
        return None


class WordPieces:
    """The numbers of texts' word pieces, as the package ``tokenizers`` gives them."""

    def __init__(self, file: _File, normalized: Callable[[str], str] | None, words: Words, frame: _Frame) -> None:
        model = file.model
        self._unknown = (model.vocab[model.unk_token],)
        self._prefix = model.continuing_subword_prefix
        self._longest_word = model.max_input_chars_per_word
        self._vocabulary = Vocabulary(sorted(model.vocab, key=model.vocab.__getitem__))
        self._added = {added.content: (added.id,) for added in file.added_tokens}
        longest_first = sorted(map(re.escape, self._added), key=len, reverse=True)
        self._find_added = re.compile(f"({'|'.join(longest_first)})").split if longest_first else None
        self._normalized, self._words = normalized, words
        self._before, self._behind = frame
        self._kept: dict[str, tuple[int, ...]] = {}
        self._room = 0
        self.pad = file.padding.pad_id if file.padding else _usual_padding(model.vocab)

    def take(self, most: int) -> None:
        """Take at most this many tokens of a text, those that frame it included."""
        self._room = max(0, most - len(self._before) - len(self._behind))

    def batch(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Return the numbers of every text; ``TypeError`` or ``UnicodeEncodeError`` tells of one without UTF-8 form."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> list[int]:
        ids = list(self._before)
        end = len(ids) + self._room
        parts = self._find_added(text) if self._find_added else [text]
        for place, part in enumerate(parts):
            if place % 2:  # the split's own group: an added token
                ids.extend(self._added[part])
            elif part:
                self._extend(ids, part, end)
        del ids[end:]
        ids.extend(self._behind)
        return ids

    def _extend(self, ids: list[int], part: str, end: int) -> None:
        kept = self._kept
        for word, _ in self._words(self._normalized(part) if self._normalized else part):
            pieces = kept.get(word)
            if pieces is None:
                pieces = self._pieces(word)
                if len(kept) >= _MOST_KEPT:
                    kept.clear()
                kept[word] = pieces
            ids.extend(pieces)
            if len(ids) >= end:
                return

    def _pieces(self, word: str) -> tuple[int, ...]:
        """Cut a word into the longest pieces that there are, from its start; one without becomes the unknown one."""
        if len(word) > self._longest_word:
            return self._unknown
        found: list[int] = []
        start, size, find, longest = 0, len(word), self._vocabulary.find, self._vocabulary.longest
        while start < size:
            prefix = self._prefix if start else ""
            for end in range(min(size, start + longest), start, -1):
                number = find(prefix + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return self._unknown
        return tuple(found)


_Frame = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens before and behind every text."""


def read_word_pieces(path: Path) -> WordPieces | None:
    """Read a ``tokenizer.json``; ``None`` where it holds anything else than plain word pieces, or is damaged.

    Raises ``OSError`` where it cannot be read.
    """
    content = path.read_bytes()
    try:
        file = msgspec.json.decode(content, type=_File)
        rest = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    vocabulary, added = file.model.vocab, file.added_tokens
    plain = all(one.is_plain and vocabulary.get(one.content) == one.id for one in added)
    if not plain or file.model.unk_token not in vocabulary or not _is_counted(vocabulary):
        return None
    tokenizer = _without_vocabulary(file, rest)
    frame = _frame(tokenizer, vocabulary[file.model.unk_token])
    if tokenizer.pre_tokenizer is None or frame is None:
        return None
    normalized = tokenizer.normalizer.normalize_str if tokenizer.normalizer is not None else None
    return WordPieces(file, normalized, tokenizer.pre_tokenizer.pre_tokenize_str, frame)


def _is_counted(vocabulary: dict[str, int]) -> bool:
    """Tell whether the numbers are those from 0 on, each given once."""
    return len(set(vocabulary.values())) == len(vocabulary) == max(vocabulary.values(), default=-1) + 1


def _without_vocabulary(file: _File, rest: dict[str, msgspec.Raw]) -> Any:
    """Return the package's tokenizer with only the tokens that are not pieces of words."""
    from tokenizers import Tokenizer

    model = file.model
    kept = {name: model.vocab[name] for name in (model.unk_token, *(added.content for added in file.added_tokens))}
    small = msgspec.structs.replace(model, vocab=kept)
    described = {**rest, "model": small, "truncation": None, "padding": None}
    return Tokenizer.from_str(msgspec.json.encode(described).decode())


def _frame(tokenizer: Any, unknown: int) -> _Frame | None:
    """Return what comes before and behind a text, by way of one that is a single unknown word."""
    ids = tokenizer.encode_batch_fast(["x"])[0].ids
    if ids.count(unknown) != 1:
        return None
    place = ids.index(unknown)
    return tuple(ids[:place]), tuple(ids[place + 1 :])


def _usual_padding(vocabulary: dict[str, int]) -> int:
    return next((vocabulary[token] for token in ("[PAD]", "<pad>") if token in vocabulary), 0)
