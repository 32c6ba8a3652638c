"""Blobs on their way up: a queue of files on disk, and the courier who uploads them so that every cut costs little.

The hub says how far it got, the courier goes on from there: ``POST`` announces, ``HEAD`` asks, ``PATCH`` appends. It is
the form of "Resumable Uploads for HTTP" (IETF, draft-ietf-httpbis-resumable-upload) without what one hub does not need.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from pathlib import Path

import msgspec

from skerry.run.uplink.conductor import Conductor
from skerry.run.uplink.faults import told_plainly
from skerry.run.uplink.http import HttpLane
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.transport import Answer
from skerry.spec.errors import SkerryError

_SMALLEST_PIECE, _LARGEST_PIECE = 16 << 10, 1 << 20  # bytes of one PATCH; it is held in memory
_PIECE_S = 2.0  # seconds of the link that a piece aims at: records travel between the pieces
_GLANCE_S = 60.0
_MOST_TRIES = 3  # uploads of one file from the start whose digest was wrong
_STEP_PAUSE_S = 0.2  # after an answer that brought nothing


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that waits: the file, what it has to be, and where the hub takes it (empty: not announced yet)."""

    path: str
    digest: str
    size: int
    kind: str
    name: str
    location: str = ""
    tries: int = 0


class BlobQueue:
    """Blobs that wait, one small JSON file each, so that the queue survives restarts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))

    def add(self, path: Path, *, kind: str, name: str) -> Entry:
        """Queue a file; raises ``OSError`` when it cannot be read or the queue not written."""
        digest, size = digest_of(path)
        entry = Entry(path=str(path.resolve()), digest=digest, size=size, kind=kind, name=name or path.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.keep(entry)
        return entry

    def keep(self, entry: Entry) -> None:
        """Write an entry in one step."""
        target = self._file(entry)
        draft = target.with_suffix(".part")
        with self._lock:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(entry))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)

    def first(self) -> Entry | None:
        """Return the entry that waits the longest; a damaged one is removed."""
        for file in sorted(self._folder.glob("*.json"), key=_age):
            try:
                return msgspec.json.decode(file.read_bytes(), type=Entry)
            except FileNotFoundError:
                continue
            except (msgspec.MsgspecError, OSError):
                with contextlib.suppress(OSError):
                    file.unlink()
        return None

    def drop(self, entry: Entry) -> None:
        """Remove an entry."""
        self._file(entry).unlink(missing_ok=True)

    def _file(self, entry: Entry) -> Path:
        return self._folder / f"{entry.digest.removeprefix('sha256:')}.json"


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return float("inf")


def digest_of(path: Path) -> tuple[str, int]:
    """Return the digest of a file (``sha256:…``) and its size; raises ``OSError``."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"sha256:{digest}", file.tell()


