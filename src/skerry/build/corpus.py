"""The corpus: sentences found on this machine, for techniques that learn from text without labels.

A user's own texts are too few to teach a pruned model from; running text of any kind helps, and every machine has some:
docstrings of the Python packages that are installed, manual pages, and the documentation and descriptions of system
packages. Nothing of it is run or sent anywhere.

The same machine gives the same sentences in the same order. The evaluation set is never among them, nor Python's own
library, whose docstrings stand in for a user's texts where there are none.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from skerry.build.evaluation import evaluation_set
from skerry.build.prose import reader_of, sentences
from skerry.build.splits import key
from skerry.spec.errors import DependencyError

_LARGEST = 8_000_000
"""Bytes of a file, unpacked: larger ones are data."""
_PER_FILE = 400
"""Sentences of one file: a thousand pages of one program's manual are about one thing."""
_MANUALS = "man"


def machine_texts(
    most: int, *, forbidden: Collection[str] = (), roots: Iterable[Path] | None = None
) -> tuple[str, ...]:
    """Return at most ``most`` different sentences of this machine, in an order as good as random.

    Reading ends when there are a quarter more than are wanted; 100,000 take some twenty seconds.

    Parameters
    ----------
    most:
        How many.
    forbidden:
        Keys (:func:`skerry.build.splits.key`) of texts that must not be among them, beside the evaluation set.
    roots:
        Files and folders to read; by default :func:`text_folders`.
    """
    taken = set(forbidden) | _evaluation_keys()
    found: dict[str, str] = {}
    files = [path for root in (text_folders() if roots is None else roots) for path in _files(root)]
    for path in sorted(files, key=lambda path: _rank(str(path))):
        for sentence in _sentences_of(path):
            shared = key(sentence)
            if shared not in taken:
                found.setdefault(shared, sentence)
        if len(found) >= 1.25 * most:
            break
    return tuple(found[shared] for shared in sorted(found, key=_rank)[:most])


def text_folders() -> tuple[Path, ...]:
    """Return where text may lie on this machine: packages of this Python, manual pages, documents of the system's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [Path(prefix) / "lib" / version / "site-packages" for prefix in (sys.prefix, sys.base_prefix)]
    places += [Path("/usr/share/man"), Path("/usr/share/doc"), Path("/usr/share/perl"), Path("/var/lib/dpkg/status")]
    return tuple(path for path in dict.fromkeys(places) if path.exists())


def _rank(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _evaluation_keys() -> set[str]:
    try:
        return {key(line) for line in evaluation_set().texts.lines}
    except DependencyError:
        return set()


def _files(root: Path) -> Iterator[Path]:
    """Yield the files with text below a folder, or the file itself."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        if Path(folder).name == _MANUALS:  # the sections themselves; beside them are those of other languages
            folders[:] = [name for name in folders if name.startswith(_MANUALS)]
        folders.sort()
        paths = (Path(folder) / name for name in sorted(names) if reader_of(name) is not None)
        yield from (path for path in paths if not path.is_symlink())


def _sentences_of(path: Path) -> list[str]:
    """Return sentences of a file, evenly taken where it has many; none of one that cannot be read."""
    reader = reader_of(path.name)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error):
        return []
    if reader is None or len(data) > _LARGEST:
        return []
    try:
        found = list(dict.fromkeys(sentences(reader(data.decode("utf-8")))))
    except UnicodeDecodeError:
        return []
    step = max(len(found) / (_PER_FILE * (20 if path.name == "status" else 1)), 1.0)
    return [found[int(place * step)] for place in range(int(len(found) / step))]
