"""The audit: whether the hub holds what it acknowledged, by its count and its sum of digests beside ours.

A receipt tells what the hub holds of an epoch at that moment. It has to hold what it acknowledged before the batch was
sent, and what it acknowledges now. It may hold more: batches whose receipts are under way, were lost, or came for
records that were given up here meanwhile. So fewer is a fault always, and a wrong sum where the counts agree.
"""

from __future__ import annotations

import msgspec

MODULUS = 1 << 64


class Holding(msgspec.Struct, frozen=True):
    """Records of an epoch: how many, and the sum of their digests modulo 2^64."""

    count: int = 0
    checksum: int = 0

    def plus(self, other: Holding) -> Holding:
        """Return both together."""
        return Holding(self.count + other.count, (self.checksum + other.checksum) % MODULUS)


def fault_of(least: Holding, hub: Holding) -> str:
    """Return in words what is wrong with what the hub says it holds; nothing when it can be right.

    >>> fault_of(Holding(3, 30), Holding(3, 30))
    ''
    """
    if hub.count < least.count:
        return f"it acknowledged {least.count} records and holds {hub.count} of them"
    if hub.count == least.count and hub.checksum != least.checksum:
        return f"it holds {hub.count} records, as many as it acknowledged, but not the same ones"
    return ""