class Courier:
    """Uploads what the queue holds, one file after the other, between the records."""

    def __init__(
        self,
        queue: BlobQueue,
        lane: HttpLane,
        conductor: Conductor,
        options: UplinkOptions,
        stop: threading.Event,
        log: logging.Logger,
    ) -> None:
        self._queue, self._lane, self._conductor = queue, lane, conductor
        self._options, self._stop, self._log = options, stop, log
        self._bell = threading.Event()
        self._piece = _SMALLEST_PIECE * 4
        self._offset: int | None = None
        self._told = ""

    def wake(self) -> None:
        """Say that there is something new, or that the end has come."""
        self._bell.set()
        if self._stop.is_set():
            self._lane.cancel()

    def run(self) -> None:
        """Upload until the end."""
        while not self._stop.is_set():
            self._bell.clear()
            entry = self._queue.first()
            if entry is None:
                self._offset = None
                self._bell.wait(_GLANCE_S)
                continue
            wait_s = self._conductor.wait_beside(self._piece if self._offset is not None else 1000)
            if wait_s > 0:
                self._bell.wait(min(wait_s, _GLANCE_S))
                continue
            self._step(entry)
        self._lane.close()

    def _step(self, entry: Entry) -> None:
        """Make one exchange; whatever goes wrong, the next one begins by asking how far the hub is."""
        begun = time.monotonic()
        try:
            if not entry.location:
                self._announce(entry)
            elif self._offset is None:
                self._ask(entry)
            else:
                self._append(entry, self._offset)
            self._conductor.beside(begun, answered=True)
        except FileNotFoundError:
            self._give_up(entry, "the file is gone")
        except (OSError, SkerryError) as error:
            self._offset = None
            self._conductor.beside(begun, answered=False)
            self._say(told_plainly(error, "blobs") if isinstance(error, OSError) else error.message)
        finally:
            self._conductor.charge(self._lane.traffic())

    def _announce(self, entry: Entry) -> None:
        said = {"digest": entry.digest, "size": entry.size, "type": entry.kind, "name": entry.name}
        headers = {"Content-Type": "application/json"}
        answer = self._lane.request("POST", "/v1/blobs", msgspec.json.encode(said), headers, self._options.timeout)
        if not self._is_fine(answer):
            return
        location = answer.headers.get("location", "")
        if answer.status == 201 and location.startswith("/"):
            self._offset = _number(answer.headers.get("upload-offset", "")) or 0
            self._queue.keep(msgspec.structs.replace(entry, location=location))
            if entry.size == 0 or self._offset >= entry.size:
                self._offset = None
        elif answer.status == 200:  # the hub has it already
            self._done(entry)
        else:
            self._give_up(entry, f"the hub answered {answer.status}: {answer.excerpt()}")

    def _ask(self, entry: Entry) -> None:
        answer = self._lane.request("HEAD", entry.location, timeout_s=self._options.timeout)
        if not self._is_fine(answer):
            return
        offset = _number(answer.headers.get("upload-offset", ""))
        if answer.status in {404, 410}:
            self._start_over(entry)
        elif answer.status not in {200, 204} or offset is None or offset > entry.size:
            self._start_over(msgspec.structs.replace(entry, tries=entry.tries + 1))
        elif offset == entry.size:
            self._done(entry)
        else:
            self._offset = offset

    def _append(self, entry: Entry, offset: int) -> None:
        with Path(entry.path).open("rb") as file:
            file.seek(offset)
            piece = file.read(min(self._piece, entry.size - offset))
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        begun = time.monotonic()
        # Not sent again by itself: the hub may have half of it, and says so when it is asked.
        answer = self._lane.request("PATCH", entry.location, piece, headers, self._options.timeout, again=False)
        self._pace(len(piece), time.monotonic() - begun)
        if not self._is_fine(answer):
            return
        reached = _number(answer.headers.get("upload-offset", ""))
        if answer.status in {200, 201, 204} and reached is not None and reached > offset:
            self._conductor.note(blob_bytes=reached - offset)
            self._offset = reached
            if reached >= entry.size:
                self._done(entry)
        elif answer.status == 409:
            self._offset = reached if reached is not None and reached < entry.size else None
        elif answer.status in {404, 410}:
            self._start_over(entry)
        else:  # 422: the whole is not what was announced
            self._check_again(entry, answer)

    def _pace(self, size: int, elapsed_s: float) -> None:
        fits = int(size / max(elapsed_s, 1e-3) * _PIECE_S)
        self._piece = max(_SMALLEST_PIECE, min(_LARGEST_PIECE, fits, 2 * self._piece))

    def _check_again(self, entry: Entry, answer: Answer) -> None:
        """Begin again when the file is still the one that was queued; it may have been changed meanwhile."""
        if digest_of(Path(entry.path)) != (entry.digest, entry.size):
            self._give_up(entry, "the file was changed after it was queued")
        else:
            self._start_over(msgspec.structs.replace(entry, tries=entry.tries + 1), answer)

    def _start_over(self, entry: Entry, answer: Answer | None = None) -> None:
        self._offset = None
        if entry.tries >= _MOST_TRIES:
            self._give_up(
                entry, f"the hub answered {answer.status}: {answer.excerpt()}" if answer else "the hub lost it"
            )
        else:
            self._queue.keep(msgspec.structs.replace(entry, location=""))

    def _is_fine(self, answer: Answer) -> bool:
        """Tell whether a hub answered, and not that it is busy or does not take us."""
        if not answer.is_hub or 300 <= answer.status < 400:
            self._conductor.note(impostors=1)
            raise ConnectionError(f"something that is no hub answers {answer.status} {answer.kind}")
        if answer.status in {401, 403, 408, 425, 429} or answer.status >= 500:
            if answer.retry_after_s:
                self._conductor.told_to_wait(answer.retry_after_s)
            self._stop.wait(_STEP_PAUSE_S)
            if answer.status not in {408, 425, 429, 503}:
                raise ConnectionError(f"the hub answered {answer.status}: {answer.excerpt()}")
            self._offset = None
            return False
        return True

    def _done(self, entry: Entry) -> None:
        self._offset, self._told = None, ""
        self._conductor.note(blobs=1)
        self._queue.drop(entry)

    def _give_up(self, entry: Entry, reason: str) -> None:
        self._offset = None
        self._log.warning("the blob %s is not sent: %s", entry.path, reason)
        self._conductor.note(blobs_lost=1)
        self._queue.drop(entry)

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._log.warning("blobs wait: %s", text)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
