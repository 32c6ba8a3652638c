"""Naming: what candidates are called, so that each has a name of its own."""

from __future__ import annotations

from skerry.build.artifact import Artifact


class Names:
    """The names of one search's candidates: their steps in words, with a number where the words are the same.

    Lists show in words as their lengths only, so that two settings may read alike.
    """

    def __init__(self) -> None:
        self._given: dict[tuple[str, int], str] = {}

    def of(self, artifact: Artifact, threads: int) -> str:
        """Return the name of a form run by so many threads; the same one each time."""
        what = (artifact.digest, threads)
        if what not in self._given:
            words = in_words(artifact, threads)
            taken = set(self._given.values())
            alike = (f"{words} #{number}" for number in range(2, len(taken) + 3))
            self._given[what] = words if words not in taken else next(name for name in alike if name not in taken)
        return self._given[what]


def in_words(artifact: Artifact, threads: int) -> str:
    """Return the steps of a form in words, and how many threads run it where it is not one."""
    return artifact.name() if threads == 1 else f"{artifact.name()} × {threads} threads"
