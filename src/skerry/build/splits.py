"""Splits: which texts are to calibrate by, which to select by, and which to report on; no text is in two of them.

Texts that differ only in digits, blanks or case (as the lines of a log do) count as one and stay together: otherwise
the report would be about texts that the search has all but seen. The hash of a text decides where it goes, so that the
order of a file does not.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

import msgspec

from skerry.build.texts import Texts
from skerry.spec.errors import SpecError

LEAST = 12
"""Different texts that each split needs: a text has ten neighbours only among eleven, and one more to choose from."""

CALIBRATE, SELECT = 0.5, 0.25
"""Shares of one file to calibrate by (and to distil on, which takes many texts) and to select by; the rest reports."""

_DIGITS = re.compile(r"\d+")


class Splits(msgspec.Struct, frozen=True, kw_only=True):
    """Texts by what they are for, each in an order that is as good as random: the first ones are a fair sample.

    Parameters
    ----------
    calibrate:
        To calibrate, tune and distil on.
    select:
        To measure candidates on during the search.
    report:
        To report the winners' figures on; nothing before has seen them.
    removed:
        How many texts were left out of ``calibrate`` and ``select`` since they, or nearly they, are in ``report``.
    """

    calibrate: Texts
    select: Texts
    report: Texts
    removed: int = 0


def split(calibrate: Texts, evaluate: Texts | None = None, *, least: int = LEAST) -> Splits:
    """Split one file three ways, or ``calibrate`` two ways while ``evaluate`` is for the report alone.

    Parameters
    ----------
    calibrate:
        The texts that the search may use, or all there are.
    evaluate:
        The texts to report on. What is in both is taken out of ``calibrate``.
    least:
        How many different texts each of the three needs.

    Raises
    ------
    SpecError
        There are too few texts.
    """
    groups = _groups(calibrate.lines)
    if evaluate is None:
        first, second = round(len(groups) * CALIBRATE), round(len(groups) * (CALIBRATE + SELECT))
        parts, removed = (groups[:first], groups[first:second], groups[second:]), 0
        report = _texts(calibrate, "to report on", parts[2])
    else:
        kept_apart = {key(text) for text in evaluate.lines}
        free = [group for group in groups if key(group[0]) not in kept_apart]
        removed = sum(map(len, groups)) - sum(map(len, free))
        first = round(len(free) * CALIBRATE / (CALIBRATE + SELECT))
        parts = free[:first], free[first:], _groups(evaluate.lines)
        report = _texts(evaluate, "to report on", parts[2])
    _require(parts, calibrate, evaluate, removed, least)
    return Splits(
        calibrate=_texts(calibrate, "to calibrate by", parts[0]),
        select=_texts(calibrate, "to select by", parts[1]),
        report=report, removed=removed,
    )  # fmt: skip


def key(text: str) -> str:
    """Return what is left of a text without case, kinds of blanks and the values of its numbers.

    >>> key("Took  31 ms") == key("took 7 ms")
    True
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_DIGITS.sub("0", plain).split())


def _groups(lines: Iterable[str]) -> list[list[str]]:
    """Return the texts with those together that are nearly the same, by the hash of what they share."""
    found: dict[str, list[str]] = {}
    for text in lines:
        found.setdefault(key(text), []).append(text)
    return [sorted(set(found[shared])) for shared in sorted(found, key=_rank)]


def _rank(shared: str) -> bytes:
    return hashlib.sha256(shared.encode("utf-8", "surrogatepass")).digest()


def _texts(whole: Texts, purpose: str, groups: list[list[str]]) -> Texts:
    lines = tuple(text for group in groups for text in group)
    return Texts(origin=f"{whole.origin}, {len(lines)} texts {purpose}", lines=lines)


def _require(
    parts: tuple[list[list[str]], ...], calibrate: Texts, evaluate: Texts | None, removed: int, least: int
) -> None:
    """Raise ``SpecError`` when a split has fewer than ``least`` different texts, and say how many it takes in all."""
    counts = [len(part) for part in parts]
    if min(counts) >= least:
        return
    told = f"{counts[0]} to calibrate by, {counts[1]} to select by and {counts[2]} to report on"
    if evaluate is None:
        raise SpecError(
            f"too few different texts: {told}", where=calibrate.origin,
            expected=f"at least {round(least / min(SELECT, 1 - CALIBRATE - SELECT))} that differ in more than numbers",
            hint="name another file under `data: evaluate:`, or give more texts",
        )  # fmt: skip
    short = evaluate if counts[2] < least else calibrate
    gone = f" ({removed} were in both files)" if removed else ""
    wanted = least if short is evaluate else round(least * (CALIBRATE + SELECT) / SELECT)
    raise SpecError(
        f"too few different texts: {told}{gone}", where=short.origin,
        expected=f"at least {wanted} that differ in more than numbers",
    )  # fmt: skip
