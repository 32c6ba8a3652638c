"""Texts: a column of strings as times, as words that come again, as a list of the different ones, or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from skerry.spec.errors import WireError
from skerry.wire.compression import size_alone
from skerry.wire.integers import read_integers, write_integers
from skerry.wire.streams import END_OF_TEXT, Reader, Writer

PLAIN, CHOICES, TIMES, WORDS = range(4)
MOST_WORDS: Final = 12
"""Columns of words; what a text has beyond them is part of the last one."""
MOST_RECENT: Final = 250
"""Words that are remembered; the number of each still fits into a byte."""
_FEW = 4
"""Texts below which no words are looked for."""
_EPOCH = datetime(1970, 1, 1)
_SECOND = timedelta(seconds=1)
_STAMP = 19
"""Characters of ``2026-11-22T16:00:00``."""
_MOST_DIGITS = 9
"""Decimals of a second that are part of its number."""


def write_texts(writer: Writer, texts: Sequence[str]) -> None:
    """Write strings; raises ``WireError`` for a lone surrogate and for more text than a batch may hold."""
    writer.budget.take_characters(sum(map(len, texts)))
    different = dict.fromkeys(texts)
    if len(different) > 1 and _write_times(writer, texts):
        return
    if 4 * len(different) <= 3 * len(texts):
        writer.control.append(CHOICES)
        _write_choices(writer, texts, list(different))
        return
    encoded = [text.encode() for text in texts]
    if len(texts) >= _FEW and _Words(texts).write_if_smaller(writer, encoded):
        return
    writer.control.append(PLAIN)
    writer.texts += encoded


def read_texts(reader: Reader, count: int) -> list[str]:
    """Read ``count`` strings; raises ``WireError`` for a damaged column and for more text than a batch may hold."""
    form = reader.byte()
    if form == TIMES:
        return _read_times(reader, count)
    if form == WORDS:
        return _read_words(reader, count)
    if form == PLAIN:
        texts = reader.strings(count)
    elif form == CHOICES:
        texts = _read_choices(reader, count)
    else:
        raise WireError("the body of a batch is damaged: a column of an unknown form")
    reader.budget.take_characters(sum(map(len, texts)))
    return texts


def _write_choices(writer: Writer, texts: Sequence[str], different: list[str]) -> None:
    """Write the different strings in the order in which they appear, and which one each is."""
    writer.unsigned(len(different))
    writer.texts += [text.encode() for text in different]
    if len(different) > 1:
        places = {text: place for place, text in enumerate(different)}
        write_integers(writer, [places[text] for text in texts])


def _read_choices(reader: Reader, count: int) -> list[str]:
    choices = reader.strings(reader.unsigned())
    if len(choices) == 1:
        return choices * count
    places = read_integers(reader, count)
    if places and not 0 <= min(places) <= max(places) < len(choices):
        raise WireError("the body of a batch is damaged: a text is missing")
    return [choices[place] for place in places]


class _Stamps(NamedTuple):
    """The form that all times of a column share: what stands between day and hour, at the decimals, and at the end."""

    separator: str
    point: str
    digits: int
    tail: str

    @classmethod
    def of(cls, text: str) -> _Stamps:
        """Return the form of a text that begins as a time does."""
        rest = text[_STAMP:]
        digits = 0
        if rest[:1] in {".", ","}:
            digits = min(_MOST_DIGITS, len(rest) - 1 - len(rest[1:].lstrip("0123456789")))
        point = rest[:1] if digits else ""
        return cls(text[10], point, digits, rest[len(point) + digits :])

    def text(self, number: int) -> str:
        """Return the text of a time in units of the last decimal since 1970; ``OverflowError`` before the year 1."""
        seconds, fraction = divmod(number, 10**self.digits)
        stamp = (_EPOCH + timedelta(seconds=seconds)).isoformat(self.separator)
        return f"{stamp}{self.point}{fraction:0{self.digits}d}{self.tail}" if self.digits else stamp + self.tail

    def number(self, text: str) -> int:
        """Return the time of a text; raises ``ValueError`` where it is none."""
        seconds: int = (datetime.fromisoformat(text[:_STAMP]) - _EPOCH) // _SECOND
        if not self.digits:
            return seconds
        begin = _STAMP + len(self.point)
        units: int = 10**self.digits
        return seconds * units + int(text[begin : begin + self.digits])


def _write_times(writer: Writer, texts: Sequence[str]) -> bool:
    """Write ISO 8601 times of one form as numbers since 1970; tell whether they are such."""
    sample = texts[0]
    if len(sample) < _STAMP or sample[4] != "-" or sample[13] != ":":
        return False
    stamps = _Stamps.of(sample)
    try:
        numbers = list(map(stamps.number, texts))
        if list(map(stamps.text, numbers)) != list(texts):
            return False
    except (ValueError, OverflowError):
        return False
    writer.control += bytes((TIMES, stamps.digits))
    writer.texts += [stamps.separator.encode(), stamps.point.encode(), stamps.tail.encode()]
    write_integers(writer, numbers)
    return True


def _read_times(reader: Reader, count: int) -> list[str]:
    digits = reader.byte()
    separator, point, tail = reader.strings(3)
    if digits > _MOST_DIGITS or len(separator) != 1:
        raise WireError("the body of a batch is damaged: a time that is none")
    stamps = _Stamps(separator, point, digits, tail)
    numbers = read_integers(reader, count)
    reader.budget.take_characters(count * (_STAMP + len(point) + digits + len(tail)))
    try:
        return list(map(stamps.text, numbers))
    except OverflowError as error:
        raise WireError("the body of a batch is damaged: a time that is none") from error


class _Words:
    """Strings as the words between their spaces: a column of numbers for each place in the row.

    0 is the word that stands above, 1 a word that was not met lately and follows in ``texts``; from 2 on, how many
    other words were met since (Bentley, Sleator, Tarjan and Wei 1986, moving to the front).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.rows = [text.split(" ", MOST_WORDS - 1) for text in texts]
        self.columns: list[list[int]] = [[] for _ in range(max(map(len, self.rows)))]
        self.new: list[bytes] = []
        above = [""] * len(self.columns)
        recent: list[str] = []
        for row in self.rows:
            for place, word in enumerate(row):
                if word == above[place]:
                    self.columns[place].append(0)
                    continue
                above[place] = word
                self.columns[place].append(_rank(recent, word))
                if self.columns[place][-1] == 1:
                    self.new.append(word.encode())

    def write_if_smaller(self, writer: Writer, encoded: list[bytes]) -> bool:
        """Write how many words each row has, the new words, and which stand where; or nothing, where zstd does better.

        Tells whether it was written.
        """
        if len(self.columns) < 2 or 3 * sum(map(len, self.new)) > 2 * sum(map(len, encoded)):
            return False
        trial = writer.beside()
        write_integers(trial, [len(row) for row in self.rows])
        trial.unsigned(len(self.new))
        trial.texts += self.new
        for column in self.columns:
            write_integers(trial, column)
        words = size_alone(bytes(trial.control) + END_OF_TEXT.join(self.new)) + sum(map(len, trial.bits)) // 8
        if words >= size_alone(END_OF_TEXT.join(encoded)):
            return False
        writer.control.append(WORDS)
        writer.take(trial)
        return True


