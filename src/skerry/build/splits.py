"""Splits: which items are to calibrate by, which to select by, and which to report on; no item is in two of them.

Texts that differ only in digits, blanks or case (as the lines of a log do) count as one and stay together: otherwise
the report would be about texts that the search has all but seen. So do texts that are relevant to one another. The hash
of an item decides where it goes, so that the order of a file does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Generic

import msgspec

from skerry.build.items import I, Items
from skerry.build.texts import key
from skerry.spec.errors import SpecError

__all__ = ["LEAST", "Splits", "key", "split"]

LEAST = 12
"""Different items that each split needs: a text has ten neighbours only among eleven, and one more to choose from."""

CALIBRATE, SELECT = 0.5, 0.25
"""Shares of one file to calibrate by (and to distil on, which takes many texts) and to select by; the rest reports."""


class Splits(msgspec.Struct, Generic[I], frozen=True, kw_only=True):
    """Items by what they are for, each in an order that is as good as random: the first ones are a fair sample.

    Parameters
    ----------
    calibrate:
        To calibrate, tune and distil on.
    select:
        To measure candidates on during the search.
    report:
        To report the winners' figures on; nothing before has seen them.
    removed:
        How many items were left out of ``calibrate`` and ``select`` since they, or nearly they, are in ``report``.
    """

    calibrate: I
    select: I
    report: I
    removed: int = 0


def split(calibrate: I, evaluate: I | None = None, *, least: int = LEAST) -> Splits[I]:
    """Split one file three ways, or ``calibrate`` two ways while ``evaluate`` is for the report alone.

    Parameters
    ----------
    calibrate:
        The items that the search may use, or all there are.
    evaluate:
        The items to report on. What is in both is taken out of ``calibrate``.
    least:
        How many different items each of the three needs.

    Raises
    ------
    SpecError
        There are too few.
    """
    groups = _groups(calibrate)
    if evaluate is None:
        first, second = round(len(groups) * CALIBRATE), round(len(groups) * (CALIBRATE + SELECT))
        parts, removed = (groups[:first], groups[first:second], groups[second:]), 0
    else:
        kept_apart = {shared for shared, _ in evaluate.identities()}
        free = [group for group in groups if not any(shared in kept_apart for shared in group.shared)]
        removed = sum(len(group.places) for group in groups) - sum(len(group.places) for group in free)
        first = round(len(free) * CALIBRATE / (CALIBRATE + SELECT))
        parts = free[:first], free[first:], _groups(evaluate)
    _require(parts, calibrate, evaluate, removed, least)
    return Splits(
        calibrate=_taken(calibrate, "to calibrate by", parts[0]),
        select=_taken(calibrate, "to select by", parts[1]),
        report=_taken(evaluate or calibrate, "to report on", parts[2]), removed=removed,
    )  # fmt: skip


class _Group(msgspec.Struct, frozen=True):
    """Items that stay together: what they share with others, and their places, in an order of their own."""

    shared: frozenset[str]
    places: tuple[int, ...]


def _groups(items: Items) -> list[_Group]:
    """Return the items with those together that are nearly the same or relatives, by the hash of what they share."""
    identities = items.identities()
    roots: dict[str, str] = {}

    def root(shared: str) -> str:
        while (above := roots.setdefault(shared, shared)) != shared:
            roots[shared] = roots[above]
            shared = above
        return shared

    for place, (shared, _) in enumerate(identities):
        for relative in items.relatives(place):
            one, other = sorted((root(shared), root(identities[relative][0])), key=_rank)
            roots[other] = one
    found: dict[str, dict[str, int]] = {}
    for place, (shared, own) in enumerate(identities):
        found.setdefault(root(shared), {}).setdefault(own, place)
    return [
        _Group(
            frozenset(identities[place][0] for place in found[top].values()),
            tuple(found[top][own] for own in sorted(found[top])),
        )
        for top in sorted(found, key=_rank)
    ]  # fmt: skip


def _rank(shared: str) -> bytes:
    return hashlib.sha256(shared.encode("utf-8", "surrogatepass")).digest()


def _taken(whole: Any, purpose: str, groups: Sequence[_Group]) -> Any:
    places = [place for group in groups for place in group.places]
    return whole.taken(places, f"{whole.origin}, {len(places)} {whole.called} {purpose}")


def _require(
    parts: tuple[Sequence[_Group], ...], calibrate: Items, evaluate: Items | None, removed: int, least: int
) -> None:
    """Raise ``SpecError`` when a split has fewer than ``least`` different items, and say how many it takes in all."""
    counts = [sum(len(group.shared) for group in part) for part in parts]
    if min(counts) >= least:
        return
    different = "that differ in more than numbers" if calibrate.called == "texts" else "that differ"
    told = f"{counts[0]} to calibrate by, {counts[1]} to select by and {counts[2]} to report on"
    if evaluate is None:
        raise SpecError(
            f"too few different {calibrate.called}: {told}", where=calibrate.origin,
            expected=f"at least {round(least / min(SELECT, 1 - CALIBRATE - SELECT))} {different}",
            hint=f"name another file under `data: evaluate:`, or give more {calibrate.called}",
        )  # fmt: skip
    short = evaluate if counts[2] < least else calibrate
    gone = f" ({removed} were in both files)" if removed else ""
    wanted = least if short is evaluate else round(least * (CALIBRATE + SELECT) / SELECT)
    raise SpecError(
        f"too few different {calibrate.called}: {told}{gone}", where=short.origin,
        expected=f"at least {wanted} {different}",
    )  # fmt: skip
