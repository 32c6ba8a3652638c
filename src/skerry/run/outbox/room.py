"""Room in an outbox: what has to go so that new records fit, decided on numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Room(NamedTuple):
    """What has to go: bytes of stored records by class, oldest first, and places of arrivals that do not fit."""

    evict: list[int]
    dropped: list[int]


def make_room(
    held: Sequence[int],
    arrivals: Sequence[tuple[int, int]],
    class_caps: Sequence[int],
    cap: int,
    slack: int = 0,
) -> Room:
    """Decide what goes: the lowest class first, within it the oldest, arrivals being the newest of their class.

    Parameters
    ----------
    held:
        Bytes stored by class.
    arrivals:
        Class and bytes of each new record, in their order.
    class_caps, cap:
        The bytes that each class, and all together, may hold.
    slack:
        How many bytes more of stored records are freed where any are, so that it is not done for every record.
    """
    stored = list(held)
    coming = [0] * len(stored)
    queues: list[list[int]] = [[] for _ in stored]
    for place, (priority, size) in enumerate(arrivals):
        coming[priority] += size
        queues[priority].append(place)
    room = Room([0] * len(stored), [])

    def free(priority: int, over: int) -> int:
        """Free ``over`` bytes of a class as far as it has them; return what is still missing."""
        taken = min(over, stored[priority])
        if taken > 0:
            taken = min(taken + slack, stored[priority])
            stored[priority] -= taken
            room.evict[priority] += taken
            over -= taken
        queue = queues[priority]
        while over > 0 and queue:
            place = queue.pop(0)
            size = arrivals[place][1]
            coming[priority] -= size
            over -= size
            room.dropped.append(place)
        return max(over, 0)

    for priority, limit in enumerate(class_caps):
        over = stored[priority] + coming[priority] - limit
        if over > 0:
            free(priority, over)
    over = sum(stored) + sum(coming) - cap
    for priority in range(len(stored)):
        if over > 0:
            over = free(priority, over)
    room.dropped.sort()
    return room
