"""Options: how much an uplink may send, when, over which links, and how patient it is."""

from __future__ import annotations

from typing import Literal

import msgspec

from skerry.spec.errors import SpecError
from skerry.spec.ports import Options
from skerry.spec.units import Duration, Size

LinkClass = Literal["ethernet", "wifi", "cellular", "satellite", "metered", "unknown"]
"""What a byte costs depends on it: ``metered`` is any link of which the system says that its traffic is paid for."""

_SMALLEST_BUDGET = 20_000  # bytes
_MOST_IN_FLIGHT = 8  # each costs a connection here and at the hub; beyond 4 nothing was gained at 300 ms


class UplinkOptions(Options, frozen=True, kw_only=True):
    """How records travel to the hub.

    Parameters
    ----------
    in_flight:
        Batches on their way at once, each on a connection of its own; default 3. At 300 ms of round trip one batch
        leaves the link idle for most of the time, more than four bring nothing.
    batch_time:
        How much of the link's time a batch aims at; default 1 s. What a cut throws away, and how long a critical
        record waits behind others, is about this much.
    most_records:
        The most records of a batch; default 2000, some 25 kB, beyond which compression gains nothing.
    linger:
        How long the first record waits for company; default 200 ms. A critical record does not wait.
    timeout:
        How long one exchange may take; default 60 s, many times ``batch_time``.
    connect_timeout:
        How long a connection with its TLS handshake may take; default 15 s, some 20 round trips by satellite.
    silence:
        After how long without a sign of life a connection counts as dead; default 20 s. Without it a link that died
        silently is noticed only after the kernel's 15 minutes.
    first_pause, longest_pause:
        Bounds of the pauses after failures, each a random share of the doubled one before; default 1 s and 5 min.
    link:
        The class of whatever link is used, for a device that knows; default: as the system tells.
    links:
        The class of an interface by its name, such as ``{wwan0: satellite}``: no system tells a satellite.
    budgets:
        Bytes a day by class of link, TCP and TLS included, such as ``{cellular: 5MB, metered: 20MB}``; default none.
    quiet_hours:
        Local times at which nothing is sent, such as ``["22:00-06:00"]``; default none.
    critical_in_quiet_hours:
        Whether records of the class ``critical`` are sent in quiet hours all the same; default yes.
    critical_over_budget:
        Whether they are sent when the day's budget is used up; default no: a budget is money.
    mismatch:
        What to do when the hub's count of what it holds is not ours: ``stop`` (default) keeps everything unsent here,
        ``tell`` counts and says it, and goes on.
    """

    in_flight: int = 3
    batch_time: Duration = Duration(1.0)
    most_records: int = 2000
    linger: Duration = Duration(0.2)
    timeout: Duration = Duration(60.0)
    connect_timeout: Duration = Duration(15.0)
    silence: Duration = Duration(20.0)
    first_pause: Duration = Duration(1.0)
    longest_pause: Duration = Duration(300.0)
    link: LinkClass | None = None
    links: dict[str, LinkClass] = msgspec.field(default_factory=dict)
    budgets: dict[LinkClass, Size] = msgspec.field(default_factory=dict)
    quiet_hours: list[str] = msgspec.field(default_factory=list)
    critical_in_quiet_hours: bool = True
    critical_over_budget: bool = False
    mismatch: Literal["stop", "tell"] = "stop"


def check_options(options: UplinkOptions, *, where: str = "") -> None:
    """Raise ``SpecError`` for options that cannot be kept."""
    from skerry.run.uplink.hours import read_hours

    if not 1 <= options.in_flight <= _MOST_IN_FLIGHT:
        raise SpecError(f"`in_flight` is between 1 and {_MOST_IN_FLIGHT}", where=where)
    if options.most_records < 1:
        raise SpecError("`most_records` is at least 1", where=where)
    for name in ("batch_time", "timeout", "connect_timeout", "silence", "first_pause", "longest_pause"):
        if getattr(options, name) <= 0:
            raise SpecError(f"`{name}` is longer than nothing", where=where)
    if small := [link for link, size in options.budgets.items() if size < _SMALLEST_BUDGET]:
        raise SpecError(
            f"the budget of {small[0]} is {options.budgets[small[0]]}", where=where,
            expected="at least 20kB a day: a connection alone takes 6", hint="use quiet_hours to send nothing",
        )  # fmt: skip
    read_hours(options.quiet_hours, where=where)
