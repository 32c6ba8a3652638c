"""Heirs: a forked process has its parent's outboxes in memory, and must not touch them.

Both would write to one file with one idea of it, and a store whose process is gone would stay locked for as long as
any child lives. So in a child every outbox of its parent is closed without a word to the file.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Protocol


class Heritage(Protocol):
    """What a child inherits and has to give up."""

    def disown(self) -> None:
        """Become unusable, and leave the file alone."""


_open: weakref.WeakSet[Any] = weakref.WeakSet()


def enlist(heritage: Heritage) -> None:
    """Have something disowned in every child that is forked from now on."""
    _open.add(heritage)


def never_close(thing: object) -> None:
    """Keep an object from ever being freed: its end would write to a file that is another process's."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _disown_all() -> None:
    for heritage in list(_open):
        heritage.disown()


os.register_at_fork(after_in_child=_disown_all)
