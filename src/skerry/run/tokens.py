"""Tokens: text as the numbers that an encoder takes.

A tokenizer reads a whole text before it cuts it to length, so a line of 10 MB would cost seconds for 256 tokens. So a
text is cut before: to 16 characters per token, where English words and log lines have 3 to 5. A 10 MB log line then
costs 1 ms instead of 5 s. If the cut text gives fewer tokens than there is room for (long words, blanks), four times
as much is taken, up to 64 Ki characters: only a text whose first 64 Ki characters hold fewer tokens than the limit
is read differently from an uncut one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from skerry.spec.errors import DependencyError, ModelCorruptError, ModelMissingError

CHARACTERS_PER_TOKEN = 16
MOST_CHARACTERS = 65_536

_HASHED_WORDS = 30_000
"""Ids of hashed words: as many as a usual vocabulary has."""


class Tokens(Protocol):
    """Turns text into token ids, at most as many as the model takes."""

    pad: int
    """The id that fills up shorter texts of a batch."""

    def one(self, text: str) -> Sequence[int]:
        """Return the ids of one text; at least one."""

    def many(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Return the ids of every text."""

    def limit(self, max_tokens: int) -> None:
        """Take no more than this many tokens of a text, where it were more before."""


def sound_text(text: str) -> str:
    """Join surrogates that belong together and replace the others by U+FFFD, so that the text has a UTF-8 form."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class VocabularyTokens:
    """The tokens of a ``tokenizer.json``, by the package ``tokenizers``.

    Padding and truncation that the file asks for are replaced: a file often pads every text to 128.

    Parameters
    ----------
    path:
        The ``tokenizer.json``.
    max_tokens:
        The most tokens of a text, special ones included; the rest of the text is left out.

    Raises
    ------
    DependencyError
        The package is not installed.
    ModelMissingError, ModelCorruptError
        The file is missing or damaged.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        tokenizer = _read_tokenizer(path)
        self.pad = _pad_id(tokenizer)
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._batch = tokenizer.encode_batch_fast
        self._empty = (self.pad,)
        self._take(max_tokens)

    def limit(self, max_tokens: int) -> None:
        """Take no more than this many tokens of a text; a larger number than before changes nothing."""
        if max_tokens < self._most:
            self._take(max_tokens)

    def _take(self, most: int) -> None:
        self._tokenizer.enable_truncation(most)
        self._most = most
        self._room = min(CHARACTERS_PER_TOKEN * most, MOST_CHARACTERS)

    def one(self, text: str) -> Sequence[int]:
        """Return the ids of one text; a text without a token becomes one padding token."""
        if len(text) > self._room:
            return self._long(text)
        try:
            ids: list[int] = self._batch([text])[0].ids
        except TypeError:  # how the package says that the text has no UTF-8 form
            ids = self._batch([sound_text(text)])[0].ids
        return ids or self._empty

    def many(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Return the ids of every text."""
        room = self._room
        cut = [text if len(text) <= room else text[:room] for text in texts]
        try:
            found = self._batch(cut)
        except TypeError:
            return [self.one(text) for text in texts]
        return [
            (encoding.ids or self._empty) if len(text) <= room else self._long(text, encoding.ids)
            for text, encoding in zip(texts, found, strict=True)
        ]

    def _long(self, text: str, ids: Sequence[int] = ()) -> Sequence[int]:
        """Read as much of a long text as fills the tokens; ``ids`` are those of its first ``room`` characters."""
        room = self._room
        ids = ids or self.one(text[:room])
        while len(ids) < self._most and room < min(len(text), MOST_CHARACTERS):
            room = min(room * 4, MOST_CHARACTERS)
            ids = self._batch([sound_text(text[:room])])[0].ids or self._empty
        return ids


class HashedTokens:
    """Tokens without a vocabulary: the CRC-32 of every word's bytes, the same on every machine.

    For models that need no language, such as the null runtime's.
    """

    pad = 0

    def __init__(self, max_tokens: int) -> None:
        self._most = max_tokens
        self._room = CHARACTERS_PER_TOKEN * max_tokens

    def limit(self, max_tokens: int) -> None:
        """Take no more than this many tokens of a text; a larger number than before changes nothing."""
        self._most = min(self._most, max_tokens)
        self._room = CHARACTERS_PER_TOKEN * self._most

    def one(self, text: str) -> Sequence[int]:
        """Return one id from 1 to 30,000 per word; a text without words becomes one token."""
        words = text[: self._room].split(maxsplit=self._most)[: self._most] or [""]
        return [1 + zlib.crc32(word.encode("utf-8", "surrogatepass")) % _HASHED_WORDS for word in words]

    def many(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Return the ids of every text."""
        return [self.one(text) for text in texts]


def _read_tokenizer(path: Path) -> Any:
    # The threads of a device are budgeted, and the package's own pool does not survive a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DependencyError(
            f"a text model needs the package tokenizers: {error}", hint="pip install 'skerry[text]'"
        ) from error
    if not path.is_file():
        raise ModelMissingError(
            "the model's tokenizer is missing", where=str(path), hint="run `skerry build PIPELINE` first"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception for whatever is wrong in the file
        raise ModelCorruptError(f"this tokenizer is damaged: {error}", where=str(path)) from error


def _pad_id(tokenizer: Any) -> int:
    """Return the id that the file pads with, else that of the usual padding tokens, else 0."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    found = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((int(number) for number in found if number is not None), 0)
