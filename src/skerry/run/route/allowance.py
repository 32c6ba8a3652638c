"""An allowance: the bytes and the money that may be spent in a day, and that a restart does not give back."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import msgspec

from skerry.spec.errors import StateUnwritableError

_DAYS_KEPT = 40  # a clock that jumps to and fro finds each day as it left it
_STEPS = 100  # a hundredth of the budget is written down ahead, so that the disk is not worn by every request
_DAY_S = 86400


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent in one day."""

    bytes: float = 0.0
    money: float = 0.0


class _Kept(msgspec.Struct, kw_only=True):
    """The file: what was set apart by day (days since 1970, UTC)."""

    skerry: int = 1
    days: dict[int, Spent] = {}


class Allowance:
    """What is left of a day's bytes and money; safe from any thread.

    What is written down runs ahead of what was spent by up to a hundredth of the limit, so that a crash can only cost a
    little of the budget, and never give some back. Each date has an account of its own, so that a clock that jumps a
    year and back changes nothing of today.

    Parameters
    ----------
    file:
        Where it is kept; its folder exists.
    bytes_per_day, money_per_day:
        The limits; ``None`` for none.

    Raises
    ------
    StateUnwritableError
        It cannot be read or written down.
    """

    def __init__(self, file: Path, *, bytes_per_day: float | None, money_per_day: float | None) -> None:
        self._file, self._limits = file, (bytes_per_day, money_per_day)
        self._lock = threading.RLock()
        self._kept = self._read()
        self._spent = dict(self._kept.days)

    def left(self, wall_s: float) -> tuple[float | None, float | None]:
        """Return the bytes and the money that are left at a wall-clock time (seconds since 1970)."""
        with self._lock:
            spent = self._spent.get(_day(wall_s), Spent())
        most_bytes, most_money = self._limits
        return (
            None if most_bytes is None else max(0.0, most_bytes - spent.bytes),
            None if most_money is None else max(0.0, most_money - spent.money),
        )

    def spend(self, nbytes: float, money: float, wall_s: float) -> None:
        """Count what an exchange takes, before it begins; a negative amount corrects it afterwards."""
        if self._limits == (None, None):
            return
        with self._lock:
            day = _day(wall_s)
            before = self._spent.get(day, Spent())
            now = Spent(bytes=max(0.0, before.bytes + nbytes), money=max(0.0, before.money + money))
            self._spent[day] = now
            kept = self._kept.days.get(day, Spent())
            if now.bytes > kept.bytes or now.money > kept.money:
                self._write(day, now)

    def take(self, nbytes: float, money: float, wall_s: float) -> bool:
        """Spend if that much is left, as one step that no other thread comes between; tell whether it was."""
        with self._lock:
            spent = self._spent.get(_day(wall_s), Spent())
            most_bytes, most_money = self._limits
            if most_bytes is not None and spent.bytes + nbytes > most_bytes:
                return False
            if most_money is not None and spent.money + money > most_money:
                return False
            self.spend(nbytes, money, wall_s)
            return True

    def _write(self, day: int, now: Spent) -> None:
        most_bytes, most_money = self._limits
        ahead = Spent(bytes=now.bytes + (most_bytes or 0.0) / _STEPS, money=now.money + (most_money or 0.0) / _STEPS)
        days = {**{each: spent for each, spent in self._kept.days.items() if each != day}, day: ahead}
        self._kept = _Kept(days=dict(list(days.items())[-_DAYS_KEPT:]))
        draft = self._file.with_suffix(".part")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(self._kept))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise StateUnwritableError(
                f"what was spent on the cloud cannot be written down: {error.strerror or error}", where=str(self._file)
            ) from error

    def _read(self) -> _Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.DecodeError) as error:
            raise StateUnwritableError(
                f"what was spent on the cloud cannot be read: {error}", where=str(self._file),
                hint="remove the file, and the day's budget begins anew",
            ) from error  # fmt: skip


def _day(wall_s: float) -> int:
    return int(wall_s // _DAY_S)
