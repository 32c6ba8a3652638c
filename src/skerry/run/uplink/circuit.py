"""The circuit: whether the hub is worth a try now. After a failure a single batch probes it, the others wait."""

from __future__ import annotations

import msgspec

from skerry.run.uplink.backoff import Draw, full_jitter

LONGEST_TOLD_S = 86400.0
"""How far ahead a hub may put us off: a day. A typing error in a ``Retry-After`` must not silence a fleet for years."""


class Circuit(msgspec.Struct, frozen=True):
    """What is known of the hub's being there; times are seconds of one monotonic clock.

    Parameters
    ----------
    failures:
        Failures in a row, those of several batches lost at one moment counted once.
    failed_at:
        When the last of them was noticed.
    not_before:
        When it may be tried again, by our own choice.
    told:
        When it may be tried again, by the hub's word (``Retry-After``): this is never anticipated.
    """

    failures: int = 0
    failed_at: float = float("-inf")
    not_before: float = float("-inf")
    told: float = float("-inf")

    @property
    def is_closed(self) -> bool:
        """Whether all is well."""
        return self.failures == 0

    def wait_s(self, now: float) -> float:
        """Return for how long nothing may be sent; 0 when something may."""
        return max(0.0, self.not_before - now, self.told - now)

    def most_in_flight(self, limit: int) -> int:
        """Return how many batches may be on their way."""
        return limit if self.is_closed else min(1, limit)


def failed(circuit: Circuit, begun: float, now: float, *, first_s: float, longest_s: float, draw: Draw) -> Circuit:
    """Fold in an exchange that ``begun`` and failed: one that was under way at the last failure tells nothing new."""
    if begun < circuit.failed_at:
        return circuit
    failures = circuit.failures + 1
    pause = full_jitter(failures, first_s, longest_s, draw)
    return Circuit(failures, now, now + pause, circuit.told)


def succeeded(circuit: Circuit, begun: float) -> Circuit:
    """Fold in an answer of the hub; one to a batch from before the last failure does not mend it."""
    return circuit if begun < circuit.failed_at else Circuit(told=circuit.told)


def put_off(circuit: Circuit, now: float, seconds: float) -> Circuit:
    """Fold in the hub's wish to be left alone for some seconds."""
    told = now + min(max(0.0, seconds), LONGEST_TOLD_S)
    return msgspec.structs.replace(circuit, told=max(circuit.told, told))


def nudged(circuit: Circuit, now: float, *, first_s: float, draw: Draw) -> Circuit:
    """Fold in that the link came up: try soon, though not all devices of a mast at the same moment."""
    soon = now + draw() * first_s
    return msgspec.structs.replace(circuit, not_before=min(circuit.not_before, soon))
