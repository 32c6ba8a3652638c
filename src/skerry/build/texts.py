"""Texts: what the variants of a model are compared on."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from skerry.run.digest import PREFIX
from skerry.run.tokens import sound_text
from skerry.spec.errors import SpecError, SpecMissingError
from skerry.spec.words import did_you_mean

MOST = 500
"""How many texts are used: enough for neighbours that mean something, and a few seconds of computing."""

LEAST = 20
"""Fewer texts have no ten neighbours worth comparing."""

_LONGEST_LINE = 4096
_DIGITS = re.compile(r"\d+")


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Different texts, where they are from, and the right answers where they are known.

    Parameters
    ----------
    labels:
        The right class of each, a number or a name; empty where none are known, ``None`` for a text without one.
    relevant:
        For each the places of the texts that are relevant to it; empty where none are known.
    """

    origin: str
    lines: tuple[str, ...]
    labels: tuple[Any, ...] = ()
    relevant: tuple[tuple[int, ...], ...] = ()

    @property
    def items(self) -> tuple[str, ...]:
        """The texts."""
        return self.lines

    @property
    def called(self) -> str:
        """What they are called."""
        return "texts"

    @property
    def labelled(self) -> bool:
        """Whether right answers came along."""
        return bool(self.labels or self.relevant)

    @property
    def digest(self) -> str:
        """The digest of the lines, and of the right answers."""
        told: Any = [self.lines, self.labels, self.relevant] if self.labelled else self.lines
        return PREFIX + hashlib.sha256(msgspec.json.encode(told)).hexdigest()

    def identities(self) -> list[tuple[str, str]]:
        """Return for each text what is left of it without case and numbers, and the text."""
        return [(key(line), line) for line in self.lines]

    def relatives(self, place: int) -> tuple[int, ...]:
        """Return the places of the texts that are relevant to one."""
        return self.relevant[place] if self.relevant else ()

    def taken(self, places: Sequence[int], origin: str) -> Texts:
        """Return the texts at these places; what is relevant to them and not among them is left out."""
        now = {place: number for number, place in enumerate(places)}
        return Texts(
            origin=origin, lines=tuple(self.lines[place] for place in places),
            labels=tuple(self.labels[place] for place in places) if self.labels else (),
            relevant=tuple(tuple(now[each] for each in self.relevant[place] if each in now) for place in places)
            if self.relevant else (),
        )  # fmt: skip

    def truth(self, metric: str) -> tuple[Any, ...] | None:
        """Return the relevant places for ``recall``, else the labels; raises ``SpecError`` where some have none."""
        if metric.partition("@")[0] == "recall":
            return self.relevant or None
        if None in self.labels and any(label is not None for label in self.labels):
            raise SpecError(
                f"{self.labels.count(None)} of {len(self.labels)} texts have no label", where=self.origin,
                expected="`label` in every line, or in none",
            )  # fmt: skip
        return self.labels or None


def key(text: str) -> str:
    """Return what is left of a text without case, kinds of blanks and the values of its numbers.

    >>> key("Took  31 ms") == key("took 7 ms")
    True
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_DIGITS.sub("0", plain).split())


class _Line(NamedTuple):
    """A line of a file: its text, its label, its own id, and the ids or texts of what is relevant to it."""

    text: str
    label: Any = None
    id: str | None = None
    relevant: tuple[str, ...] = ()


def read_texts(path: Path, most: int = MOST) -> Texts:
    """Read a user's texts: ``.jsonl`` with a field ``text`` in every object, else one text per line.

    Beside ``text``, an object may have a ``label``, and ``relevant``: a list of the texts that are relevant to it, or
    of their ``id``. Of more than ``most`` different texts, that many are taken at even distances, or the first ones
    where relevant texts are told.

    Raises
    ------
    SpecMissingError
        There is no such file.
    SpecError
        It is not UTF-8, a line has no text, or there are fewer than 20 different ones.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SpecMissingError("there is no such file of texts", where=str(path)) from error
    except (UnicodeDecodeError, OSError) as error:
        raise SpecError(f"the texts cannot be read: {error}", where=str(path), expected="lines of UTF-8") from error
    found = _objects(path, lines) if path.suffix == ".jsonl" else map(_Line, lines)
    return _chosen(str(path), found, most)


def own_texts(most: int = MOST) -> Texts:
    """Return first lines of docstrings in Python's own library, which is on every machine; nothing of it is run.

    Every sixth module is read: 500 lines on many subjects in a third of a second.
    """
    return _chosen(f"docstrings of Python {sysconfig.get_python_version()}", map(_Line, _docstrings()), most)


def _objects(path: Path, lines: Iterable[str]) -> Iterator[_Line]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise SpecError(f"this line is no JSON: {error}", where=where) from error
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            columns = list(value) if isinstance(value, dict) else []
            raise SpecError(
                "this line has no text" + (f", but {', '.join(columns)}" if columns else ""), where=where,
                expected='{"text": "…"}', hint=did_you_mean("text", columns),
            )  # fmt: skip
        yield _Line(value["text"], value.get("label"), _id(value), _relevant(value.get("relevant"), where))


def _id(value: dict[str, Any]) -> str | None:
    found = value.get("id")
    return None if found is None else str(found)


def _relevant(told: Any, where: str) -> tuple[str, ...]:
    if told is None:
        return ()
    if not isinstance(told, list) or not all(isinstance(each, str | int) for each in told):
        raise SpecError("`relevant` is no list of texts or ids", where=where, expected='{"relevant": ["…"]}')
    return tuple(map(str, told))


def _chosen(origin: str, found: Iterable[_Line], most: int) -> Texts:
    different: dict[str, _Line] = {}
    for line in found:
        if line.text.strip():
            different.setdefault(sound_text(line.text)[:_LONGEST_LINE], line)
    if len(different) < LEAST:
        raise SpecError(
            f"{len(different)} different texts are too few to compare variants by", where=origin,
            expected=f"at least {LEAST}",
        )  # fmt: skip
    lines, told = tuple(different), list(different.values())
    whole = Texts(
        origin=origin, lines=lines, relevant=_places(origin, lines, told),
        labels=tuple(line.label for line in told) if any(line.label is not None for line in told) else (),
    )  # fmt: skip
    step = 1.0 if whole.relevant else max(len(lines) / most, 1.0)
    return whole.taken([int(place * step) for place in range(min(most, len(lines)))], origin)


def _places(origin: str, lines: Sequence[str], told: Sequence[_Line]) -> tuple[tuple[int, ...], ...]:
    """Return where the relevant texts of each stand; nothing where none are told."""
    if not any(line.relevant for line in told):
        return ()
    places = {text: place for place, text in enumerate(lines)}
    places |= {line.id: place for place, line in enumerate(told) if line.id is not None}
    missing = [each for line in told for each in line.relevant if each not in places]
    if missing:
        raise SpecError(
            f"no line has the text or the id {missing[0][:80]!r}, which is said to be relevant", where=origin,
            hint=did_you_mean(missing[0], [str(each) for each in places][:1000]),
        )  # fmt: skip
    return tuple(tuple(places[each] for each in dict.fromkeys(line.relevant)) for line in told)


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::6]:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                line = (ast.get_docstring(node) or "").split("\n", 1)[0].strip()
                if 20 <= len(line) <= 200:
                    yield line
