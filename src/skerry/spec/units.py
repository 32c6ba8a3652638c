"""Values that carry their unit: ``10ms``, ``80MB``, ``5 W``, ``>= 0.95``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, ClassVar, Self

_NUMBER = r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"


class Quantity(float):
    """A number in one base unit, read from text in any unit of ``factors``.

    A quantity is a plain ``float`` in the base unit afterwards, and prints in the base unit.
    """

    factors: ClassVar[dict[str, float]] = {}
    example: ClassVar[str] = ""
    base: ClassVar[str] = ""
    noun: ClassVar[str] = ""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a number with its unit.

        Raises
        ------
        ValueError
            The text has no number, no unit or an unknown unit, or the number is negative.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise ValueError(f"{cls.noun} with a unit, such as {cls.example}")
        match = re.fullmatch(_NUMBER + r"\s*(?P<unit>[^\s\d].*)?", text.strip())
        if match is None or match["unit"] not in cls.factors:
            units = ", ".join(cls.factors)
            raise ValueError(f"{cls.noun} with a unit ({units}), such as {cls.example}")
        value = float(match["number"]) * cls.factors[match["unit"]]
        if value < 0:
            raise ValueError(f"{cls.noun} that is not negative, such as {cls.example}")
        return cls(value)

    def __str__(self) -> str:
        return f"{float(self):g}{self.base}"


class Duration(Quantity):
    """A time in seconds."""

    factors: ClassVar[dict[str, float]] = {
        "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0,
        "h": 3600.0, "d": 86400.0,
    }  # fmt: skip
    example, base, noun = "10ms", "s", "a time"

    @property
    def ns(self) -> int:
        """The time in whole nanoseconds."""
        return round(float(self) * 1e9)


class Size(Quantity):
    """An amount of memory or disk in bytes; ``MB`` is 10^6, ``MiB`` is 2^20."""

    factors: ClassVar[dict[str, float]] = {
        "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    }  # fmt: skip
    example, base, noun = "80MB", "B", "a size"


class Power(Quantity):
    """A power in watts."""

    factors: ClassVar[dict[str, float]] = {"mW": 1e-3, "W": 1.0, "kW": 1e3}
    example, base, noun = "5 W", "W", "a power"


class Energy(Quantity):
    """An energy in joules."""

    factors: ClassVar[dict[str, float]] = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3, "Wh": 3600.0, "kWh": 3.6e6}
    example, base, noun = "50mJ", "J", "an energy"


class Rate(Quantity):
    """A data rate in bits per second."""

    factors: ClassVar[dict[str, float]] = {"bit/s": 1, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
    example, base, noun = "64kbit/s", "bit/s", "a data rate"


class Temperature(Quantity):
    """A temperature in degrees Celsius."""

    factors: ClassVar[dict[str, float]] = {"°C": 1.0, "C": 1.0}
    example, base, noun = "80C", "C", "a temperature"


class Share(Quantity):
    """A share between 0 and 1, written as ``90%`` or ``0.9``."""

    example, base, noun = "90%", "", "a share"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read ``90%`` or ``0.9``; raises ``ValueError`` outside 0 to 1."""
        wrong = ValueError("a share between 0 and 1, such as 90% or 0.9")
        if isinstance(text, str):
            match = re.fullmatch(_NUMBER + r"\s*(?P<unit>%)?", text.strip())
            if match is None:
                raise wrong
            value = float(match["number"]) / (100.0 if match["unit"] else 1.0)
        elif isinstance(text, int | float) and not isinstance(text, bool):
            value = float(text)
        else:
            raise wrong
        if not 0.0 <= value <= 1.0:
            raise wrong
        return cls(value)


class Bound:
    """A comparison with a number, such as ``>= 0.95``."""

    _operators: ClassVar[dict[str, Callable[[float, float], bool]]] = {
        ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
    }  # fmt: skip
    __slots__ = ("limit", "relation")
    example: ClassVar[str] = ">= 0.95"

    def __init__(self, relation: str, limit: float) -> None:
        self.relation = relation
        self.limit = limit

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read ``<relation> <number>``; raises ``ValueError`` for anything else."""
        pattern = r"(?P<relation>>=|<=|==|>|<)\s*" + _NUMBER
        match = re.fullmatch(pattern, text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError("a bound (>=, <=, >, <, == and a number), such as >= 0.95")
        return cls(match["relation"], float(match["number"]))

    def holds(self, value: float) -> bool:
        """Tell whether ``value`` keeps the bound; a NaN never does."""
        return self._operators[self.relation](value, self.limit)

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g}"

    def __repr__(self) -> str:
        return f"Bound({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and (self.relation, self.limit) == (other.relation, other.limit)

    def __hash__(self) -> int:
        return hash((self.relation, self.limit))


QUANTITIES: tuple[type[Any], ...] = (Duration, Size, Power, Energy, Rate, Temperature, Share, Bound)


def decode_unit(kind: type[Any], value: object) -> Any:
    """Turn text into a value with a unit: the ``dec_hook`` of every msgspec conversion here."""
    if kind in QUANTITIES:
        return kind.parse(value)
    raise NotImplementedError(f"no way to read a {kind.__name__}")


def encode_unit(value: object) -> Any:
    """Turn a value with a unit into text: the ``enc_hook`` of every msgspec encoding here."""
    if isinstance(value, QUANTITIES):
        return str(value)
    raise NotImplementedError(f"no way to write a {type(value).__name__}")
