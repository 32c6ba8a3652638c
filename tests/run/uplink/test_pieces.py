"""The uplink's pure parts: pauses, hours, pace, budget, circuit, receipts, audit."""

from __future__ import annotations

import math
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.uplink import circuit as circuits
from skerry.run.uplink import pace as paces
from skerry.run.uplink.allowance import DAY_S, Allowance, brought_to, charged, left
from skerry.run.uplink.audit import Holding, fault_of
from skerry.run.uplink.backoff import full_jitter
from skerry.run.uplink.circuit import Circuit
from skerry.run.uplink.hours import quiet_for, read_hours
from skerry.run.uplink.http import retry_after
from skerry.run.uplink.judgement import judge
from skerry.run.uplink.link import class_of, find_link
from skerry.run.uplink.pace import Pace
from skerry.run.uplink.socket_edge import connect
from skerry.run.uplink.suspects import Suspects
from skerry.spec.errors import SpecError
from skerry.spec.profile import Link
from skerry.wire.ranges import contains
from skerry.wire.receipt import Receipt
from tests.run.uplink.parts import HandClock, a_record

EPOCH = "00000000000000aa"


@given(st.integers(0, 10_000), st.floats(0.001, 100), st.floats(0.001, 1e6), st.floats(0, 0.999999))
def test_a_pause_is_never_longer_than_allowed(failures: int, first: float, longest: float, share: float) -> None:
    pause = full_jitter(failures, first, longest, lambda: share)
    assert 0 <= pause <= min(longest, first * 2.0 ** min(failures, 1000))


def test_pauses_are_spread_over_the_whole_span() -> None:
    draw = random.Random(1).random
    pauses = [full_jitter(4, 1.0, 300.0, draw) for _ in range(2000)]
    assert min(pauses) < 0.1 and max(pauses) > 7.9 and math.isclose(sum(pauses) / 2000, 4.0, rel_tol=0.05)


@given(st.lists(st.tuples(st.integers(0, 1439), st.integers(0, 1439)), max_size=4), st.integers(0, 1439))
def test_quiet_time_ends_where_it_says(spans: list[tuple[int, int]], minute: int) -> None:
    spans = [span for span in spans if span[0] != span[1]]
    length = quiet_for(spans, minute)
    assert 0 <= length <= 1440
    assert (length > 0) == any((minute - begin) % 1440 < (end - begin) % 1440 for begin, end in spans)
    if length < 1440:
        assert quiet_for(spans, (minute + length) % 1440) == 0


@pytest.mark.parametrize("text", ["22:00", "25:00-06:00", "22:00-22:00", "10pm-6am", ""])
def test_bad_hours_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        read_hours([text])


@given(st.lists(st.one_of(st.floats(0.01, 100), st.none()), max_size=60), st.integers(1, 3000))
def test_a_batch_always_has_between_one_record_and_the_most(elapsed: list[float | None], most: int) -> None:
    pace = Pace(target_s=1.0, most=most)
    for seconds in elapsed:
        size = int(pace.limit() * 20 + 200)
        if seconds is None:
            pace = paces.too_large(pace, size)
        else:
            pace = paces.acknowledged(pace, pace.limit(), size, seconds, 3, was_full=True)
        assert 1 <= pace.limit() <= most


def test_the_pace_finds_what_takes_a_second_of_the_link() -> None:
    pace = Pace(target_s=1.0, most=100_000)
    sizes = []
    for _ in range(200):  # a link of 8 kB/s and 300 ms with one batch at a time, 12 bytes a record and 250 a batch
        records = pace.limit()
        size = 12 * records + 250
        pace = paces.acknowledged(pace, records, size, 0.3 + size / 8000, 1, was_full=True)
        sizes.append(size)
    assert all(4000 < size < 16_000 for size in sizes[50:])


def test_a_lost_batch_halves_the_next_and_a_refused_one_is_never_tried_again() -> None:
    pace = Pace(target_s=1.0, most=5000, records=1000, bytes_per_record=10)
    assert paces.lost(pace).limit() == 500
    smaller = paces.too_large(pace, 10_000)
    assert smaller.limit() * 10 <= 5000
    for _ in range(100):
        smaller = paces.acknowledged(smaller, smaller.limit(), smaller.limit() * 10, 0.01, 1, was_full=True)
    assert smaller.limit() * 10 <= 5000


def test_a_small_batch_says_nothing_of_a_large_one() -> None:
    pace = Pace(target_s=1.0, most=5000)
    assert paces.acknowledged(pace, 1, 300, 0.1, 1, was_full=False).records == pace.records


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(-4e7, 4e7), st.booleans()), max_size=50))
def test_no_jump_of_the_wall_clock_gives_a_second_budget(steps: list[tuple[float, float, bool]]) -> None:
    mono, wall, boot, days = 0.0, 1e9, 0, 0
    allowance = brought_to(Allowance(), "0", mono, wall, until_midnight_s=DAY_S)
    passed = 0.0
    for seconds, jump, reboots in steps:
        if reboots:  # the wall clock is all there is over a restart, and it is right about it here
            mono, boot, wall = 0.0, boot + 1, wall + seconds
        else:
            mono, wall = mono + seconds, wall + jump
        passed += seconds
        before = charged(allowance, "cellular", 1)
        allowance = brought_to(before, str(boot), mono, wall, until_midnight_s=DAY_S)
        days += not allowance.spent
        if not reboots:
            wall -= jump  # it was put right again
            allowance = brought_to(allowance, str(boot), mono, wall, until_midnight_s=DAY_S)
    assert days <= passed / DAY_S + 1e-6


