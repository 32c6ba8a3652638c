"""Senses: whether the machine has a link, how its battery is, and how hot it is; asked for now and then only."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from skerry.spec.address import is_loopback

_LOOK_EVERY_S = 5.0  # a link comes and goes in seconds, a battery and a heatsink are slower


class Feeling(msgspec.Struct, frozen=True):
    """What is known: ``None`` where the machine does not tell. ``battery`` is ``None`` on mains too."""

    linked: bool | None = None
    battery: float | None = None
    temperature: float | None = None


class Senses:
    """Looks at the machine, every five seconds at the most.

    Parameters
    ----------
    host:
        Where the cloud is: for one on this very machine no link is needed.
    """

    def __init__(self, host: str, clock: Callable[[], float] = time.monotonic) -> None:
        from skerry.device.pressure import VitalSigns

        self._vitals = VitalSigns()
        self._needs_link = not is_loopback(host)
        self._clock = clock
        self._looked_s = float("-inf")
        self._feeling = Feeling()

    def __call__(self) -> Feeling:
        """Return what was seen last."""
        now = self._clock()
        if now - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now
            vitals = self._vitals.read()
            self._feeling = Feeling(
                _linked() if self._needs_link else None,
                None if vitals.on_mains else vitals.battery_share,
                vitals.hottest_c,
            )
        return self._feeling


def _linked() -> bool | None:
    """Tell whether any interface but loopback is up; ``None`` where the system lists none."""
    from skerry.device.links import read_links
    from skerry.device.tree import Tree

    states = [link.state for link in read_links(Tree()) if link.kind != "loopback"]
    return any(state != "down" for state in states) if states else None
