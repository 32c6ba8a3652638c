"""Downloads: a blob of the hub's, fetched by ranges so that a cut costs little, and believed by its digest only."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from skerry.run.uplink.backoff import full_jitter
from skerry.run.uplink.faults import told_plainly
from skerry.run.uplink.http import HttpLane
from skerry.run.uplink.transport import Answer
from skerry.spec.errors import HubRefusedError, HubUnreachableError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


def download_blob(
    lane: HttpLane,
    digest: str,
    target: Path,
    *,
    most_bytes: int,
    timeout_s: float = 60.0,
    tries: int = 10,
    draw: Callable[[], float] = lambda: 0.5,
    sleep: Callable[[float], Any] = time.sleep,
) -> Path:
    """Fetch a blob by its digest into ``target``, which is there only when it is whole; return it.

    What a cut left behind is in ``target`` with ``.part`` after it, and is gone on with, also by another process.

    Parameters
    ----------
    lane:
        A connection to the hub.
    digest:
        ``sha256:`` and 64 hex digits.
    target:
        The file to write.
    most_bytes:
        The most that is taken.
    timeout_s:
        Seconds for each exchange.
    tries:
        How often a connection may fail in a row without a new byte.

    Raises
    ------
    HubRefusedError
        The hub has no such blob, it is too large, or what it gives is not what was asked for.
    HubUnreachableError
        The tries are used up; what came is kept.
    """
    if not _DIGEST.fullmatch(digest):
        raise HubRefusedError(f"{digest!r} is no digest", expected="sha256: and 64 hex digits")
    part = target.with_name(target.name + ".part")
    failures, wrong = 0, 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            whole = _fetch(lane, digest, part, have, most_bytes, timeout_s)
        except OSError as error:
            whole = False
            if part.exists() and part.stat().st_size > have:
                failures = 0
            failures += 1
            if failures >= tries:
                raise HubUnreachableError(told_plainly(error, digest)) from error
            sleep(full_jitter(failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, draw))
        if not whole:
            continue
        if _digest(part) == digest:
            part.replace(target)
            return target
        part.unlink()
        wrong += 1
        if wrong > 1:
            raise HubRefusedError(f"what the hub gives for {digest} is something else")


def _fetch(lane: HttpLane, digest: str, part: Path, have: int, most_bytes: int, timeout_s: float) -> bool:
    """Append what the hub gives from ``have`` on; tell whether that was the rest."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with part.open("ab") as file:
            take = _Taker(file, most_bytes - have)
            answer = lane.request("GET", f"/v1/blobs/{digest}", b"", headers, timeout_s, take=take)
    except HubRefusedError:
        part.unlink()
        raise
    if not answer.is_hub:
        raise ConnectionError(f"something that is no hub answers {answer.status} {answer.kind}")
    # With 416 there is nothing beyond what is here; after a 200 to a range the digest is wrong, and it begins again.
    if answer.status not in {200, 206, 416}:
        _refused(digest, answer)
    return True


class _Taker:
    """Writes pieces to a file, and no more than a limit."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._left = file, most

    def __call__(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise HubRefusedError("the blob is larger than what is taken")
        self._file.write(piece)


def _refused(digest: str, answer: Answer) -> None:
    if answer.status in {408, 425, 429} or answer.status >= 500:
        raise ConnectionError(f"the hub answered {answer.status}")
    raise HubRefusedError(f"the hub does not give {digest}: {answer.status} {answer.excerpt()}")


def _digest(path: Path) -> str:
    with contextlib.closing(path.open("rb")) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
