"""The parts of bench-engine that decide whether a comparison is fair; nothing here depends on how fast a machine is."""

from __future__ import annotations

from typing import Any

import pytest

from bench import engine as bench_engine
from bench.engine_rows import serving
from bench.engine_rows.cost import Arrivals, Stopwatch, both_clocks
from bench.engine_rows.latency import Slice, quiet_third
from bench.engine_rows.queues import QueuePipeline
from bench.engine_rows.rig import Call, PassOn, Tap, running
from bench.measuring import Timing
from skerry.spec.record import Record


@pytest.mark.parametrize("live", [False, True])
def test_what_is_handed_to_a_tap_arrives_in_order(live: bool) -> None:
    got: list[int] = []
    tap = Tap(live=live)
    with running(tap, [PassOn() for _ in range(3)], Call(lambda record: got.append(record.fields["n"]))) as engine:
        assert all(tap.emit({"n": number}) for number in range(100))
    assert got == list(range(100))
    assert engine.summary().items_out == 100


def test_a_failing_engine_is_raised_to_the_benchmark() -> None:
    class Broken(PassOn):
        def open(self, context: Any) -> None:
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"), running(Tap(live=False), [Broken()], Call(lambda record: None)):
        pass


def test_the_yardstick_passes_everything_on_and_ends() -> None:
    got: list[int] = []
    pipeline = QueuePipeline([lambda item: item + 1, lambda item: item * 2], got.append)
    for number in range(5000):
        pipeline.put(number)
    pipeline.close()
    assert got == [(number + 1) * 2 for number in range(5000)]


def test_both_clocks_drop_the_warm_up_and_stay_paired() -> None:
    turns = iter(range(100))

    def candidate() -> Timing:
        turn = next(turns)
        return Timing(wall_s=turn + 0.5, cpu_s=float(turn))

    cpu, wall = both_clocks({"only": candidate}, repeats=4)
    assert cpu["only"].values == (1.0, 2.0, 3.0, 4.0)
    assert wall["only"].values == (1.5, 2.5, 3.5, 4.5)


def test_every_contender_answers_every_text_and_none_has_a_fixed_neighbour() -> None:
    order: list[str] = []

    def contender(name: str) -> serving.Ask:
        def ask(text: str) -> float:
            order.append(name)
            return 0.0

        return ask

    names = ["a", "b", "c"]
    taken = serving.measured({name: contender(name) for name in names}, ["x", "y"], rounds=2)
    assert {name: [len(one) for one in taken[name]] for name in names} == {name: [32, 32] for name in names}
    played = order[len(names) :]
    rounds = {tuple(played[place : place + 3]) for place in range(0, len(played), 3)}
    assert all(sorted(turn) == names for turn in rounds)
    assert len(rounds) == 6


def test_arrivals_are_complete_exactly_at_the_last_one() -> None:
    arrivals = Arrivals()
    arrivals.expect(2)
    arrivals.take(Record({}))
    assert not arrivals.everything.is_set()
    arrivals.take(Record({}))
    assert arrivals.everything.is_set()
    assert Stopwatch().per_item(1).wall_s >= 0.0


def test_an_unknown_subject_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench_engine.main(["--only", "speed"])
    assert "no subject 'speed'" in capsys.readouterr().err


def test_the_rounds_that_are_kept_are_chosen_by_the_schedule_and_not_by_the_candidates() -> None:
    rounds = [(Slice([float(number)], late), Slice([0.0], 0.0)) for number, late in enumerate((3.0, 1.0, 2.0, 9.0))]
    assert [mine.taken for mine, _ in quiet_third(rounds)] == [[1.0], [2.0]]
