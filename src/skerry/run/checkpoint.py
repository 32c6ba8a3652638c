"""A checkpoint: the positions of all sources in one small file that is replaced whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.ports import Log


class Checkpoint:
    """Keeps source positions over restarts, power cuts included.

    The file is written beside its place, synced, and renamed over the old one, so that one of the two is always whole.
    """

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._unfit: set[str] = set()
        self._written: dict[str, Any] = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Any])
        except FileNotFoundError:
            return {}
        except (msgspec.MsgspecError, OSError) as error:
            self._log.warning("the positions in %s cannot be read (%s): sources start afresh", self._path, error)
            return {}
        return found

    def position(self, source: str) -> Any:
        """Return where a source is to resume, or ``None``."""
        return self._written.get(source)

    def write(self, positions: dict[str, Any]) -> bool:
        """Make positions durable; tell whether that worked. A full disk is reported, never raised."""
        if positions == self._written:
            return True
        fresh = self._path.with_suffix(".new")
        encoded = self._encoded(positions)
        try:
            with fresh.open("wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            self._log.warning("positions were not saved: %s", error)
            return False
        self._written = positions
        return True

    def _encoded(self, positions: dict[str, Any]) -> bytes:
        """Return positions as JSON, without those of a source that are none."""
        try:
            return msgspec.json.encode(positions)
        except (TypeError, ValueError):
            fit = {source: position for source, position in positions.items() if self._fits(source, position)}
            return msgspec.json.encode(fit)

    def _fits(self, source: str, position: Any) -> bool:
        try:
            msgspec.json.encode(position)
        except (TypeError, ValueError) as error:
            if source not in self._unfit:
                self._unfit.add(source)
                self._log.warning("%s gives positions that cannot be saved (%s): it will start afresh", source, error)
            return False
        return True


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
