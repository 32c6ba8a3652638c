"""Power cuts: a store whose power fails at any write, over and over, while everything that it can do is done to it.

``python -m bench.sync_rows.power --cuts 5000`` runs it alone.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import apsw

from bench.report import Peer, Report, table
from skerry.run.outbox import Item, Outbox, OutboxOptions
from skerry.run.outbox.options import PRIORITIES
from skerry.spec.errors import SkerryError
from skerry.spec.units import Size
from skerry.testing.power_cut import PowerCutVfs

CUTS, QUICK_CUTS = 5000, 500
WEAK_CUTS = 200
"""Cuts of a store that does not sync as it should: the simulation must be seen to bite."""
CUTS_OF_A_STORE = 25
_EVERYTHING = 2**62
_SMALL = OutboxOptions(
    max_size=Size(30e3), max_record=Size(4e3), dead_size=Size(8e3), ballast=Size(0), reserve=Size(40e3)
)
_LARGE = OutboxOptions(ballast=Size(0), reserve=Size(40e3))


class Count:
    """What the cuts did."""

    def __init__(self) -> None:
        self.cuts = self.acknowledged = self.lost = self.unusable = self.resurrected = 0
        self.recoveries = 0
        """How often a store was damaged on purpose."""
        self.damaged = 0
        """How often one was found damaged that nobody had damaged."""

    def add(self, other: Count) -> None:
        """Add up."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Producer:
    """Does at random what is done to an outbox, and remembers what it was promised."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._next = 0
        self.acknowledged = 0
        self.kept: set[int] = set()
        """Records that were acknowledged, by the number in their content."""
        self.going: set[int] = set()
        """Records that somebody asked to delete, whether or not that was answered."""
        self.gone: set[int] = set()
        """Records whose deletion was acknowledged."""

    def act(self, outbox: Outbox) -> None:
        """Do one thing."""
        actions: list[Callable[[Outbox], None]] = [self._settle, self._bury, self._replay, self._drop, self._fork]
        self._chance.choices([self._put, *actions], [60, 12, 4, 2, 1, 1])[0](outbox)

    def _put(self, outbox: Outbox) -> None:
        count = self._chance.choice([1, 1, 1, 2, 5, 20])
        numbers = range(self._next, self._next + count)
        self._next += count
        pad = "x" * self._chance.choice([5, 50, 900])
        items = [
            Item(stream="s", fields={"id": number, "pad": pad}, priority=self._chance.choice(PRIORITIES))
            for number in numbers
        ]
        outbox.put(items)
        self.kept.update(numbers)
        self.acknowledged += count

    def _settle(self, outbox: Outbox) -> None:
        records = outbox.pending(self._chance.choice([1, 10, 100]))
        numbers = {record.fields["id"] for record in records}
        self.going |= numbers
        outbox.settle([(record.seq, record.seq) for record in records])
        self.gone |= numbers

    def _bury(self, outbox: Outbox) -> None:
        for record in outbox.pending(1):
            outbox.bury(record.seq, "poison")

    def _replay(self, outbox: Outbox) -> None:
        outbox.replay()

    def _drop(self, outbox: Outbox) -> None:
        letters = outbox.dead()[:1]
        self.going |= {letter.fields["id"] for letter in letters}
        outbox.drop([letter.id for letter in letters])
        self.gone |= {letter.fields["id"] for letter in letters}

    def _fork(self, outbox: Outbox) -> None:
        outbox.fork("test")


def cut_often(folder: Path, seed: int, cuts: int, synchronous: str = "FULL") -> Count:
    """Cut the power of one store again and again, and check it after each cut.

    Raises nothing for what is lost: that is counted.
    """
    chance = random.Random(seed)
    count, producer = Count(), Producer(chance)
    options = chance.choice([_SMALL, _LARGE])
    home = folder / f"{seed}-0"
    home.mkdir(parents=True)
    layer = PowerCutVfs(home, seed)
    for number in range(1, cuts + 1):
        if chance.random() < 0.15:
            count.recoveries += _damage(layer, options)
        # One in five cuts comes while the store is opened, where its log is replayed and a damaged one succeeded.
        layer.cut_after(chance.randrange(1, 15) if chance.random() < 0.2 else chance.randrange(1, 200))
        _work(layer, options, producer, synchronous)
        layer.restore(folder / f"{seed}-{number}")
        count.cuts += 1
        if not _check(layer, options, producer, count):
            break
    count.acknowledged = producer.acknowledged
    aside = sum(1 for path in layer.folder.iterdir() if re.search(r"\.damaged-\d+$", path.name))
    count.damaged = max(aside - count.recoveries, 0)
    layer.unregister()
    shutil.rmtree(layer.folder)
    return count


def _work(layer: PowerCutVfs, options: OutboxOptions, producer: Producer, synchronous: str) -> None:
    """Work until the power fails."""
    try:
        outbox = Outbox(layer.folder, device="d", options=options, vfs=layer.name, synchronous=synchronous)
    except (SkerryError, apsw.Error):
        return
    try:
        while not layer.is_off:
            producer.act(outbox)
    except SkerryError:
        pass
    finally:
        outbox.close()


def _check(layer: PowerCutVfs, options: OutboxOptions, producer: Producer, count: Count) -> bool:
    """Open the store after a cut and look for what was promised; tell whether it can be used."""
    try:
        with Outbox(layer.folder, device="d", options=options, vfs=layer.name) as outbox:
            waiting = {record.fields["id"] for record in outbox.pending(_EVERYTHING, _EVERYTHING)}
            dead = {letter.fields["id"] for letter in outbox.dead(_EVERYTHING)}
            given_up = sum(
                number for name, number in outbox.losses().items() if name.startswith(("evicted.", "dead.dropped"))
            )
    except (SkerryError, apsw.Error) as error:
        print(f"unusable: {error}", file=sys.stderr)
        count.unusable += 1
        return False
    missing = producer.kept - waiting - dead - producer.going
    count.lost += max(len(missing) - given_up, 0)
    count.resurrected += len((waiting | dead) & producer.gone)
    producer.kept -= missing  # counted once
    producer.gone -= waiting | dead
    return True


def _damage(layer: PowerCutVfs, options: OutboxOptions) -> int:
    """Destroy the page in which a store keeps its epoch, so that it has to be succeeded; return how often that was."""
    path = layer.folder / "outbox.db"
    if not path.exists():
        return 0
    with Outbox(layer.folder, device="d", options=options):
        pass
    connection = apsw.Connection(str(path))
    page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'store'").get
    connection.close()
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(random.Random(page).randbytes(4096))
    return 1


def cut_stores(cuts: int, synchronous: str = "FULL", seed: int = 0) -> Count:
    """Cut the power of one store after the other, in memory where the system has a place for it."""
    total = Count()
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as folder:
        while total.cuts < cuts:
            seed += 1
            total.add(cut_often(Path(folder), seed, min(CUTS_OF_A_STORE, cuts - total.cuts), synchronous))
    return total


def add_rows(report: Report, *, quick: bool) -> None:
    """Cut the power and add what was lost."""
    full = cut_stores(QUICK_CUTS if quick else CUTS)
    weak = {mode: cut_stores(WEAK_CUTS, mode) for mode in ("NORMAL", "OFF")}
    what = f"{full.cuts} simulated power cuts"
    done: dict[str, Peer] = {
        "acknowledged": float(full.acknowledged),
        "cuts of a store with a destroyed page": float(full.recoveries),
    }
    lost: dict[str, Peer] = {
        f"synchronous={mode}, {count.cuts} cuts": float(count.lost) for mode, count in weak.items()
    }
    found: dict[str, Peer] = {
        f"synchronous={mode}, {count.cuts} cuts": float(count.damaged) for mode, count in weak.items()
    }
    report.add(f"{what}: acknowledged records lost", full.lost, "records", must="<= 0", peers={**done, **lost})
    report.add(f"{what}: unusable stores", full.unusable, "stores", must="<= 0")
    report.add(f"{what}: stores damaged by the cut alone", full.damaged, "stores", must="<= 0", peers=found)
    report.add(f"{what}: settled records that came back", full.resurrected, "records", must="<= 0")


def main() -> int:
    """Run the cuts alone and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.sync_rows.power", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CUTS} cuts in place of {CUTS}")
    report = Report("power", packages=("apsw",))
    add_rows(report, quick=parser.parse_args().quick)
    print(table(report.rows))
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
