"""What decides purely: the policies, the circuit breaker, the foresight and the day's allowance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.route.allowance import Allowance
from skerry.run.route.breaker import Circuit, after, given_up, may_pass, passed
from skerry.run.route.decision import HARD, POLICIES, SURE, WAITS, Situation, decide
from skerry.run.route.foresight import Foresight
from skerry.run.route.memory import Memory
from skerry.run.route.protocol import Answer
from skerry.spec.cloud import Breaker
from skerry.spec.errors import StateUnwritableError
from skerry.spec.units import Duration

DAY_S = 86400.0
LIMITS = Breaker(failures=3, pause=Duration(5.0), longest=Duration(12.0))

AGAINST: dict[str, dict[str, Any]] = {
    "sure": {"score": 0.9},
    "personal": {"may_leave": False},
    "offline": {"linked": False},
    "breaker": {"closed": False},
    "deadline": {"left_s": 0.1, "predicted_s": 0.2},
    "bytes": {"bytes_needed": 100, "bytes_left": 99},
    "money": {"cost": 2.0, "money_left": 1.0},
    "large": {"bytes_needed": 2_000_000},
    "battery": {"battery": 0.1, "least_battery": 0.2},
    "heat": {"temperature": 90.0, "most_temperature": 80.0},
}


def situation(**changes: Any) -> Situation:
    return Situation(**{"score": 0.1, "threshold": 0.5, **changes})


def test_a_hard_record_that_nothing_speaks_against_is_asked_for() -> None:
    assert decide(situation()).ask
    assert decide(situation()).reason == HARD


@pytest.mark.parametrize("reason", AGAINST)
def test_every_policy_alone_keeps_a_record_here_and_says_why(reason: str) -> None:
    decision = decide(situation(**AGAINST[reason]))
    assert not decision.ask and decision.reason == reason


@given(st.sets(st.sampled_from(sorted(AGAINST))))
def test_policies_compose(reasons: set[str]) -> None:
    changes: dict[str, Any] = {}
    for reason in reasons:
        changes |= AGAINST[reason]
    decision = decide(situation(**changes))
    assert decision.ask == (not reasons)
    assert decision.reason in (reasons or {HARD})
    if "personal" in reasons and "sure" not in reasons:  # what may never leave never waits for a better time
        assert decision.reason not in WAITS


def test_nothing_known_is_no_reason_against() -> None:
    assert all(not policy(situation()) for policy in POLICIES)
    assert decide(situation(left_s=1.0)).ask and decide(situation(left_s=0.0)).reason == "deadline"


def test_the_conservative_threshold_lets_no_answer_stand() -> None:
    assert decide(situation(score=1.0, threshold=2.0)).ask
    assert decide(situation(score=1.0, threshold=1.0)).reason == SURE


def test_a_circuit_opens_pauses_tries_once_and_doubles_its_pause() -> None:
    circuit = Circuit()
    for _ in range(3):
        assert may_pass(circuit, 0.0)
        circuit = after(passed(circuit), False, 10.0, LIMITS)
    assert not may_pass(circuit, 14.9) and may_pass(circuit, 15.0)
    trying = passed(circuit)
    assert not may_pass(trying, 16.0)
    assert may_pass(given_up(trying), 16.0)
    again = after(trying, False, 16.0, LIMITS)
    assert again.pause_s == 10.0 and not may_pass(again, 25.9)
    longest = after(passed(again), False, 26.0, LIMITS)
    assert longest.pause_s == 12.0
    assert after(passed(longest), True, 40.0, LIMITS) == Circuit()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=60))
def test_a_circuit_never_stays_open_for_ever(steps: list[tuple[bool, float]]) -> None:
    circuit, now = Circuit(), 0.0
    for succeeded, pause in steps:
        now += pause
        if may_pass(circuit, now):
            circuit = after(passed(circuit), succeeded, now, LIMITS)
    assert may_pass(circuit, now + float(LIMITS.longest))


def test_foresight_covers_the_share_that_was_asked_for() -> None:
    foresight = Foresight(0.9, stale_s=60)
    assert foresight.predict(0.0) is None
    foresight.learn(0.2, 0.0)
    assert foresight.predict(1.0) == pytest.approx(0.3)  # one exchange alone is not to be trusted
    for number in range(100):
        foresight.learn(number / 100, 1.0)
    predicted = foresight.predict(2.0)
    assert predicted is not None and 0.88 <= predicted <= 0.93
    assert foresight.predict(100.0) is None  # a link that was slow an hour ago is tried again


def test_an_allowance_ends_and_comes_back_the_next_day(tmp_path: Path) -> None:
    allowance = Allowance(tmp_path / "spent.json", bytes_per_day=1000, money_per_day=None)
    assert allowance.take(600, 0, 5 * DAY_S)
    assert not allowance.take(600, 0, 5 * DAY_S + 10)
    assert allowance.left(5 * DAY_S) == (400, None)
    assert allowance.take(600, 0, 6 * DAY_S)


def test_an_allowance_survives_a_restart_and_gives_nothing_back(tmp_path: Path) -> None:
    first = Allowance(tmp_path / "spent.json", bytes_per_day=1000, money_per_day=2.0)
    first.spend(300, 0.5, 5 * DAY_S)
    again = Allowance(tmp_path / "spent.json", bytes_per_day=1000, money_per_day=2.0)
    left_bytes, left_money = again.left(5 * DAY_S)
    assert left_bytes is not None and 690 <= left_bytes <= 700
    assert left_money is not None and 1.48 <= left_money <= 1.5


def test_a_clock_that_jumps_a_year_and_back_changes_nothing_of_today(tmp_path: Path) -> None:
    allowance = Allowance(tmp_path / "spent.json", bytes_per_day=1000, money_per_day=None)
    allowance.spend(900, 0, 5 * DAY_S)
    allowance.spend(10, 0, 370 * DAY_S)
    allowance.spend(10, 0, -360 * DAY_S)
    assert allowance.left(5 * DAY_S) == (100, None)


def test_a_damaged_allowance_is_refused_rather_than_forgotten(tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text("{")
    with pytest.raises(StateUnwritableError, match="cannot be read"):
        Allowance(tmp_path / "spent.json", bytes_per_day=1, money_per_day=None)


@settings(max_examples=25, deadline=None)
@given(amounts=st.lists(st.floats(0, 400), max_size=12))
def test_no_more_than_the_day_allows_is_taken(tmp_path_factory: pytest.TempPathFactory, amounts: list[float]) -> None:
    file = tmp_path_factory.mktemp("spent") / "spent.json"
    taken = 0.0
    for number, amount in enumerate(amounts):
        if number % 4 == 0:  # a restart in between
            allowance = Allowance(file, bytes_per_day=1000, money_per_day=None)
        taken += amount if allowance.take(amount, 0, DAY_S) else 0.0
    assert taken <= 1000


def test_a_memory_is_bounded_and_forgets_what_was_not_asked_for() -> None:
    memory = Memory(2)
    for text in ("a", "b"):
        memory.put(text, Answer(text))
    assert memory.get("a") == Answer("a")
    memory.put("c", Answer("c"))
    assert memory.get("b") is None and memory.get("a") is not None and len(memory) == 2
    none = Memory(0)
    none.put("a", Answer("a"))
    assert none.get("a") is None and len(none) == 0
