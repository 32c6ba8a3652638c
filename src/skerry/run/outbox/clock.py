"""The clock of the outbox: what is known of the time, without ever believing the wall clock alone."""

from __future__ import annotations

import ctypes
import re
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYNC_CHECK_S = 10.0  # a call into the kernel costs more than a record: the flag is believed for this long
_TIME_ERROR = 5  # what adjtimex returns while the clock is not synchronised (adjtimex(2))
_TIMEX_BYTES = 256  # struct timex has 208 bytes on 64-bit Linux and less elsewhere


class Clock(Protocol):
    """What the time is, and how far that can be believed."""

    def mono_us(self) -> int:
        """Return microseconds since :meth:`boot`, sleep included; never goes back."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 as the system has them, right or wrong."""

    def boot(self) -> str:
        """Return 32 hex digits that change when ``mono_us`` starts anew."""

    def synced(self) -> bool:
        """Tell whether the system says that its wall clock is synchronised."""


class SystemClock:
    """The clock of this machine: ``CLOCK_BOOTTIME``, the kernel's boot id, and its flag of synchronisation.

    A system without a boot id gets one made up for each process, and its monotonic clock then starts with the process:
    two processes must not believe that their clocks can be compared.
    """

    def __init__(self) -> None:
        found = _kernel_boot()
        self._boot = found or uuid.uuid4().hex
        self._clock = getattr(time, "CLOCK_BOOTTIME", None)
        self._start_ns = 0 if found else self._now_ns()
        self._synced = False
        self._checked_ns: int | None = None

    def mono_us(self) -> int:
        """Return microseconds since the boot, sleep included."""
        return (self._now_ns() - self._start_ns) // 1000

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def boot(self) -> str:
        """Return the boot id without dashes."""
        return self._boot

    def synced(self) -> bool:
        """Tell whether the kernel counts its clock as synchronised (``adjtimex``); asked every ten seconds."""
        now = time.monotonic_ns()
        if self._checked_ns is None or now - self._checked_ns > _SYNC_CHECK_S * 1e9:
            self._synced, self._checked_ns = _kernel_synced(), now
        return self._synced

    def _now_ns(self) -> int:
        return time.monotonic_ns() if self._clock is None else time.clock_gettime_ns(self._clock)


@cache
def _kernel_boot() -> str:
    """Return the kernel's boot id without dashes, or nothing."""
    try:
        found = _BOOT_ID.read_text(encoding="ascii").strip().replace("-", "").lower()
    except (OSError, UnicodeDecodeError):
        return ""
    return found if re.fullmatch("[0-9a-f]{32}", found) else ""


@cache
def _adjtimex() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None


def _kernel_synced() -> bool:
    """Ask the kernel, changing nothing: a ``struct timex`` whose ``modes`` is 0."""
    call = _adjtimex()
    if call is None:
        return False
    state = int(call(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return 0 <= state < _TIME_ERROR
