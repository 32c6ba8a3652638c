"""Texts: what the variants of a model are compared on."""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from skerry.run.digest import PREFIX
from skerry.run.tokens import sound_text
from skerry.spec.errors import SpecError, SpecMissingError

MOST = 500
"""How many texts are used: enough for neighbours that mean something, and a few seconds of computing."""

LEAST = 20
"""Fewer texts have no ten neighbours worth comparing."""

_LONGEST_LINE = 4096


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Different texts, and where they are from."""

    origin: str
    lines: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest of the lines."""
        return PREFIX + hashlib.sha256(msgspec.json.encode(self.lines)).hexdigest()


def read_texts(path: Path, most: int = MOST) -> Texts:
    """Read a user's texts: ``.jsonl`` with a field ``text`` in every object, else one text per line.

    Of more than ``most`` different texts, that many are taken at even distances.

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
    found = _objects(path, lines) if path.suffix == ".jsonl" else lines
    return _chosen(str(path), found, most)


def own_texts(most: int = MOST) -> Texts:
    """Return first lines of docstrings in Python's own library, which is on every machine; nothing of it is run.

    Every sixth module is read: 500 lines on many subjects in a third of a second.
    """
    return _chosen(f"docstrings of Python {sysconfig.get_python_version()}", _docstrings(), most)


def _objects(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise SpecError(f"this line is no JSON: {error}", where=f"{path}:{number}") from error
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise SpecError("this line has no text", where=f"{path}:{number}", expected='{"text": "…"}')
        yield value["text"]


def _chosen(origin: str, found: Iterable[str], most: int) -> Texts:
    different = list(dict.fromkeys(sound_text(text)[:_LONGEST_LINE] for text in found if text.strip()))
    if len(different) < LEAST:
        raise SpecError(
            f"{len(different)} different texts are too few to compare variants by", where=origin,
            expected=f"at least {LEAST}",
        )  # fmt: skip
    step = max(len(different) / most, 1.0)
    return Texts(origin=origin, lines=tuple(different[int(place * step)] for place in range(min(most, len(different)))))


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
