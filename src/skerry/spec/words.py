"""Words: the nearest valid one for a typo."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """Return the valid word that is most like ``word``, or ``None`` when none is near."""
    found = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest valid word, or an empty text."""
    near = nearest(word, valid)
    return f"did you mean {near!r}?" if near else ""
