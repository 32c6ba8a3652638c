"""A release folder: ``.skerry/<name>/`` with the manifest, the lock file and the variants, written without a gap.

Every file has its digest in its name, is written beside its place, flushed and renamed; the manifest is replaced last.
So a reader sees the old release or the new one, an interrupted build leaves the old one, and a pipeline that runs
from the old one finds its files: they are removed by the build after the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from skerry.run.digest import file_digest
from skerry.run.models import MANIFEST_FILE, read_manifest
from skerry.spec.errors import DeviceError, ModelError
from skerry.spec.manifest import Manifest

LOCK_FILE = "skerry.lock"
_BUSY_FILE = ".busy"
_TEMPORARY = ".writing-"


def write_release(folder: Path, manifest: Manifest, lock: bytes, files: dict[str, Path]) -> bool:
    """Write a release, unless it is there already; tell whether anything was written.

    Parameters
    ----------
    folder:
        The release folder, made if need be.
    lock:
        The content of ``skerry.lock``.
    files:
        What is copied, by its name in the folder; every file that ``manifest`` names.

    Raises ``DeviceError`` when the disk is full or the folder cannot be written.
    """
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if _unchanged(folder, body, lock, manifest):
                return False
            before = _present(folder)
            for name, source in files.items():
                _copy(source, folder / name)
            _replace(folder / LOCK_FILE, lock)
            _replace(folder / MANIFEST_FILE, body)
            _remove_others(folder, _named(manifest) | before)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM}:
            raise
        raise DeviceError(f"the release cannot be written: {error.strerror}", where=str(folder)) from error
    return True


def _unchanged(folder: Path, body: bytes, lock: bytes, manifest: Manifest) -> bool:
    """Tell whether the same release is there, with every file whole."""
    try:
        same = (folder / MANIFEST_FILE).read_bytes() == body and (folder / LOCK_FILE).read_bytes() == lock
        return same and all(
            file_digest(folder / file) == digest
            for model in manifest.models.values()
            for variant in model.variants
            for file, digest in variant.files().items()
        ) and all((folder / name).is_file() for name in _named(manifest))  # fmt: skip
    except OSError:
        return False


def _named(manifest: Manifest) -> set[str]:
    """Return the files that a manifest names."""
    found = {file for model in manifest.models.values() for variant in model.variants for file in variant.files()}
    return found | {model.tokenizer for model in manifest.models.values() if model.tokenizer}


def _present(folder: Path) -> set[str]:
    """Return the files of the release that is there, if there is a readable one."""
    try:
        return _named(read_manifest(folder))
    except ModelError:
        return set()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other build writes this release."""
    import fcntl

    with (folder / _BUSY_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target) as (number, temporary):
        with source.open("rb") as read, os.fdopen(number, "wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())
        temporary.replace(target)


def _replace(target: Path, content: bytes) -> None:
    with _temporary(target) as (number, temporary):
        with os.fdopen(number, "wb") as write:
            write.write(content)
            write.flush()
            os.fsync(write.fileno())
        temporary.replace(target)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[int, Path]]:
    """Give an open file beside ``target``, readable by all as a plain file is; it is gone afterwards."""
    number, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
    try:
        os.fchmod(number, 0o644)
        yield number, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove files of older releases, and what a killed build left."""
    for path in (folder / "models").glob("**/*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink()
