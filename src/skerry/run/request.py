"""A request: an event that a signal handler may set."""

from __future__ import annotations

import threading


class Request:
    """As ``threading.Event``, whose ``set`` may hang in a signal handler that interrupts its ``wait``.

    The lock may be taken twice by one thread, so that the handler need not wait for the code that it interrupted. A
    thread that is interrupted between looking and waiting misses the request until its time is over: the thread that
    handles signals waits with a short time limit.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._condition = threading.Condition(threading.RLock())

    def is_set(self) -> bool:
        """Tell whether the request came."""
        return self._is_set

    def set(self) -> None:
        """Make the request, and wake everybody who waits for it."""
        self._is_set = True
        with self._condition:
            self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the request at most ``timeout`` seconds; tell whether it came."""
        with self._condition:
            if not self._is_set:
                self._condition.wait(timeout)
        return self._is_set
