"""Retention: old records are deleted once every egress has handed them on; what tells a repetition is kept."""

from __future__ import annotations

import math
from collections.abc import Callable

from skerry.fleet.hub.counts import Counts
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.store import Extent, Store
from skerry.fleet.hub.writer import Writer

STEP = 1000
"""Records of one transaction: some milliseconds, in which no batch is taken."""
OVERHEAD = 250
"""Bytes of a record in a store beside its fields: names, clocks and three indexes."""
_ANY_TIME = 2**62


class Retention:
    """Deletes what is older than ``keep``, and the oldest of what is more than ``keep_size``.

    An egress that is behind, also one that is not at work now, holds up what it has not delivered: records go only to
    make room for records, never unseen. The newest record stays, so that numbers go on from it.

    Parameters
    ----------
    store, writer:
        Where the records are.
    options:
        ``keep`` and ``keep_size``; 0 is for ever and without bound.
    counts:
        Where the deleted ones are counted.
    ended:
        Whether the hub ends, and with it a step after which there would be more.
    """

    def __init__(
        self, store: Store, writer: Writer, options: HubOptions, counts: Counts, ended: Callable[[], bool]
    ) -> None:
        self._store, self._writer, self._options = store, writer, options
        self._counts, self._ended = counts, ended

    def tidy(self, now_s: float) -> int:
        """Delete what need not be kept at ``now_s``, in small transactions; return how many. Raises ``HubError``."""
        forgotten = 0
        if self._options.keep:
            forgotten += self._forget(_ANY_TIME, int((now_s - self._options.keep) * 1000))
        if self._options.keep_size:
            forgotten += self._forget(last_in_excess(self._store.extent(), int(self._options.keep_size)), _ANY_TIME)
        return forgotten

    def _forget(self, up_to: int, before_ms: int) -> int:
        forgotten = 0
        delivered = min(self._store.cursors().values(), default=_ANY_TIME)
        up_to = min(up_to, delivered, self._store.last_id() - 1)
        while not self._ended():
            step = self._writer.submit(lambda transaction: transaction.forget(up_to, before_ms, STEP)).result()
            self._counts.forgotten += step
            forgotten += step
            if step < STEP:
                break
        return forgotten


def last_in_excess(extent: Extent, keep_bytes: int) -> int:
    """Return the number of the last of the oldest records that have to go so that the others have ``keep_bytes``."""
    each = extent.mean_bytes + OVERHEAD
    excess = extent.count * each - keep_bytes
    return extent.first + math.ceil(excess / each) - 1 if excess > 0 else 0
