"""The clock of records: right within one boot whatever the device's wall clock does, and honest about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.fleet.hub.clock import DRIFT, Offset, learn, place
from skerry.wire.record import Moment
from tests.fleet.hub.devices import BOOT, EARLIER_BOOT, Device, record

YEAR_MS = 365 * 86_400_000
NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize("jump_ms", [-YEAR_MS, 0, YEAR_MS])
@pytest.mark.parametrize("synced", [False, True])
def test_a_wall_clock_that_jumps_a_year_changes_nothing_within_a_boot(jump_ms: int, synced: bool) -> None:
    header = Device().header(sent_wall_ms=NOW_MS + jump_ms, synced=synced)
    made = record(400, moment=Moment(BOOT, jump_ms, synced))
    assert place(made, header, {BOOT: learn(None, header, NOW_MS)}) == (NOW_MS - 600_000, "hub")


def test_a_batch_that_was_late_does_not_move_the_records_of_a_boot() -> None:
    header = Device().header()
    prompt = learn(None, header, NOW_MS)
    a_week_later = learn(prompt, header, NOW_MS + 7 * 86_400_000)  # a relay brings what left then
    assert a_week_later.offset_ms - prompt.offset_ms <= 7 * 86_400_000 * DRIFT
    assert (
        learn(learn(None, header, NOW_MS + 5_000), header, NOW_MS + 5_001).offset_ms == NOW_MS + 5_001 - 1_000_000 - 1
    )
    # A better sample counts at once.
    later = Device().header(sent_mono_us=1_010_000_000)
    assert learn(Offset(NOW_MS, NOW_MS), later, NOW_MS + 10_000).offset_ms == NOW_MS - 1_000_000


def test_a_hub_whose_own_clock_was_put_back_starts_over() -> None:
    header = Device().header()
    wrong = learn(None, header, NOW_MS + YEAR_MS)
    assert learn(wrong, header, NOW_MS).offset_ms == NOW_MS - 1_000_000


@given(st.lists(st.tuples(st.integers(1, 3_600_000), st.integers(0, 10_000_000)), min_size=1, max_size=30))
def test_what_is_believed_is_the_best_sample_and_no_more_than_the_drift(steps: list[tuple[int, int]]) -> None:
    """Batches come ``step`` ms after each other and ``delay`` ms late; the true difference of the clocks is 7."""
    known: Offset | None = None
    hub_ms, begun_ms, least = NOW_MS, NOW_MS, 10**12
    for step_ms, delay_ms in steps:
        hub_ms += step_ms
        header = Device().header(sent_mono_us=(hub_ms - delay_ms - 7) * 1000)
        known = learn(known, header, hub_ms)
        least = min(least, delay_ms)
        assert 7 <= known.offset_ms <= 7 + delay_ms  # a batch is never early
        assert known.offset_ms <= 7 + least + (hub_ms - begun_ms) * DRIFT


def test_what_nobody_knows_is_unknown() -> None:
    header = Device().header()
    offsets = {BOOT: Offset(0, 0)}
    assert place(record(1, moment=Moment(EARLIER_BOOT, 5, False)), header, offsets) == (None, "unknown")
    assert place(record(1, moment=Moment(EARLIER_BOOT, 5, True)), header, offsets) == (1005, "wall")
    known = {**offsets, EARLIER_BOOT: Offset(70_000, 0)}
    assert place(record(1, moment=Moment(EARLIER_BOOT, 5, False)), header, known) == (71_000, "offset")
