"""What a process keeps of the memory that models had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


FILE_PAGES = """
import ctypes, mmap, sys
from skerry.runtimes import memory

path, size = sys.argv[1], 8 << 20
library = ctypes.CDLL(None)
file = open(path, "rb")
read_only = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
own = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
for place in range(0, size, 4096):
    read_only[place]
own[5 << 20] = 7  # as relocations do in a library, which is made read-only afterwards
start = ctypes.addressof(ctypes.c_char.from_buffer(own))
assert library.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.PROT_READ) == 0
before = memory.resident_bytes()
memory.unmap_file_pages()
print(before - memory.resident_bytes(), read_only[5 << 20], own[5 << 20])
"""


def test_pages_of_files_go_and_come_back_and_our_own_stay(tmp_path: Path) -> None:
    if not os.access("/proc/self/pagemap", os.R_OK):
        pytest.skip("this system has no /proc/self/pagemap")
    file = tmp_path / "weights"
    file.write_bytes(b"\x05" * (8 << 20))
    run = subprocess.run([sys.executable, "-c", FILE_PAGES, str(file)], check=True, capture_output=True, text=True)
    given_back, read_again, own = map(int, run.stdout.split())
    assert given_back > 7 << 20
    assert (read_again, own) == (5, 7)
