"""Processes that are killed: what they were promised is there, and the next process sends what they left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.run.outbox.parts import opened

ROOT = Path(__file__).parents[3]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.run.outbox.producer", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def killed_after(process: subprocess.Popen[str], lines: int) -> list[str]:
    """Kill a producer at a moment of its work and return what it was promised."""
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(lines)]
    process.kill()
    rest = process.stdout.read()
    process.stdout.close()
    process.wait()
    whole = rest[: rest.rfind("\n") + 1] if rest else ""
    return [name for name in [*seen, *whole.split()] if name]


def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    promised: set[str] = set()
    for round_ in range(4):
        names = killed_after(start(tmp_path), 30 + 100 * round_)
        assert len(names) >= 30
        with opened(tmp_path) as outbox:
            records = outbox.pending(1_000_000, 2**40)
            found = {record.fields["name"] for record in records}
            assert set(names) <= found
            assert promised <= found | promised
            outbox.settle([(1, 2**60)])
        promised |= set(names)


def test_two_processes_have_a_store_each_and_the_next_sends_both(tmp_path: Path) -> None:
    first, second = start(tmp_path), start(tmp_path)
    assert second.stdout is not None
    promised = [second.stdout.readline().strip()]  # both are at work
    promised += killed_after(first, 20)
    promised += killed_after(second, 20)
    stores = sorted(path.name for path in tmp_path.glob("*.db"))
    assert stores == ["outbox-1.db", "outbox.db"]
    with opened(tmp_path) as own:
        (orphan,) = own.adopt()
        with orphan:
            epochs = {own.epoch, orphan.epoch}
            found = [record.fields["name"] for box in (own, orphan) for record in box.pending(1_000_000, 2**40)]
    assert len(epochs) == 2
    assert sorted(set(promised)) == sorted(set(promised) & set(found))
    assert len(found) >= len(promised)


def test_others_read_while_a_process_writes(tmp_path: Path) -> None:
    from skerry.run.outbox.looking import look, peek, peek_dead, stores_in

    process = start(tmp_path)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        (path,) = stores_in(tmp_path)
        before = look(path)
        assert before.held
        assert peek(path, 3)
        assert peek_dead(path, 3) == []
        ends = time.monotonic() + 20
        while look(path).pending == before.pending and time.monotonic() < ends:
            process.stdout.readline()
        assert look(path).pending > before.pending
    finally:
        killed_after(process, 0)
    assert not look(path).held
