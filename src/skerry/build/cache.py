"""The cache: what a step of a build made, found again by all that the step depends on.

An entry is a folder named by the digest of its key: the digests of what went in, the version of the technique and of
the tools. It is made in a temporary folder and renamed, so that an interrupted step leaves nothing behind, and its
files are checked against their digests when it is used, so that a damaged one is made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.digest import file_digest
from skerry.spec.errors import DeviceError

NOTE = "entry.json"

_LEFT_BEHIND_S = 86_400.0
"""After a day, a folder of a step at work was left by a build that was killed: steps take minutes."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry says of itself: its key, facts found in making it, the digests of its files, and the time."""

    key: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, str]
    seconds: float


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a step made. ``fresh`` tells that it was made just now."""

    folder: Path
    note: Note
    fresh: bool = False

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name

    def digest(self, name: str) -> str:
        """Return the digest of one of its files."""
        return self.note.files[name]


def default_folder() -> Path:
    """Return ``$SKERRY_CACHE``, or ``~/.cache/skerry``."""
    named = os.environ.get("SKERRY_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "skerry"


class Cache:
    """Entries in a folder, which several builds may share at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(self, key: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any] | None]) -> Entry:
        """Return the entry of a key; ``make`` fills an empty folder with its files and returns facts to be noted.

        Raises ``DeviceError`` when the disk is full or the folder cannot be written, and whatever ``make`` raises.
        """
        found = self.find(key)
        if found is not None:
            return found
        try:
            return self._made(self._place(key), key, make)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM}:
                raise
            raise DeviceError(
                f"the cache cannot be written: {error.strerror}",
                where=str(self.folder),
                hint="free some space, or name another folder with SKERRY_CACHE",
            ) from error

    def find(self, key: Mapping[str, Any]) -> Entry | None:
        """Return the entry of a key where it was made before."""
        place = self._place(key)
        note = _sound_note(place)
        return None if note is None else Entry(folder=place, note=note)

    def _place(self, key: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(msgspec.json.encode(dict(key), order="sorted")).hexdigest()
        return self.folder / "steps" / name[:2] / name

    def _made(self, place: Path, key: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any] | None]) -> Entry:
        scratch = self.folder / "work"
        scratch.mkdir(parents=True, exist_ok=True)
        _sweep(scratch)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            start = time.monotonic()
            facts = dict(make(folder) or {})
            seconds = round(time.monotonic() - start, 3)
            files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
            note = Note(key=dict(key), facts=facts, files=files, seconds=seconds)
            (folder / NOTE).write_bytes(msgspec.json.format(msgspec.json.encode(note, order="sorted")))
            note = self._kept(folder, place) or note
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Entry(folder=place, note=note, fresh=True)

    def _kept(self, folder: Path, place: Path) -> Note | None:
        """Move a finished entry to its place, instead of a damaged one.

        Returns the note of a whole one that a build beside this one has put there first: somebody may be reading it.
        """
        place.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(10):
            try:
                folder.rename(place)
                return None
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
                note = _sound_note(place)
                if note is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    return note
                self._set_aside(place)
        raise DeviceError("another build keeps replacing an entry of the cache", where=str(place))

    def _set_aside(self, place: Path) -> None:
        aside = Path(tempfile.mkdtemp(dir=self.folder / "work"))
        try:
            place.rename(aside / "old")
        except FileNotFoundError:
            pass  # the other build has moved it already
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _sweep(scratch: Path) -> None:
    """Remove what builds that were killed have left, which no build still at work can need."""
    for left in scratch.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True)


def _sound_note(place: Path) -> Note | None:
    """Return the note of an entry whose files are whole, else ``None``."""
    try:
        note = msgspec.json.decode((place / NOTE).read_bytes(), type=Note)
        whole = all(file_digest(place / name) == digest for name, digest in note.files.items())
    except (OSError, msgspec.DecodeError):
        return None
    return note if whole else None
