"""Records on their way to the hub: not given up while others can be, so that nothing is both lost and delivered."""

from __future__ import annotations

from pathlib import Path

from skerry.spec.units import Size
from skerry.wire.record import record_digest
from tests.run.outbox.parts import HandClock, item, opened, options


def test_what_is_on_its_way_is_evicted_last_and_settled_once(tmp_path: Path) -> None:
    limits = options(max_size=Size(20_000), max_record=Size(2000))
    with opened(tmp_path, options=limits) as outbox:
        outbox.put([item(number, size=300) for number in range(40)])
        sent = outbox.pending(10)
        assert [record.seq for record in sent] == [*range(1, 11)]
        put = 40 + len(outbox.put([item(100 + number, size=300) for number in range(30)]))
        assert outbox.losses()["evicted.normal.caps"] > 0
        assert outbox.settle([(1, 10)], told=outbox.losses()) == 10, "all are still there"
        checksum = sum(record_digest(record) for record in sent) % 2**64
        assert outbox.audit() == (10, checksum), "as many as the hub has taken"
        assert put == outbox.audit()[0] + outbox.losses()["evicted.normal.caps"] + outbox.status().pending


def test_where_nothing_else_is_left_they_go_too(tmp_path: Path) -> None:
    limits = options(max_size=Size(20_000), max_record=Size(2000))
    with opened(tmp_path, options=limits) as outbox:
        outbox.put([item(number, "low", size=300) for number in range(40)])
        assert len(outbox.pending(100)) == 40
        outbox.put([item(100 + number, "critical", size=300) for number in range(40)])
        assert {record.priority for record in outbox.pending()} <= {0, 3}
        assert sum(record.priority == 3 for record in outbox.pending()) == 40


def test_what_is_on_its_way_does_not_expire_before_the_hub_has_answered(tmp_path: Path) -> None:
    clock = HandClock()
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(1, ttl_s=60.0), item(2, ttl_s=60.0)])
        assert len(outbox.pending(10)) == 2
        clock.pass_s(120)
        assert outbox.losses() == {}
        assert outbox.settle([(1, 1)]) == 1
        assert outbox.pending(10) == [], "the other one was not acknowledged, and is too old to be sent again"
        clock.pass_s(20)
        outbox.losses()  # it is looked after once the work of a call is done
        assert outbox.losses() == {"expired.normal": 1}
        assert outbox.audit()[0] == 1


def test_a_look_whether_there_is_anything_gives_nothing_up(tmp_path: Path) -> None:
    clock = HandClock()
    with opened(tmp_path, clock=clock) as outbox:
        outbox.put([item(1, ttl_s=60.0), item(2, ttl_s=60.0)])
        assert len(outbox.pending(10)) == 2
        assert len(outbox.pending(1)) == 1
        clock.pass_s(120)
        assert outbox.losses() == {}
        assert outbox.settle([(1, 2)]) == 2
