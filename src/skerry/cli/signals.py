"""Signals that tell a command to end: who takes them, and for how long."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from skerry.cli.errors import ToldToEnd

_SAME_S = 1.0
"""The same signal again within this time counts once: ``timeout`` sends it to the process and then to its group, and
the second one would break off the cleaning up."""


@contextlib.contextmanager
def taken(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Let ``handler`` take signals inside the block, and whoever did before take them after it.

    SIGHUP stays ignored where it is: that is what ``nohup`` is for.
    """
    wanted = [each for each in numbers if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextlib.contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """Raise ``ToldToEnd`` inside the block when SIGTERM or SIGHUP comes, so that whatever is at work cleans up.

    Raises ``ValueError`` in another thread than the main one, which alone may take signals.
    """
    last: dict[int, float] = {}

    def handler(number: int, _frame: object) -> None:
        now = time.monotonic()
        before, last[number] = last.get(number), now
        if before is None or now - before > _SAME_S:
            raise ToldToEnd(number)

    with taken(handler, signal.SIGTERM, signal.SIGHUP):
        yield
