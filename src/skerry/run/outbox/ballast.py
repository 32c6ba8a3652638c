"""The ballast: a file that does nothing but take up room, to be given up when others fill the disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TIMES_FREE = 3  # so much more than the ballast must be free before it is taken again, or it would come and go

_LEAST_BYTES = 300_000  # below a megabyte free, a disk counts as full even where there is no ballast


class Ballast:
    """A file of ``size`` bytes beside a store; 0 for none."""

    def __init__(self, store: Path, size: int) -> None:
        self.path = store.with_name(store.name + ".ballast")
        self._size = size

    @property
    def held_bytes(self) -> int:
        """The bytes that could be given up now."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def take(self) -> bool:
        """Make the file where there is room for it; tell whether it is there. A full disk is no error."""
        if self._size <= 0 or self.held_bytes >= self._size:
            return self._size > 0
        if not self.room_to_spare():
            return False
        with contextlib.suppress(OSError):
            self._write()
            return True
        return False

    def free_bytes(self) -> int:
        """Return what is free on the disk."""
        try:
            space = os.statvfs(self.path.parent)
        except OSError:
            return 0
        return space.f_bavail * space.f_frsize

    def room_to_spare(self) -> bool:
        """Tell whether so much is free that nothing has to be given up."""
        return self.free_bytes() >= max(self._size, _LEAST_BYTES) * _TIMES_FREE

    def give_up(self) -> bool:
        """Remove the file; tell whether that made room."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def _write(self) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, self._size)
            else:
                os.write(descriptor, bytes(self._size))
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise
        finally:
            os.close(descriptor)
