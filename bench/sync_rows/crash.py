"""Crashes: processes are killed and links cut, over and over, and then everything is counted.

Some devices record and send over real mutual TLS to a real hub, each process its own. In every round one of them, or
the hub, is killed by SIGKILL at a random moment, or a link is cut, reset or goes silent. In the end every number that
a producer was told to be safe has to be at the hub, and no record twice.

``python -m bench.sync_rows.crash --rounds 1000 --folder /tmp/crash`` runs it alone; the same again goes on with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.report import Report
from bench.sync_rows.world import SyncWorld
from skerry.testing.shaped_link import ShapedLink

ROUNDS, QUICK_ROUNDS = 1000, 60
DEVICES = 3
_EVENTS = ("kill device", "kill device", "kill hub", "kill hub", "cut", "reset", "silence")
_LONGEST_ROUND_S = 0.5
_ROUND_NUMBERS = 100_000  # numbers that one life of a device may use up
_PATIENCE_S = 120.0


def add_rows(report: Report, *, quick: bool = False) -> None:
    """Kill and cut, and count what was lost and what came twice."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="skerry-crash-") as folder:
        found = crash(Path(folder), rounds)
    what = f"{rounds} kills of devices and hub by SIGKILL, cuts and resets over mutual TLS"
    report.add(f"{what}: records lost of {found.acknowledged} acknowledged", found.lost, "", must="<= 0")
    report.add(f"{what}: records that took effect twice", found.doubled, "", must="<= 0")
    report.add("crashes: seconds for each round", found.seconds / rounds, "s")


class Found(msgspec.Struct, kw_only=True):
    """What was counted: ``events`` by kind, ``wrong_books`` epochs whose audit is not that of their records."""

    rounds: int = 0
    events: dict[str, int] = {}
    acknowledged: int = 0
    kept: int = 0
    lost: int = 0
    doubled: int = 0
    wrong_books: int = 0
    seconds: float = 0.0


