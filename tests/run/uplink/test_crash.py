"""Kills, cuts and resets over real TLS, in the short form of `make bench-sync`: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sync_rows.crash import crash


def test_a_few_crashes_lose_and_double_nothing(tmp_path: Path) -> None:
    found = crash(tmp_path, 5, devices=2)
    assert found.acknowledged > 0 and found.kept >= found.acknowledged
    assert (found.lost, found.doubled, found.wrong_books) == (0, 0, 0)


@pytest.mark.soak
def test_many_crashes_lose_and_double_nothing(tmp_path: Path) -> None:
    found = crash(tmp_path, 200)
    assert (found.lost, found.doubled, found.wrong_books) == (0, 0, 0)
