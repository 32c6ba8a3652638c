"""The pace: how many records a batch has, so that it takes about a second of the link.

Additive increase, multiplicative decrease (D.-M. Chiu and R. Jain, 1989), begun by doubling as TCP does.
"""

from __future__ import annotations

import msgspec

_FIRST_STEP = 32  # records; also what a batch grows by
_SMOOTHING = 0.2  # share of the newest sample in the mean bytes of a record
_CREEP = 1.002  # the shortest exchange is forgotten slowly; a small batch tells it anew, when a link became slow
_SMALLEST_CEILING = 512  # bytes; a hub that refuses less takes nothing


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The size of the next batch and what it was learned from.

    Parameters
    ----------
    target_s:
        Seconds of the link that a batch is to take.
    most:
        The most records of a batch.
    records:
        Records of the next batch.
    bytes_per_record:
        Bytes on the wire that a record took lately.
    ceiling:
        Bytes of a batch that the hub did not refuse as too large.
    round_trip_s:
        The shortest exchange lately: about what the link takes for nothing at all.
    is_starting:
        Whether no batch was too slow yet, so that the size may be doubled.
    """

    target_s: float
    most: int
    records: int = _FIRST_STEP
    bytes_per_record: float = 60.0
    ceiling: int = 1 << 20
    round_trip_s: float = float("inf")
    is_starting: bool = True

    def limit(self) -> int:
        """Return how many records the next batch may have: at least one."""
        fits = int(self.ceiling / max(self.bytes_per_record, 1.0))
        return max(1, min(self.records, self.most, fits))


def acknowledged(pace: Pace, records: int, size: int, elapsed_s: float, in_flight: int, *, was_full: bool) -> Pace:
    """Fold in a batch that was acknowledged.

    Parameters
    ----------
    pace:
        What was known.
    records, size:
        Its records and bytes.
    elapsed_s:
        Seconds from its sending to its receipt.
    in_flight:
        How many batches shared the link, this one included.
    was_full:
        Whether it had as many records as it was allowed: a small batch tells nothing of a larger one.
    """
    mean = pace.bytes_per_record + _SMOOTHING * (size / max(records, 1) - pace.bytes_per_record)
    trip = elapsed_s if records <= _FIRST_STEP else min(elapsed_s, pace.round_trip_s * _CREEP)
    known = msgspec.structs.replace(pace, bytes_per_record=mean, round_trip_s=trip)
    aim = trip + pace.target_s * max(1, in_flight)
    if elapsed_s > 2.0 * aim:
        return _shrunk(known, 0.5)
    if elapsed_s > aim:
        return _shrunk(known, 0.85)
    if not was_full:
        return known
    more = pace.records * 2 if pace.is_starting else pace.records + _FIRST_STEP
    return msgspec.structs.replace(known, records=min(pace.most, more))


def lost(pace: Pace) -> Pace:
    """Fold in a batch whose receipt did not come in time: the next ones are half as large."""
    return _shrunk(pace, 0.5)


def too_large(pace: Pace, size: int) -> Pace:
    """Fold in a batch of ``size`` bytes that the hub refused as too large (413): never again as large as that."""
    ceiling = max(_SMALLEST_CEILING, min(pace.ceiling, size) // 2)
    return msgspec.structs.replace(_shrunk(pace, 0.5), ceiling=ceiling)


def _shrunk(pace: Pace, share: float) -> Pace:
    return msgspec.structs.replace(pace, records=max(1, int(pace.records * share)), is_starting=False)