def test_a_new_day_has_a_new_budget() -> None:
    spent = charged(Allowance(boot="b", left_s=100.0), "cellular", 700)
    assert left(spent, {"cellular": 1000.0}, "cellular") == 300
    assert left(spent, {"cellular": 1000.0}, "wifi") is None
    later = brought_to(spent, "b", 101.0, 0.0, until_midnight_s=500.0)
    assert (left(later, {"cellular": 1000.0}, "cellular"), later.left_s) == (1000, 500.0)


def test_batches_that_one_cut_took_count_as_one_failure() -> None:
    circuit = Circuit()
    for _ in range(4):
        circuit = circuits.failed(circuit, 10.0, 12.0, first_s=1.0, longest_s=300.0, draw=lambda: 0.5)
    assert circuit.failures == 1 and circuit.wait_s(12.0) == 0.5 and circuit.most_in_flight(4) == 1
    assert circuits.succeeded(circuit, 11.0) == circuit  # an answer from before says nothing of now
    assert circuits.succeeded(circuit, 13.0).is_closed


@given(st.integers(0, 80_000), st.floats(0, 1))
def test_what_a_hub_said_is_never_anticipated(seconds: int, share: float) -> None:
    circuit = circuits.put_off(Circuit(), 100.0, seconds)
    circuit = circuits.failed(circuit, 100.0, 101.0, first_s=1.0, longest_s=5.0, draw=lambda: share)
    circuit = circuits.nudged(circuit, 101.0, first_s=1.0, draw=lambda: 0.0)
    assert circuit.wait_s(100.0) >= seconds
    assert circuits.succeeded(circuit, 200.0).wait_s(100.0) >= seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


Ranges = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair))), max_size=4)


@given(Ranges, st.lists(st.tuples(st.integers(1, 45), st.just("x")), max_size=3), Ranges)
def test_nothing_that_was_not_sent_is_ever_settled(
    committed: list[tuple[int, int]], dead: list[tuple[int, str]], forked: list[tuple[int, int]]
) -> None:
    sent = [(5, 20), (30, 31)]
    receipt = Receipt(epoch=EPOCH, committed=committed, dead=dead, forked=forked, count=0, checksum=0, hub_ms=0)
    found = judge(receipt, EPOCH, sent)
    for first, last in [*found.committed, *found.forked, *((seq, seq) for seq, _ in found.dead)]:
        assert not found.fault
        assert all(contains(sent, seq) for seq in range(first, last + 1))


@pytest.mark.parametrize(
    "receipt",
    [
        Receipt(epoch="00000000000000bb", committed=[(1, 3)], count=3, checksum=0, hub_ms=0),
        Receipt(epoch=EPOCH, committed=[(1, 4)], count=4, checksum=0, hub_ms=0),
        Receipt(epoch=EPOCH, committed=[(1, 3)], dead=[(2, "x")], count=3, checksum=0, hub_ms=0),
    ],
)
def test_an_unsound_receipt_settles_nothing(receipt: Receipt) -> None:
    found = judge(receipt, EPOCH, [(1, 3)])
    assert found.fault and not found.committed and not found.dead


def test_a_hub_that_holds_less_than_it_acknowledged_is_found_out() -> None:
    least = Holding(10, 500)
    assert not fault_of(least, Holding(10, 500))
    assert not fault_of(least, Holding(12, 7))  # it may hold batches whose receipts are under way
    assert fault_of(least, Holding(9, 500)) and fault_of(least, Holding(10, 501))


@given(st.sets(st.integers(1, 64), max_size=5), st.integers(1, 64))
def test_halving_finds_every_bad_record_and_no_good_one(bad: set[int], count: int) -> None:
    clock, suspects = HandClock(), Suspects()
    waiting = {seq: a_record(seq, clock) for seq in range(1, count + 1)}
    buried, rounds = set(), 0
    while waiting:
        rounds += 1
        chosen = [record.seq for record in suspects.cut(list(waiting.values()))]
        assert chosen
        if bad.intersection(chosen):
            found = suspects.refused(chosen)
            if found is not None:
                buried.add(found)
                del waiting[found]
        else:
            suspects.cleared(chosen)
            for seq in chosen:
                del waiting[seq]
    assert buried == {seq for seq in bad if seq <= count}
    assert rounds <= 2 + 14 * (len(buried) + 1)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link(name="eth0", kind="ethernet"), "ethernet"),
        (Link(name="wwan0", kind="cellular"), "satellite"),
        (Link(name="wlan0", kind="wifi", metered=True), "metered"),
        (Link(name="tun0", kind="tunnel"), "unknown"),
    ],
)
def test_the_class_of_a_link(link: Link, expected: str) -> None:
    assert class_of(link, {"wwan0": "satellite"}) == expected


def test_the_link_in_use_is_the_one_that_would_be_sent_over() -> None:
    links = [Link(name="lo", kind="loopback"), Link(name="wwan0", kind="cellular")]
    found = find_link("h", {}, links=lambda: links, source=lambda _: "10.0.0.7", owner=lambda _: "wwan0")
    assert (found.is_up, found.interface, found.kind) == (True, "wwan0", "cellular")
    assert find_link("h", {}, links=lambda: links, source=lambda _: None).is_up is False
    assert find_link("127.0.0.1", {}).is_up


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
def test_the_kernel_is_told_to_end_silent_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect("127.0.0.1", server.getsockname()[1], 2.0, 20.0)
        with connection:
            told = {
                name: connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            }
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert told["TCP_USER_TIMEOUT"] == 20_000
    assert told["TCP_KEEPIDLE"] + told["TCP_KEEPINTVL"] * told["TCP_KEEPCNT"] <= 20
