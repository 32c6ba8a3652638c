"""Caps: the lowest class goes first, within it the oldest, and every loss is counted."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.outbox.room import make_room
from skerry.spec.units import Size
from tests.run.outbox.parts import item, numbers, opened, options

sizes = st.integers(1, 400)


@given(
    held=st.lists(st.integers(0, 2000), min_size=4, max_size=4),
    arrivals=st.lists(st.tuples(st.integers(0, 3), sizes), max_size=12),
    caps=st.lists(st.integers(400, 3000), min_size=4, max_size=4),
    cap=st.integers(400, 5000),
    slack=st.integers(0, 500),
)
def test_room_is_made_from_below(
    held: list[int], arrivals: list[tuple[int, int]], caps: list[int], cap: int, slack: int
) -> None:
    room = make_room(held, arrivals, caps, cap, slack)
    kept = list(held)
    for priority in range(4):
        assert 0 <= room.evict[priority] <= held[priority]
        kept[priority] -= room.evict[priority]
    stored = list(kept)
    for place, (priority, size) in enumerate(arrivals):
        if place not in room.dropped:
            kept[priority] += size
    assert sum(kept) <= cap
    assert all(size <= limit for size, limit in zip(kept, caps, strict=True))
    for place in room.dropped:
        priority = arrivals[place][0]
        assert stored[priority] == 0, "what is stored is older, and goes before what comes"
    if sum(held) + sum(size for _, size in arrivals) <= cap and all(
        held[p] + sum(size for q, size in arrivals if q == p) <= caps[p] for p in range(4)
    ):
        assert not any(room.evict)
        assert not room.dropped


def test_the_oldest_of_the_lowest_class_go_first_and_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path, options=options(max_size=Size(3500), max_record=Size(1000))) as outbox:
        outbox.put([item(1, "high", size=800), item(2, "low", size=800), item(3, "low", size=800)])
        outbox.put([item(4, "normal", size=800)])
        assert numbers(outbox) == [1, 4, 3]
        outbox.put([item(5, "critical", size=800), item(6, "critical", size=800)])
        assert numbers(outbox) == [5, 6, 1]
        losses = outbox.losses()
        assert losses["evicted.low.caps"] == 2
        assert outbox.status().size_bytes <= 3500
        everything = sum(losses.values()) + outbox.status().pending
        assert everything == 6
    with opened(tmp_path) as outbox:
        assert outbox.losses() == losses, "losses survive a restart"


def test_what_comes_goes_itself_when_all_else_matters_more(tmp_path: Path) -> None:
    with opened(tmp_path, options=options(max_size=Size(3900), max_record=Size(1000))) as outbox:
        outbox.put([item(number, "critical", size=800) for number in range(4)])
        assert outbox.put([item(9, "low", size=800)]) == [5], "it had its number, and was the first to go"
        assert numbers(outbox) == [0, 1, 2, 3]
        assert outbox.losses() == {"evicted.low.caps": 1}
        assert outbox.put([item(10, "critical", size=800)]) == [6]
        assert numbers(outbox)[-1] == 10


def test_a_class_has_a_cap_of_its_own(tmp_path: Path) -> None:
    small = options(class_sizes={"low": Size(2000)}, max_record=Size(1000))
    with opened(tmp_path, options=small) as outbox:
        for number in range(10):
            outbox.put([item(number, "low", size=500), item(100 + number, "normal", size=500)])
        found = numbers(outbox)
        assert [number for number in found if number >= 100] == list(range(100, 110))
        low = [number for number in found if number < 100]
        assert low == list(range(10 - len(low), 10))
        assert outbox.losses() == {"evicted.low.caps": 10 - len(low)}


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.tuples(st.sampled_from(["low", "normal", "high", "critical"]), sizes), min_size=1, max_size=6),
            st.tuples(st.integers(1, 60), st.integers(0, 20)),
            st.just("fork"),
            st.just("restart"),
        ),
        max_size=12,
    )
)
def test_nothing_goes_uncounted_whatever_is_done(tmp_path_factory, steps) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("outbox")
    small = options(max_size=Size(3000), max_record=Size(1000))
    outbox = opened(folder, options=small, synchronous="OFF")
    put = settled = 0
    for step in steps:
        if step == "fork":
            outbox.fork("test")
        elif step == "restart":
            outbox.close()
            outbox = opened(folder, options=small, synchronous="OFF")
        elif isinstance(step, tuple):
            settled += outbox.settle([(step[0], step[0] + step[1])])
        else:
            put += len(outbox.put([item(0, priority, size=size) for priority, size in step]))
    status = outbox.status()
    assert status.pending == len(numbers(outbox))
    assert status.size_bytes == sum(outbox._store.sizes) <= 3000
    assert put == settled + status.pending + sum(status.losses.values())
    outbox.close()