def _rank(recent: list[str], word: str) -> int:
    """Return the number of a word, and move it to the front of those that were met lately."""
    if word in recent:
        rank = recent.index(word)
        del recent[rank]
        recent.insert(0, word)
        return rank + 2
    recent.insert(0, word)
    del recent[MOST_RECENT:]
    return 1


def _read_words(reader: Reader, count: int) -> list[str]:
    lengths = read_integers(reader, count)
    if not 0 < min(lengths) <= max(lengths) <= MOST_WORDS:
        raise WireError("the body of a batch is damaged: a text without words")
    new = reader.strings(reader.unsigned())
    new.reverse()
    columns = [
        iter(read_integers(reader, sum([length > place for length in lengths]))) for place in range(max(lengths))
    ]
    above = [""] * len(columns)
    recent: list[str] = []
    texts = []
    for length in lengths:
        for place in range(length):
            number = next(columns[place])
            if number:
                above[place] = _word(recent, new, number)
        reader.budget.take_characters(sum(map(len, above[:length])) + length - 1)
        texts.append(" ".join(above[:length]))
    if new:
        raise WireError("the body of a batch is damaged: a word is left over")
    return texts


def _word(recent: list[str], new: list[str], number: int) -> str:
    """Return the word of a number, and move it to the front of those that were met lately."""
    if number == 1:
        if not new:
            raise WireError("the body of a batch is damaged: a word is missing")
        word = new.pop()
    else:
        if not 2 <= number < len(recent) + 2:
            raise WireError("the body of a batch is damaged: a word is missing")
        word = recent.pop(number - 2)
    recent.insert(0, word)
    del recent[MOST_RECENT:]
    return word
