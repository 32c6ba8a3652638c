"""Texts: a column of strings as times, as words that come again, as a list of the different ones, or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from skerry.spec.errors import WireError
from skerry.wire.compression import compress
from skerry.wire.integers import read_integers, write_integers
from skerry.wire.streams import END_OF_TEXT, Reader, Writer

PLAIN, CHOICES, TIMES, WORDS = range(4)
MOST_WORDS: Final = 12
"""Columns of words; what a text has beyond them is part of the last one."""
_EPOCH = datetime(1970, 1, 1)
_SECOND = timedelta(seconds=1)
_STAMP = 19
"""Characters of ``2026-11-22T16:00:00``."""
_FRAME = 9


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
    words = _Words(texts) if len(texts) >= 4 else None
    if words is not None and words.is_smaller_than(encoded):
        writer.control.append(WORDS)
        words.write(writer)
        return
    writer.control.append(PLAIN)
    writer.texts += encoded


def read_texts(reader: Reader, count: int) -> list[str]:
    """Read ``count`` strings; raises ``WireError`` for a damaged column and for more text than a batch may hold."""
    form = reader.byte()
    if form == PLAIN:
        reader.budget.take_values(count)
        texts = reader.strings(count)
    elif form == CHOICES:
        texts = _read_choices(reader, count)
    elif form == TIMES:
        texts = _read_times(reader, count)
    elif form == WORDS:
        return _read_words(reader, count)
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
        reader.budget.take_values(count)
        return choices * count
    places = read_integers(reader, count)
    if places and not 0 <= min(places) <= max(places) < len(choices):
        raise WireError("the body of a batch is damaged: a text is missing")
    return [choices[place] for place in places]


def _write_times(writer: Writer, texts: Sequence[str]) -> bool:
    """Write ISO 8601 times that differ in nothing but the time, as seconds since 1970; tell whether they are such."""
    sample = texts[0]
    if len(sample) < _STAMP or sample[4] != "-" or sample[13] != ":":
        return False
    separator, digits = sample[10], _fraction_digits(sample)
    stop = _STAMP + digits + (digits > 0)
    tail = sample[stop:]
    end = sample[_STAMP] if digits else ""
    units = 10**digits
    numbers = []
    try:
        for text in texts:
            time = datetime.fromisoformat(text[:_STAMP])
            seconds = (time - _EPOCH) // _SECOND
            fraction = text[_STAMP + 1 : stop]
            if (
                len(fraction) != digits - (digits > 0) * 0
                or text[stop:] != tail
                or text[_STAMP : _STAMP + 1] != (end or tail[:1])
            ):
                return False
            if time.isoformat(separator) != text[:_STAMP] or (
                digits and not (fraction.isascii() and fraction.isdigit())
            ):
                return False
            numbers.append(seconds * units + (int(fraction) if digits else 0))
    except ValueError:
        return False
    writer.control.append(TIMES)
    writer.texts += [separator.encode(), end.encode(), tail.encode()]
    writer.control.append(digits)
    write_integers(writer, numbers)
    return True


def _fraction_digits(text: str) -> int:
    """Return how many digits follow a point or comma behind the seconds; none beyond nine count."""
    if text[_STAMP : _STAMP + 1] not in {".", ","}:
        return 0
    rest = text[_STAMP + 1 :]
    return min(9, len(rest) - len(rest.lstrip("0123456789")))


def _read_times(reader: Reader, count: int) -> list[str]:
    separator, end, tail = reader.strings(3)
    digits = reader.byte()
    if digits > 9 or len(separator) != 1:
        raise WireError("the body of a batch is damaged: a time that is none")
    numbers = read_integers(reader, count)
    units = 10**digits
    try:
        stamps = [(_EPOCH + timedelta(seconds=number // units)).isoformat(separator) for number in numbers]
    except OverflowError as error:
        raise WireError("the body of a batch is damaged: a time that is none") from error
    if not digits:
        return [stamp + tail for stamp in stamps]
    pairs = zip(stamps, numbers, strict=True)
    return [f"{stamp}{end}{number % units:0{digits}d}{tail}" for stamp, number in pairs]


class _Words:
    """Strings as the words between their spaces: a column for each place in the row.

    A number stands for each word: 0 the word above, 1 the next new word, 2 the newest of the words so far, and so on.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.rows = [text.split(" ", MOST_WORDS - 1) for text in texts]
        self.columns: list[list[int]] = [[] for _ in range(max(map(len, self.rows)))]
        known: dict[str, int] = {}
        above = [""] * len(self.columns)
        for row in self.rows:
            for place, word in enumerate(row):
                if word == above[place]:
                    self.columns[place].append(0)
                    continue
                number = known.get(word)
                if number is None:
                    known[word] = len(known)
                    self.columns[place].append(1)
                else:
                    self.columns[place].append(len(known) - number + 1)
                above[place] = word
        self.known = [word.encode() for word in known]

    def is_smaller_than(self, encoded: list[bytes]) -> bool:
        """Tell whether this pays, by what zstd makes of the texts as they are."""
        if len(self.columns) < 2 or len(b"".join(self.known)) * 3 > len(b"".join(encoded)) * 2:
            return False
        trial = Writer.__new__(Writer)
        trial.control, trial.bits, trial.texts = bytearray(), [], []
        self.write(trial)
        plain = len(compress(END_OF_TEXT.join(encoded), 3))
        words = len(compress(bytes(trial.control) + END_OF_TEXT.join(self.known), 3))
        return words + sum(map(len, trial.bits)) // 8 < plain

    def write(self, writer: Writer) -> None:
        """Write how many words each row has, the words, and which stand where."""
        write_integers(writer, [len(row) for row in self.rows])
        writer.unsigned(len(self.known))
        writer.texts += self.known
        for column in self.columns:
            write_integers(writer, column)


def _read_words(reader: Reader, count: int) -> list[str]:
    lengths = read_integers(reader, count)
    if not lengths or not 0 < min(lengths) <= max(lengths) <= MOST_WORDS:
        raise WireError("the body of a batch is damaged: a text without words")
    known = reader.strings(reader.unsigned())
    columns = []
    for place in range(max(lengths)):
        column = read_integers(reader, sum([length > place for length in lengths]))
        columns.append(iter(column))
    above = [""] * len(columns)
    used = 0
    texts = []
    for length in lengths:
        for place in range(length):
            number = next(columns[place])
            if number == 1:
                above[place] = known[used]
                used += 1
            elif number:
                if not 1 < number <= used + 1:
                    raise WireError("the body of a batch is damaged: a word is missing")
                above[place] = known[used + 1 - number]
        reader.budget.take_characters(sum(map(len, above[:length])) + length - 1)
        texts.append(" ".join(above[:length]))
    if used != len(known):
        raise WireError("the body of a batch is damaged: a word is left over")
    return texts
