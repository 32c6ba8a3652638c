"""The judgement: what of a receipt is believed. Nothing that was not in the batch is settled by it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.wire.ranges import Range, contains, merge, subtract, total
from skerry.wire.receipt import Receipt


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt settles, if it is sound.

    Parameters
    ----------
    committed, forked:
        Numbers of the batch that are durable at the hub, and those that it holds with other content.
    dead:
        Numbers of the batch that it will never take, with the reasons.
    unanswered:
        How many numbers of the batch it says nothing of; they are sent again.
    fault:
        Why none of it is believed; empty for a sound receipt.
    """

    committed: list[Range] = []
    forked: list[Range] = []
    dead: list[tuple[int, str]] = []
    unanswered: int = 0
    fault: str = ""


def judge(receipt: Receipt, epoch: str, sent: Sequence[Range]) -> Judgement:
    """Return what a receipt settles of the numbers ``sent`` (merged ranges) in an epoch."""
    if receipt.epoch != epoch:
        return Judgement(fault=f"it answers for the epoch {receipt.epoch}, and {epoch} was sent")
    committed, forked = merge(receipt.committed), merge(receipt.forked)
    dead = merge((seq, seq) for seq, _ in receipt.dead)
    answered = merge(committed, forked, dead)
    if foreign := total(subtract(answered, sent)):
        return Judgement(fault=f"it answers for {foreign} records that were not sent")
    if total(committed) + total(forked) + total(dead) != total(answered):
        return Judgement(fault="it says two things of one record")
    return Judgement(
        committed=committed,
        forked=forked,
        dead=[(seq, reason) for seq, reason in dict(receipt.dead).items() if contains(sent, seq)],
        unanswered=total(sent) - total(answered),
    )
