"""A digest: the name of a file's content, ``sha256:<hex>``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from skerry.spec.errors import ModelCorruptError, ModelError, ModelMissingError

PREFIX = "sha256:"


def file_digest(path: Path) -> str:
    """Return ``sha256:<hex>`` of a file's bytes; raises ``OSError`` when it cannot be read."""
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def require_digest(path: Path, expected: str) -> None:
    """Check a model's file against the digest that its build noted; an empty digest checks only that it is there.

    Raises
    ------
    ModelMissingError
        There is no such file.
    ModelCorruptError
        Its content is not what was built.
    ModelError
        It cannot be read.
    """
    if not path.is_file():
        raise ModelMissingError(
            "a file of the build is missing", where=str(path), hint="run `skerry build PIPELINE` first"
        )
    if not expected:
        return
    try:
        found = file_digest(path)
    except OSError as error:
        raise ModelError(f"the model cannot be read: {error.strerror or error}", where=str(path)) from error
    if found != expected:
        raise ModelCorruptError(
            f"the file is not what was built: it has the digest {found}",
            where=str(path),
            expected=expected,
            hint="run `skerry build PIPELINE` again",
        )
