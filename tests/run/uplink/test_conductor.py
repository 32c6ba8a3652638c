"""The conductor under every order of events: invariants by hypothesis, with a clock moved by hand."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.uplink.conductor import Conductor
from skerry.run.uplink.decision import Wait
from skerry.run.uplink.job import Job
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.purse import BookInMemory
from skerry.run.uplink.transport import Answer
from skerry.spec.errors import OutboxError
from skerry.spec.units import Duration, Size
from tests.run.uplink.parts import PORTAL, HandClock, MemoryHub, MemoryStore


class World:
    """A conductor with its clock, store and hub."""

    def __init__(self, minute: float = 720.0, book: BookInMemory | None = None, **options: Any) -> None:
        self.clock, self.hub = HandClock(), MemoryHub()
        self.store = MemoryStore(self.clock)
        self.minute = minute
        self.options = UplinkOptions(**options)
        self.book = book or BookInMemory()
        self.conductor = self.new_conductor()

    def new_conductor(self) -> Conductor:
        return Conductor(
            self.store, self.options, device="d", signer=None, clock=self.clock, now=self.clock,
            draw=random.Random(7).random, minute=lambda: self.minute, overhead=600, opening=1000, book=self.book,
        )  # fmt: skip

    def job(self) -> Job:
        found = self.conductor.next()
        assert isinstance(found, Job), found
        return found

    def wait(self) -> Wait:
        found = self.conductor.next()
        assert isinstance(found, Wait), found
        return found

    def exchange(self, job: Job | None = None) -> Job:
        job = job or self.job()
        self.conductor.answered(job, self.hub.answer(job.batch), len(job.batch) + 600)
        return job

    def drain(self, rounds: int = 300) -> None:
        """Go on until there is nothing more to send, skipping every pause."""
        for _ in range(rounds):
            found = self.conductor.next()
            if isinstance(found, Job):
                self.exchange(found)
            elif found.why == "idle" and found.seconds > 0:
                return
            else:
                self.clock.move(found.seconds)
        raise AssertionError("it never came to an end")


def test_records_are_settled_when_the_hub_has_them_and_not_before() -> None:
    world = World()
    world.store.put(3, priority=3)
    job = world.job()
    assert len(world.store.records) == 3
    world.exchange(job)
    assert not world.store.records and world.conductor.status().acknowledged == 3
    assert world.wait().why == "idle"


def test_company_is_waited_for_but_not_by_critical_records() -> None:
    world = World(linger=Duration(2.0))
    world.store.put(1)
    assert world.wait() == Wait(2.0, "linger")
    world.clock.move(1.5)
    assert world.wait() == Wait(0.5, "linger")
    world.store.put(1, priority=3)
    assert [len(world.job().digests)] == [2]


def test_a_full_batch_waits_for_nobody() -> None:
    world = World(linger=Duration(60.0), most_records=10)
    world.store.put(10)
    assert len(world.job().digests) == 10


def test_a_captive_portal_settles_nothing_and_is_told() -> None:
    world = World()
    world.store.put(2, priority=3)
    world.conductor.answered(world.job(), PORTAL, 500)
    status = world.conductor.status()
    assert (len(world.store.records), status.impostors, status.state) == (2, 1, "impostor")
    assert "captive portal" in status.why
    assert world.wait().why == "pause"
    world.clock.move(400)
    world.drain()
    assert not world.store.records and world.conductor.status().state == "idle"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=200, body=b"not a receipt", is_hub=True),
        Answer(status=307, is_hub=True, headers={"location": "http://elsewhere/"}),
        Answer(status=200, body=b"", is_hub=False),
    ],
)
def test_what_is_no_receipt_settles_nothing(answer: Answer) -> None:
    world = World()
    world.store.put(2, priority=3)
    world.conductor.answered(world.job(), answer, 500)
    assert len(world.store.records) == 2 and world.conductor.status().impostors == 1


def test_a_portals_retry_after_is_not_believed() -> None:
    world = World()
    world.store.put(1, priority=3)
    world.conductor.answered(world.job(), msgspec.structs.replace(PORTAL, retry_after_s=9999.0), 100)
    assert world.wait().why == "pause"


@given(st.integers(1, 86_000), st.sampled_from([429, 503]))
@settings(max_examples=20)
def test_retry_after_is_kept_to_the_second(seconds: int, status: int) -> None:
    world = World()
    world.store.put(5, priority=3)
    world.conductor.answered(world.job(), Answer(status=status, is_hub=True, retry_after_s=float(seconds)), 200)
    world.clock.move(seconds - 1)
    world.conductor.link_is("wifi", came_up=True)
    assert world.wait().why == "put off"
    world.clock.move(1.001)
    assert world.job()


def test_a_hub_that_lies_about_its_acknowledgements_is_not_believed() -> None:
    world = World()
    world.store.put(4, priority=3)
    world.exchange()
    world.hub.hides = 1
    world.store.put(3, priority=3)
    world.exchange()
    status = world.conductor.status()
    assert (len(world.store.records), status.distrusted, status.state) == (3, 1, "distrusted")
    world.clock.move(3600)
    world.hub.hides = 0
    world.drain()
    assert not world.store.records


def test_a_mismatch_may_be_told_only() -> None:
    world = World(mismatch="tell")
    world.store.put(4, priority=3)
    world.hub.hides = 1
    world.exchange()
    assert not world.store.records and world.conductor.status().distrusted == 1


def test_a_receipt_for_records_that_were_not_sent_is_not_believed() -> None:
    world = World()
    world.store.put(2, priority=3)
    job = world.job()
    world.store.put(2, priority=3)
    world.hub.answer(job.batch)
    world.conductor.answered(job, world.hub.receipt(job.epoch, [1, 2, 3]), 100)
    assert len(world.store.records) == 4 and world.conductor.status().distrusted == 1


def test_a_fork_waits_until_nothing_is_on_its_way() -> None:
    world = World(in_flight=2, most_records=2)
    other = MemoryStore(world.clock)
    other.put(1, text="another device")
    world.hub.kept[(world.store.epoch, 1)] = other.records[1]
    world.store.put(4, priority=3)
    first, second = world.job(), world.job()
    world.exchange(first)
    assert not world.store.forks and isinstance(world.conductor.next(), Wait)
    world.exchange(second)
    world.drain()
    assert len(world.store.forks) == 1
    assert not world.store.records and world.conductor.status().forks == 1
    assert sum(1 for epoch, _ in world.hub.kept if epoch == world.store.epoch) == 1


def test_a_record_whose_receipt_was_lost_is_not_sent_again_under_a_new_number() -> None:
    world = World(in_flight=2, most_records=2)
    other = MemoryStore(world.clock)
    other.put(3, text="another device")
    old = world.store.epoch
    world.hub.kept[(old, 3)] = other.records[3]
    world.store.put(4, priority=3)
    first, second = world.job(), world.job()
    world.hub.answer(first.batch)  # the hub has 1 and 2, and we never hear of it
    world.exchange(second)  # 3 is somebody else's there
    world.store.put(2, priority=3)  # given after that: these wait for the new epoch
    world.conductor.broke(first, "cut", 100)
    world.drain()
    new = world.store.epoch
    assert world.hub.effects == [(old, 1), (old, 2), (old, 4), (new, 1), (new, 2), (new, 3)]
    assert world.conductor.status().forks == 1


@given(
    st.sets(st.integers(1, 25)),
    st.lists(st.sampled_from(["put", "send", "send", "send", "answer", "lose", "refuse", "restart"]), max_size=40),
)
@settings(max_examples=200)
def test_no_fork_loses_or_doubles_anything(collisions: set[int], events: list[str]) -> None:
    world = World(in_flight=3, most_records=3)
    other = MemoryStore(world.clock)
    other.put(25, text="another device")
    world.hub.kept = {(world.store.epoch, seq): other.records[seq] for seq in collisions}
    jobs: list[Job] = []
    made = 0
    for event in ["put", "put", *events]:
        if event == "put":
            for _ in range(3):
                made += 1
                world.store.put(1, priority=3, made=made)
        elif event == "send":
            found = world.conductor.next()
            if isinstance(found, Job):
                jobs.append(found)
            else:
                world.clock.move(min(found.seconds, 300.0))
        elif event == "restart":
            jobs, world.conductor = [], world.new_conductor()
        elif jobs:
            job = jobs.pop()
            answer = Answer(status=503, is_hub=True) if event == "refuse" else world.hub.answer(job.batch)
            if event == "lose":
                world.conductor.broke(job, "cut", 100)
            else:
                world.conductor.answered(job, answer, 700)
    for job in jobs:
        world.conductor.broke(job, "cut", 100)
    world.drain()
    arrived = [world.hub.kept[key].fields["made"] for key in world.hub.effects]
    assert sorted(arrived) == list(range(1, made + 1))


def test_a_hub_that_always_wants_a_new_epoch_is_asked_ever_less() -> None:
    world = World()
    world.store.put(3, priority=3)
    begin = world.clock()
    while world.clock() < begin + 3600:
        found = world.conductor.next()
        if isinstance(found, Job):
            world.conductor.answered(found, world.hub.receipt(found.epoch, [], forked=list(found.digests)), 500)
        else:
            world.clock.move(found.seconds)
    assert len(world.store.forks) < 100 and len(world.store.records) == 3


def test_a_hub_that_was_restored_from_a_backup_is_taken_back_by_telling_so_once() -> None:
    world = World()
    world.store.put(4, priority=3)
    world.drain()
    del world.hub.kept[(world.store.epoch, 4)]
    world.store.put(3, priority=3)
    world.exchange()
    status = world.conductor.status()
    assert status.state == "distrusted" and "`mismatch: tell`" in status.why and "cannot be sent again" in status.why
    for mismatch in ("tell", "stop"):  # written for once, and taken out again
        world.options = UplinkOptions(mismatch=mismatch)
        world.conductor = world.new_conductor()
        world.drain()
        assert not world.store.records
        world.store.put(2, priority=3)
        world.drain()
        assert world.conductor.status().forks == (1 if mismatch == "tell" else 0)
    assert world.conductor.status().distrusted == 0
    assert len(world.hub.effects) == len(set(world.hub.effects)) == 4 + 3 + 2 + 2


def test_poison_becomes_a_dead_letter_and_the_others_arrive() -> None:
    world = World()
    world.hub.poison, world.hub.unreadable = {3}, {7}
    world.store.put(12, priority=3)
    world.drain()
    assert set(world.store.dead) == {3, 7} and len(world.hub.kept) == 10


def test_a_hub_that_refuses_everything_makes_few_dead_letters() -> None:
    world = World()
    world.hub.unreadable = set(range(1, 1000))
    world.store.put(200, priority=3)
    begin = world.clock()
    while world.clock() < begin + 3600:
        found = world.conductor.next()
        if isinstance(found, Job):
            world.exchange(found)
        else:
            world.clock.move(found.seconds)
    assert len(world.store.dead) < 60 and world.conductor.status().state == "refused"
    world.hub.unreadable.clear()
    world.drain()
    assert len(world.hub.kept) + len(world.store.dead) == 200


@pytest.mark.parametrize(
    "answer", [Answer(status=503, is_hub=True, retry_after_s=0.0), Answer(status=408, is_hub=True)]
)
def test_a_hub_that_is_always_busy_is_not_asked_all_the_time(answer: Answer) -> None:
    world = World()
    world.store.put(1, priority=3)
    begin, asked = world.clock(), 0
    while world.clock() < begin + 3600:
        found = world.conductor.next()
        if isinstance(found, Job):
            asked += 1
            world.conductor.answered(found, answer, 100)
        else:
            world.clock.move(found.seconds)
    assert asked < 60


def test_a_record_that_no_batch_can_hold_becomes_a_dead_letter() -> None:
    world = World()
    world.store.put(2, priority=3)
    world.store.put(1, priority=3, text="\ud800")
    world.store.put(2, priority=3)
    world.drain()
    assert set(world.store.dead) == {3} and len(world.hub.kept) == 4


def test_a_batch_that_is_too_large_is_sent_in_parts() -> None:
    world = World()
    world.hub.largest = 700
    words = random.Random(3)
    for _ in range(30):
        world.store.put(1, priority=3, text="".join(words.choices("abcdefghijklmnop", k=40)))
    world.drain()
    assert len(world.hub.kept) == 30 and not world.store.dead


def test_quiet_hours_are_kept_but_by_critical_records() -> None:
    world = World(minute=23 * 60, quiet_hours=["22:00-06:00"])
    world.store.put(3)
    world.clock.move(10)
    assert world.wait() == Wait(7 * 3600.0, "quiet hours")
    world.store.put(1, priority=3)
    assert list(world.exchange().digests) == [4]
    assert world.wait().why == "quiet hours"
    world.minute = 6 * 60
    assert len(world.job().digests) == 3


def test_critical_records_may_be_told_to_wait_too() -> None:
    world = World(minute=23 * 60, quiet_hours=["22:00-06:00"], critical_in_quiet_hours=False)
    world.store.put(1, priority=3)
    assert world.wait().why == "quiet hours"


def test_the_budget_survives_a_restart() -> None:
    book = BookInMemory()
    world = World(book=book, budgets={"unknown": Size(6000.0)})
    sent = 0
    for _ in range(40):
        world.store.put(20, priority=1, text="a" * 30)
        world.clock.move(1)
        found = world.conductor.next()
        if isinstance(found, Job):
            world.exchange(found)
            sent += len(found.batch) + 600
        world.conductor = world.new_conductor()  # killed: nothing is closed
    assert 0 < sent <= 6000
    assert world.wait().why == "budget"
    world.clock.move(86_400)
    assert world.job()


def test_a_store_that_fails_while_settling_keeps_its_records() -> None:
    world = World()
    world.store.put(2, priority=3)
    job = world.job()
    answer = world.hub.answer(job.batch)

    def full(*_: Any, **__: Any) -> int:
        raise OutboxError("the disk is full")

    world.store.settle = full  # type: ignore[method-assign]
    world.conductor.answered(job, answer, 100)
    assert len(world.store.records) == 2
    del world.store.settle
    world.clock.move(400)
    world.drain()
    assert not world.store.records and len(world.hub.effects) == 2


def test_stores_that_others_left_behind_are_sent_and_given_back() -> None:
    world = World()
    other = MemoryStore(world.clock, epoch="00000000000000ff")
    other.put(3, priority=3)
    world.store.put(2, priority=3)
    world.conductor.add(other)
    assert world.conductor.emptied() == []
    world.drain()
    assert world.conductor.emptied() == [other] and len(world.hub.kept) == 5


Step = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 30), st.integers(0, 3)),
    st.tuples(st.just("next"), st.just(0), st.just(0)),
    st.tuples(
        st.sampled_from(["answer", "cut", "lost answer", "portal", "busy", "lie", "too large"]),
        st.integers(0, 3),
        st.integers(1, 60),
    ),
    st.tuples(st.just("time"), st.integers(1, 4000), st.just(0)),
)


@given(st.lists(Step, max_size=60), st.integers(1, 4), st.one_of(st.none(), st.integers(2000, 60_000)))
@settings(max_examples=60, deadline=None)
def test_whatever_happens(steps: list[tuple[str, int, int]], lanes: int, budget: int | None) -> None:
    budgets: dict[Any, Size] = {} if budget is None else {"unknown": Size(float(budget))}
    world = World(in_flight=lanes, budgets=budgets)
    open_jobs: list[Job] = []
    put, told_until, spent_day = 0, 0.0, 0
    for kind, number, more in steps:
        if kind == "put":
            put += len(world.store.put(number, more))
        elif kind == "time":
            world.clock.move(number)
        elif kind == "next":
            found = world.conductor.next()
            if isinstance(found, Job):
                assert world.clock() >= told_until, "sent before the hub wanted it"
                assert all(not set(found.digests) & set(job.digests) for job in open_jobs), "sent twice at once"
                open_jobs.append(found)
        elif open_jobs:
            job = open_jobs.pop(number % len(open_jobs))
            cost = len(job.batch) + 600
            spent_day += cost
            if kind == "cut":
                world.conductor.broke(job, "cut", cost, timed_out=bool(more % 2))
            elif kind == "lost answer":
                world.hub.answer(job.batch)
                world.conductor.broke(job, "reset", cost)
            elif kind == "portal":
                world.conductor.answered(job, PORTAL, cost)
            elif kind == "busy":
                told_until = max(told_until, world.clock() + more)
                world.conductor.answered(job, Answer(status=503, is_hub=True, retry_after_s=float(more)), cost)
            elif kind == "lie":
                world.conductor.answered(job, world.hub.receipt(job.epoch, list(job.digests)), cost)
            elif kind == "too large" and len(job.digests) > 1:
                world.conductor.answered(job, Answer(status=413, is_hub=True), cost)
            else:
                world.conductor.answered(job, world.hub.answer(job.batch), cost)
        assert len(open_jobs) == world.conductor.status().in_flight <= lanes
        if budget is not None:
            assert sum(world.conductor.status().spent.values()) <= budget
    for job in open_jobs:
        world.conductor.broke(job, "cut", 0)
    world.drain(2000)
    assert not world.store.records and not world.store.dead, "a record was never offered"
    assert sorted(seq for _, seq in world.hub.kept) == list(range(1, put + 1)), "lost or invented"
    assert len(world.hub.effects) == len(set(world.hub.effects)) == put, "an effect came twice"
