"""The file tree of a machine: `/`, or a copy of another machine's `/proc`, `/sys` and `/dev`.

Every reader of this room takes one, so that a test (or a support case) can show it any machine. What cannot be
read becomes a note; nothing here raises.
"""

from __future__ import annotations

from pathlib import Path

_LONGEST_FILE = 1 << 20  # bytes; no file in /proc or /sys that is read here comes near


class Tree:
    """Reads small files below ``root`` and collects notes on what could not be read.

    Parameters
    ----------
    root:
        The folder that stands for ``/``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.notes: list[str] = []

    @property
    def real(self) -> bool:
        """Whether this is the machine that we run on."""
        return self.root == Path("/")

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def path(self, name: str) -> Path:
        """The place of the absolute path ``name`` in this tree."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether there is such a file, folder or node."""
        try:
            return self.path(name).exists()
        except OSError:  # a folder on the way may not be entered
            return False

    def names(self, name: str) -> list[str]:
        """What is in a folder, sorted with numbers in order; empty if there is no such folder."""
        try:
            return sorted((entry.name for entry in self.path(name).iterdir()), key=_natural)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.note(f"{name}: {error.strerror}")
            return []

    def text(self, name: str, *, quiet: bool = False) -> str | None:
        """The text of a file without blanks and NULs at its ends; ``None`` if missing or empty.

        A file that is there and cannot be read leaves a note, unless ``quiet``.
        """
        try:
            with self.path(name).open("rb") as file:
                content = file.read(_LONGEST_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # sysfs answers EINVAL, ENODATA or EAGAIN where a device has nothing to say
            if not quiet:
                self.note(f"{name}: {error.strerror}")
            return None
        return content.decode("utf-8", "replace").strip(" \t\r\n\0") or None

    def integer(self, name: str, *, quiet: bool = False) -> int | None:
        """The whole number in a file; ``None`` if missing; a note if it is no number."""
        text = self.text(name, quiet=quiet)
        if text is None:
            return None
        try:
            return int(text, 0)
        except ValueError:
            if not quiet:
                self.note(f"{name}: not a whole number: {text[:40]!r}")
            return None

    def scaled(self, name: str, factor: float) -> float | None:
        """The whole number in a file times ``factor``; quiet, for the many files that a device may lack."""
        value = self.integer(name, quiet=True)
        return None if value is None else round(value * factor, 9)  # without the dust of binary fractions


def _natural(name: str) -> tuple[str, int, str]:
    """Sort ``zone2`` before ``zone10``."""
    head = name.rstrip("0123456789")
    tail = name[len(head) :]
    return head, int(tail or -1), name
