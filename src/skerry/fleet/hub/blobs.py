"""Blobs: large files that arrive in pieces over links that break, kept by the digest of their content.

An upload is a file that only grows, so what has arrived is what the file holds, whenever the hub was killed; a power
cut may leave a wrong tail, which the digest at the end finds. ``uploads/ID`` becomes ``sha256/ab/abcd…`` in one
rename; beside each lies a card in JSON.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.options import HubOptions

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LONGEST = 200
"""Characters of a name or a type."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody is about to upload; ``size`` in bytes, ``digest`` as ``sha256:…``."""

    digest: str
    size: int
    type: str = "application/octet-stream"
    name: str = ""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload under way, or ``done``."""

    wanted: Wanted
    owner: str
    begun_ms: int
    done: bool = False


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is whole: what it is, and who brought it."""

    digest: str
    size: int
    type: str
    names: list[str]
    owners: list[str]
    stored_ms: int


class Blobs:
    """The blobs of a hub, in a folder. Calls block; those of one upload must not overlap."""

    def __init__(self, folder: Path, options: HubOptions) -> None:
        self._uploads, self._whole, self._options = folder / "uploads", folder / "sha256", options
        for place in (self._uploads, self._whole):
            place.mkdir(parents=True, exist_ok=True)
        self.sweep(time.time())

    def begin(self, wanted: Wanted, owner: str, now_s: float) -> tuple[str, int]:
        """Return the id and the offset of a new upload, or of the one that this owner has begun already.

        Raises ``Refusal``: 400 for a digest or a size that is none, 413, 429 and 503 for too much.
        """
        digest = _hex_of(wanted.digest)
        if wanted.size < 0 or max(len(wanted.name), len(wanted.type)) > _LONGEST:
            raise Refusal(400, "this is no size, or the name is too long")
        if wanted.size > self._options.max_blob:
            raise Refusal(413, f"a blob has at most {int(self._options.max_blob)} bytes")
        number = hashlib.sha256(f"{owner}\n{digest}\n{wanted.size}".encode()).hexdigest()[:32]
        upload = self._read(number)
        if upload is None or (upload.done and not self._path(digest).exists()):
            self._require_room(wanted, owner)
            upload = Upload(wanted=wanted, owner=owner, begun_ms=int(now_s * 1000))
            _write(self._uploads / f"{number}.json", msgspec.json.encode(upload))
        return number, self.offset(number, owner)[0]

    def offset(self, number: str, owner: str) -> tuple[int, int]:
        """Return how much of an upload has arrived, and of how much; what is whole is checked and stored.

        Raises ``Refusal`` (404) for one that is not this owner's.
        """
        upload = self._of(number, owner)
        size = upload.wanted.size
        if upload.done:
            return size, size
        path = self._uploads / number
        there = path.stat().st_size if path.exists() else 0
        if there >= size:
            self.finish(number, owner)
            return size, size
        return there, size

    def open(self, number: str, owner: str, offset: int) -> IO[bytes]:
        """Open an upload to append to it; raises ``Refusal``: 404, and 409 when the offset is not where it ends."""
        true, size = self.offset(number, owner)
        if offset != true:
            raise Refusal(409, f"the upload has {true} bytes", _offsets(true, size))
        return (self._uploads / number).open("ab", buffering=0)

    def finish(self, number: str, owner: str) -> str:
        """Store a whole upload under its digest and return that; raises ``Refusal`` (422) when it is another content.

        The upload then begins anew: nobody can tell which piece was wrong.
        """
        upload = self._of(number, owner)
        wanted, source = upload.wanted, self._uploads / number
        if upload.done:
            return wanted.digest
        target = self._path(_hex_of(wanted.digest))
        if not source.exists():
            source.touch()  # a blob without a byte, or one whose last step a crash cut off
        if source.stat().st_size != wanted.size or _digest_of(source) != wanted.digest:
            os.truncate(source, 0)
            raise Refusal(422, "the content has another digest; it begins anew", _offsets(0, wanted.size))
        target.parent.mkdir(exist_ok=True)
        _write(target.with_suffix(".json"), msgspec.json.encode(self._card(target, upload)))
        _sync(source)
        source.replace(target)
        _sync(target.parent)
        _write(self._uploads / f"{number}.json", msgspec.json.encode(msgspec.structs.replace(upload, done=True)))
        return wanted.digest

    def find(self, digest: str, reader: str, *, all_of_them: bool) -> tuple[Card, Path]:
        """Return a blob; devices see their own and those of operators. Raises ``Refusal`` (404)."""
        path = self._path(_hex_of(digest))
        card = _read_card(path)
        if card is None or not (all_of_them or _may_read(card, reader)):
            raise Refusal(404, "there is no such blob")
        return card, path

    def cards(self) -> Iterator[Card]:
        """Yield every whole blob."""
        for path in sorted(self._whole.glob("*/*.json")):
            card = _read_card(path.with_suffix(""))
            if card is not None:
                yield card

    def sweep(self, now_s: float) -> int:
        """Remove uploads that nobody has continued for ``upload_life``; return how many."""
        removed = 0
        for path in list(self._uploads.glob("*.json")):
            data = path.with_suffix("")
            last = max(each.stat().st_mtime for each in (path, data) if each.exists())
            if now_s - last > self._options.upload_life:
                data.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _require_room(self, wanted: Wanted, owner: str) -> None:
        under_way = [each for each in map(self._read, self._numbers()) if each and not each.done]
        if sum(each.owner == owner for each in under_way) >= self._options.max_uploads:
            raise Refusal(429, f"{self._options.max_uploads} uploads are under way already", {"retry-after": "60"})
        promised = sum(each.wanted.size for each in under_way)
        if shutil.disk_usage(self._uploads).free < wanted.size + promised + self._options.free_space:
            raise Refusal(503, "the hub's disk has no room for this", {"retry-after": "600"})

    def _numbers(self) -> Iterator[str]:
        return (path.stem for path in self._uploads.glob("*.json"))

    def _of(self, number: str, owner: str) -> Upload:
        upload = self._read(number) if re.fullmatch(r"[0-9a-f]{32}", number) else None
        if upload is None or upload.owner != owner:
            raise Refusal(404, "there is no such upload")
        return upload

    def _read(self, number: str) -> Upload | None:
        try:
            return msgspec.json.decode((self._uploads / f"{number}.json").read_bytes(), type=Upload)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _card(self, target: Path, upload: Upload) -> Card:
        wanted, before = upload.wanted, _read_card(target)
        names = list(dict.fromkeys([*(before.names if before else []), *([wanted.name] if wanted.name else [])]))
        owners = list(dict.fromkeys([*(before.owners if before else []), upload.owner]))
        return Card(
            digest=wanted.digest, size=wanted.size, type=wanted.type, names=names, owners=owners,
            stored_ms=upload.begun_ms,
        )  # fmt: skip

    def _path(self, digest: str) -> Path:
        return self._whole / digest[:2] / digest


def _may_read(card: Card, reader: str) -> bool:
    return reader in card.owners or any(owner.startswith("operator:") for owner in card.owners)


def _offsets(offset: int, size: int) -> dict[str, str]:
    return {"upload-offset": str(offset), "upload-length": str(size)}


def _hex_of(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise Refusal(400, "a digest is sha256: and 64 hex digits")
    return match[1]


def _read_card(path: Path) -> Card | None:
    """Return the card of a whole blob; one without its content is from an upload that a crash cut off."""
    try:
        return msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Card) if path.exists() else None
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole: beside its place, synced, then renamed."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
