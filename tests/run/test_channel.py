"""The channel: order, bounds, policies, waking, closing."""

from __future__ import annotations

import threading
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skerry.run.channel import Channel
from skerry.spec.pipeline import Queue
from skerry.spec.record import Fate, Record
from skerry.spec.units import Duration, Size


def record(number: int, size: int = 1) -> Record:
    return Record({"n": number}, size=size)


def channel(**settings: Any) -> tuple[Channel, list[tuple[int, Fate, str]]]:
    lost: list[tuple[int, Fate, str]] = []
    made = Channel(Queue(**settings), lambda item, fate, why: lost.append((item.fields["n"], fate, why)))
    made.join()
    return made, lost


def numbers(batch: list[Record] | None) -> list[int]:
    return [item.fields["n"] for item in batch or []]


def test_records_come_out_in_their_order_as_many_as_wait() -> None:
    made, _ = channel()
    for number in range(5):
        assert made.put(record(number))
    assert numbers(made.take(3, 0)) == [0, 1, 2]
    assert numbers(made.take(3, 0)) == [3, 4]
    assert made.take(3, 0) == []
    made.leave()
    assert made.take(3, None) is None
    assert not made.put(record(9))


def test_one_record_larger_than_the_bound_still_goes_through() -> None:
    made, _ = channel(bytes=Size(10))
    assert made.put(record(0, size=100), wait=False)
    assert not made.put(record(1, size=1), wait=False)
    made.take(1, 0)
    assert made.put(record(1, size=1), wait=False)


def test_the_newest_wins_where_only_it_counts() -> None:
    made, lost = channel(policy="latest", items=10)
    for number in range(10):
        made.put(record(number))
    for number in range(10, 15):
        made.put(record(number))
    assert numbers(made.take(64, 0))[0] >= 10
    assert {why for _, _, why in lost} == {"superseded"}


def test_what_waited_too_long_expires() -> None:
    made, lost = channel(ttl=Duration(0.01))
    made.put(record(0))
    time.sleep(0.02)
    made.put(record(1))
    assert numbers(made.take(64, 0)) == [1]
    assert lost == [(0, Fate.EXPIRED, "waited too long")]


def test_a_blocked_producer_goes_on_when_there_is_room_or_the_end() -> None:
    made, lost = channel(items=1)
    made.put(record(0))
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.extend(made.put(record(number)) for number in (1, 2)))
    thread.start()
    assert numbers(made.take(1, 1)) == [0]
    assert numbers(made.take(1, 1)) == [1]
    made.abort()
    thread.join(5)
    assert results[0]
    assert made.offered == 2 + results[1]
    assert len(lost) == results[1]


def test_a_consumer_sleeps_until_something_comes() -> None:
    made, _ = channel()
    got: list[list[int]] = []
    threads = [threading.Thread(target=lambda: got.append(numbers(made.take(1, 5)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3):
        made.put(record(number))
    for thread in threads:
        thread.join(5)
    assert sorted(got) == [[0], [1], [2]]


@given(
    st.lists(st.one_of(st.integers(1, 30), st.just("take"), st.just("abort")), max_size=60),
    st.sampled_from(["drop_oldest", "drop_newest", "latest", "block"]),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_everything_offered_is_taken_lost_or_waiting(
    moves: list[int | str], policy: Any, items: int, size: int
) -> None:
    made, lost = channel(policy=policy, items=items, bytes=Size(size))
    taken = 0
    for number, move in enumerate(moves):
        if move == "take":
            taken += len(made.take(2, 0) or [])
        elif move == "abort":
            made.abort()
        else:
            made.put(record(number, size=int(move)), wait=False)
        state = made.state()
        assert made.offered == taken + len(lost) + state.items
        assert state.items <= items
        assert state.bytes <= size or state.items == 1


def test_many_producers_and_consumers_lose_nothing() -> None:
    made, lost = channel(items=16)
    got: list[int] = []

    def produce(start: int) -> None:
        for number in range(start, start + 500):
            made.put(record(number))
        made.leave()

    def consume() -> None:
        while (batch := made.take(7, None)) is not None:
            got.extend(numbers(batch))

    made.join()
    made.join()
    threads = [threading.Thread(target=produce, args=(start,)) for start in (0, 500, 1000)]
    threads += [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(1500))
    assert not lost
