"""The degrade ladder: it steps down under strain, up when calm, and does not flap."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from skerry.run.ladder import LadderState, Signals, decide, is_calm, strain
from skerry.spec.pipeline import Ladder
from skerry.spec.units import Duration

LIMITS = Ladder(patience=Duration(2), recovery=Duration(10))
HOT = Signals(temperature=95.0)
COOL = Signals(temperature=40.0)
WARM = Signals(temperature=75.0)


def walk(signals: list[Signals], last_rung: int = 2) -> list[int]:
    """Return the rung after each second."""
    state, rungs = LadderState(), []
    for second, signal in enumerate(signals):
        state = decide(state, signal, LIMITS, last_rung, float(second))
        rungs.append(state.rung)
    return rungs


def test_strain_must_last_before_a_step_down() -> None:
    assert walk([HOT, HOT, COOL, HOT, HOT]) == [0, 0, 0, 0, 0]
    assert walk([HOT] * 7) == [0, 0, 1, 1, 2, 2, 2]


def test_calm_must_last_longer_before_a_step_up() -> None:
    assert walk([HOT] * 3 + [COOL] * 9)[-1] == 1
    assert walk([HOT] * 3 + [COOL] * 11)[-1] == 0


def test_between_the_limits_nothing_moves() -> None:
    assert set(walk([HOT] * 3 + [WARM] * 100)[3:]) == {1}


def test_each_signal_has_its_limit() -> None:
    assert strain(Signals(missed_deadlines=0.2), LIMITS) == "missed_deadlines 0.2 > 0.05"
    assert strain(Signals(memory_pressure=0.95), LIMITS)
    assert strain(Signals(memory_stall=0.5), LIMITS)
    assert strain(Signals(battery=0.1), LIMITS) == "battery 0.1 < 0.2"
    assert not strain(Signals(), LIMITS)
    assert not strain(Signals(temperature=float("nan")), LIMITS)


def test_a_battery_is_calm_only_well_above_its_limit() -> None:
    assert not is_calm(Signals(battery=0.22), LIMITS)
    assert is_calm(Signals(battery=0.26), LIMITS)


SIGNALS = st.builds(
    Signals,
    missed_deadlines=st.none() | st.floats(0, 1),
    memory_pressure=st.none() | st.floats(0, 1),
    temperature=st.none() | st.floats(-20, 120),
    battery=st.none() | st.floats(0, 1),
)


@given(st.lists(SIGNALS, max_size=60), st.integers(0, 4))
def test_one_step_at_a_time_within_the_ladder(signals: list[Signals], last_rung: int) -> None:
    before = 0
    for rung in walk(signals, last_rung):
        assert 0 <= rung <= last_rung
        assert abs(rung - before) <= 1
        before = rung


@given(st.lists(SIGNALS, max_size=60))
def test_steps_are_never_closer_than_the_waiting_times(signals: list[Signals]) -> None:
    rungs = walk(signals)
    steps = [
        (second, after - before)
        for second, (before, after) in enumerate(zip([0, *rungs], rungs, strict=False))
        if after != before
    ]
    for (first, _), (second, direction) in itertools.pairwise(steps):
        assert second - first >= (2 if direction > 0 else 10)
