"""The outbox: what a device has to say and has not yet been able to, kept over power cuts, full disks and damage."""

from __future__ import annotations

from skerry.run.outbox.clock import Clock, SystemClock
from skerry.run.outbox.item import Item, ItemsRefusedError
from skerry.run.outbox.options import OutboxOptions
from skerry.run.outbox.outbox import Outbox
from skerry.run.outbox.status import DeadLetter, OutboxStatus

__all__ = ["Clock", "DeadLetter", "Item", "ItemsRefusedError", "Outbox", "OutboxOptions", "OutboxStatus", "SystemClock"]