class Mother:
    """Has children forked from a process that has everything imported; what they say goes to a file."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.sync_rows.crash_child"], cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, bufsize=1,
            )  # fmt: skip
        self.alive: set[int] = set()

    def _ask(self, order: dict[str, Any]) -> dict[str, int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, **order: Any) -> int:
        """Start a child and return its number."""
        child = self._ask(order)["pid"]
        self.alive.add(child)
        return child

    def kill(self, child: int) -> None:
        """End a child by SIGKILL, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        self.wait(child)

    def wait(self, child: int) -> int:
        """Wait until a child is gone and return its status."""
        self.alive.discard(child)
        return self._ask({"wait": child})["status"]

    def close(self) -> None:
        """End everybody."""
        for child in list(self.alive):
            self.kill(child)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Stage:
    """The hub, the devices and their links in a folder.

    Parameters
    ----------
    folder:
        Where everything is; one that was used before is gone on with.
    names:
        The devices.
    """

    def __init__(self, folder: Path, names: list[str], chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._first = int(time.time() * 1000) * 1000  # numbers of another run are never used again
        self.names = names
        world = SyncWorld.open(folder)
        self._port = world.port
        hub = world.hub()
        for name in names:
            if not (folder / f"identity-{name}").exists():
                world.enrol(name)
        hub.close()
        self.mother = Mother(folder / "children.log")
        self.links = {name: ShapedLink(("127.0.0.1", self._port)) for name in names}
        self._hub = self._start_hub()
        self._devices = {name: self._start_device(name) for name in names}

    def _start_hub(self) -> int:
        return self.mother.start(be="hub", folder=str(self._folder), port=self._port)

    def _start_device(self, name: str, seconds: float = 1e6) -> int:
        self._first += _ROUND_NUMBERS
        return self.mother.start(
            be="device", folder=str(self._folder), name=name, port=self.links[name].port, first=self._first,
            seconds=seconds,
        )  # fmt: skip

    def round(self) -> str:
        """Wait a random moment, then do something bad; return what."""
        time.sleep(self._chance.random() * _LONGEST_ROUND_S)
        event, name = self._chance.choice(_EVENTS), self._chance.choice(self.names)
        link = self.links[name]
        if event == "kill device":
            self.mother.kill(self._devices[name])
            self._devices[name] = self._start_device(name)
        elif event == "kill hub":
            self.mother.kill(self._hub)
            self._hub = self._start_hub()
        elif event == "cut":
            link.cut()
        elif event == "reset":
            link.reset()
        else:
            link.mode("silent")
            time.sleep(self._chance.random() * 0.2)
            link.mode("open")
        return event

    def finish(self) -> None:
        """Let every device send all that it has, then end everything.

        Raises ``TimeoutError`` when one does not come to an end.
        """
        limit = time.monotonic() + _PATIENCE_S
        for name in self.names:
            self.mother.kill(self._devices[name])
        last = [self._start_device(name, seconds=0.0) for name in self.names]
        while any(_is_alive(child) for child in last):
            if time.monotonic() > limit:
                raise TimeoutError("a device does not come to an end with sending")
            time.sleep(0.02)

    def close(self) -> None:
        """End everything."""
        self.mother.close()
        for link in self.links.values():
            link.close()


def crash(folder: Path, rounds: int, *, seed: int | None = None, devices: int = DEVICES) -> Found:
    """Go on in ``folder`` until ``rounds`` rounds are done, then count; what was done before counts too."""
    found = _read(folder)
    chance = random.Random(seed)
    begin = time.monotonic()
    names = [f"device-{number}" for number in range(1, devices + 1)]
    with contextlib.closing(Stage(folder, names, chance)) as stage:
        while found.rounds < rounds:
            event = stage.round()
            found.rounds += 1
            found.events[event] = found.events.get(event, 0) + 1
        stage.finish()
    found.seconds += time.monotonic() - begin
    _count(folder, names, found)
    (folder / "crash.json").write_bytes(msgspec.json.encode(found))
    return found


def _read(folder: Path) -> Found:
    path = folder / "crash.json"
    return msgspec.json.decode(path.read_bytes(), type=Found) if path.exists() else Found()


def _is_alive(child: int) -> bool:
    """Tell whether a child works; one that ended is a zombie until its mother waits for it."""
    try:
        state = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _count(folder: Path, names: list[str], found: Found) -> None:
    """Compare what producers were told with what the hub holds."""
    promised = {f"{name}-{number}" for name in names for number in _ledger(folder / f"acknowledged-{name}")}
    held: Counter[str] = Counter(_held(folder))
    found.acknowledged, found.kept = len(promised), held.total()
    found.lost = len(promised - held.keys())
    found.doubled = held.total() - len(held)
    found.wrong_books = _wrong_books(folder)


def _ledger(path: Path) -> Iterator[str]:
    """Yield the numbers of a ledger; a last line that was cut by the kill was not acknowledged."""
    text = path.read_text(encoding="ascii") if path.exists() else ""
    yield from text[: text.rfind("\n") + 1].split()


def _held(folder: Path) -> Iterator[str]:
    from skerry.fleet.hub.sqlite_store import SqliteStore

    store, after = SqliteStore(folder / "hub" / "hub.db"), 0
    try:
        while page := store.records(after=after, limit=5000):
            after = page[-1].id
            yield from (msgspec.json.decode(record.fields)["id"] for record in page)
    finally:
        store.close()


def _wrong_books(folder: Path) -> int:
    """Count accounts whose kept audit is not that of their records."""
    from skerry.fleet.hub.sqlite_store import SqliteStore

    store = SqliteStore(folder / "hub" / "hub.db")
    try:
        return sum(
            store.recompute_audit(account.device, account.epoch) != (account.count, account.checksum)
            for account in store.accounts()
        )
    finally:
        store.close()


def main() -> int:
    """Run it alone and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=QUICK_ROUNDS)
    parser.add_argument("--folder", type=Path, help="where to go on; default a fresh one that goes away")
    parser.add_argument("--seed", type=int)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="skerry-crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = crash(folder, chosen.rounds, seed=chosen.seed)
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return 1 if found.lost or found.doubled or found.wrong_books else 0


if __name__ == "__main__":
    sys.exit(main())
