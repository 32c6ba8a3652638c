"""What a process keeps of the memory that models had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import threading
from skerry.runtimes import memory
{prepare}

def come_and_go():
    rooms = [bytearray(24 << 20)]  # a block that is freed lifts glibc's thresholds
    rooms.clear()
    for _ in range(2):
        rooms = [bytearray(6 << 20) for _ in range(4)]
        rooms.clear()

before = memory.resident_bytes()
for _ in range(8):
    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print((memory.resident_bytes() - before) / 1e6)
"""


def kept_mb(prepare: str, **variables: str) -> float:
    if sys.platform != "linux":
        pytest.skip("glibc's heaps are Linux's")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(prepare=prepare)], check=True, capture_output=True, text=True,
        env=environment | variables,
    )  # fmt: skip
    return float(run.stdout)


def test_heaps_give_back_what_models_had_in_threads() -> None:
    kept = kept_mb("memory.keep_heaps_small()")
    if kept_mb("") < 30:
        pytest.skip("this C library gives memory back by itself")
    assert kept < 15


def test_thresholds_of_the_user_are_left_alone() -> None:
    chosen = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
    if kept_mb("", **chosen) < 30:
        pytest.skip("this C library does not heed them")
    assert kept_mb("memory.keep_heaps_small()", **chosen) > 20
