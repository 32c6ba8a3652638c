"""The fork: what has to be answered under an epoch before what is left of it takes new numbers in another one.

A record that was sent, and whose receipt was lost, may be at the hub already. Under a new number it would be there
twice. So everything that was given a number before the fork was wanted is sent under the old one first, where the hub
finds repetitions; what it holds other records under is left for the new epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.wire.ranges import Range, merge

_END = 2**62  # the largest number that a hub takes


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """A new epoch that is wanted.

    Parameters
    ----------
    reason:
        Why.
    last:
        The highest number that was given when it was wanted: those beyond were never sent, and wait for the new epoch.
    taken:
        Numbers under which the hub holds other records.
    """

    reason: str
    last: int
    taken: list[Range] = []

    def kept_back(self) -> list[Range]:
        """Return the numbers that are not sent any more under the old epoch."""
        return merge(self.taken, [(self.last + 1, _END)])


def wanted(fork: Fork | None, reason: str, last: int, taken: Sequence[Range] = ()) -> Fork:
    """Return the fork that is wanted now; the first reason stays, and so does the highest number of then."""
    if fork is None:
        return Fork(reason=reason, last=last, taken=merge(taken))
    return msgspec.structs.replace(fork, taken=merge(fork.taken, taken))
