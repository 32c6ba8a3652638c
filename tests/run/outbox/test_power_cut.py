"""Power cuts, simulated: nothing acknowledged is lost, whatever the outbox was doing; and the simulation bites."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sync_rows.power import cut_stores
from skerry.run.outbox import Item, Outbox
from skerry.spec.errors import OutboxError
from skerry.testing.power_cut import SECTOR, Disk, PowerCutVfs
from tests.run.outbox.parts import numbers, options


def test_no_power_cut_loses_what_was_acknowledged() -> None:
    count = cut_stores(300)
    assert count.cuts == 300
    assert count.recoveries > 20
    assert count.acknowledged > 3000
    assert (count.lost, count.unusable, count.resurrected, count.damaged) == (0, 0, 0, 0)


@pytest.mark.parametrize("mode", ["NORMAL", "OFF"])
def test_the_simulation_bites_where_less_is_synced(mode: str) -> None:
    assert cut_stores(50, mode).lost > 100


@pytest.mark.soak
def test_no_power_cut_of_many_loses_what_was_acknowledged() -> None:
    count = cut_stores(20_000, seed=10_000)
    assert (count.lost, count.unusable, count.resurrected, count.damaged) == (0, 0, 0, 0)


def test_what_was_synced_is_certain_and_what_was_not_is_anything() -> None:
    import random

    seen = set()
    for seed in range(200):
        disk = Disk(b"a" * 4 * SECTOR)
        disk.unsynced.append((0, b"b" * 4 * SECTOR))
        disk.sync()
        disk.unsynced += [(0, b"c" * 4 * SECTOR), (0, b"d" * SECTOR)]
        content = disk.after_cut(random.Random(seed))
        seen.add("".join(chr(content[place]) for place in range(0, 4 * SECTOR, SECTOR)))
    assert {"bbbb", "cccc", "dccc", "dbbb"} <= seen
    assert any(text[0] == "c" and "b" in text for text in seen), "torn"
    assert not any("a" in text for text in seen)


def test_the_power_stays_off_until_it_is_restored(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    layer = PowerCutVfs(tmp_path / "before", seed=1)
    outbox = Outbox(layer.folder, device="d", options=options(), vfs=layer.name)
    assert outbox.put([Item(stream="s", fields={"n": 1})]) == [1]
    layer.cut_after(0)
    for _ in range(2):
        with pytest.raises(OutboxError):
            outbox.put([Item(stream="s", fields={"n": 2})])
    outbox.close()
    layer.restore(tmp_path / "after")
    with Outbox(layer.folder, device="d", options=options(), vfs=layer.name) as outbox:
        assert numbers(outbox)[0] == 1
    layer.unregister()
