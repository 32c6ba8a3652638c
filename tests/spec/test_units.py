"""Values with units: what is read, what is refused, and in which words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.units import Bound, Duration, Energy, Power, Quantity, Rate, Share, Size, Temperature


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "10ms", 0.01),
        (Duration, "1.5 h", 5400.0),
        (Duration, "250us", 0.00025),
        (Size, "80MB", 80e6),
        (Size, "1 KiB", 1024),
        (Power, "5 W", 5.0),
        (Energy, "1Wh", 3600.0),
        (Rate, "64kbit/s", 64e3),
        (Temperature, "80C", 80.0),
        (Share, "90%", 0.9),
        (Share, 0.25, 0.25),
        (Share, "0.25", 0.25),
    ],
)
def test_text_with_a_unit_becomes_a_number_in_the_base_unit(kind: type[Quantity], text: str, value: float) -> None:
    assert math.isclose(kind.parse(text), value)


@pytest.mark.parametrize("text", ["10", "10 parsecs", "ms", "", "-1s", "1e400s x", 10, None, True, "10 s s"])
def test_a_wrong_time_says_what_is_right(text: object) -> None:
    with pytest.raises(ValueError, match="such as 10ms"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["110%", "-1%", 1.5, "x", True, None])
def test_a_share_lies_between_nothing_and_all(text: object) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Share.parse(text)


@given(st.floats(0, 1e6), st.sampled_from(sorted(Duration.factors)))
def test_what_is_printed_reads_back(number: float, unit: str) -> None:
    once = Duration.parse(f"{number!r}{unit}")
    assert math.isclose(Duration.parse(str(once)), once, rel_tol=1e-5, abs_tol=1e-300)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [(">= 0.95", 0.95, True), (">0.95", 0.95, False), ("<= 3", 3.0001, False), ("< 3", 2, True), ("== 0", 0, True)],
)
def test_a_bound_holds_or_not(text: str, value: float, holds: bool) -> None:
    assert Bound.parse(text).holds(value) is holds
    assert Bound.parse(str(Bound.parse(text))) == Bound.parse(text)


def test_nothing_is_within_a_bound_that_cannot_be_compared() -> None:
    assert not Bound.parse(">= 0").holds(float("nan"))
    with pytest.raises(ValueError, match="bound"):
        Bound.parse("0.95")
