"""Limits of children: on trees of other machines, and on this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skerry.build import limits
from skerry.build.limits import Confinement, choose_cores, data_limit, open_memory_group
from skerry.device.tree import Tree

MIB = 1 << 20


def machine(root: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root)


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNT = "30 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def test_v2_takes_the_nearest_group_whose_memory_is_delegated(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/user.slice/app.slice"
    tree = machine(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT, "proc/self/cgroup": "0::/user.slice/app.slice/term.scope\n",
            f"{base}/term.scope/cgroup.subtree_control": "", f"{base}/cgroup.subtree_control": "cpu memory pids",
            f"{base}/memory.max": str(100 * MIB),
        },
    )  # fmt: skip
    group = open_memory_group(400 * MIB, tree)
    assert group is not None
    assert group.by == "cgroup-v2"
    assert group.folder.parent == tmp_path / base
    assert (group.folder / "memory.max").read_text() == str(100 * MIB), "never wider than what limits us"
    assert (group.folder / "memory.swap.max").read_text() == "0"
    (group.folder / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.kills() == 2


def test_v2_without_delegation_gives_no_group(tmp_path: Path) -> None:
    tree = machine(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT, "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/cgroup.subtree_control": "cpu", "sys/fs/cgroup/cgroup.subtree_control": "cpu pids",
        },
    )  # fmt: skip
    assert open_memory_group(400 * MIB, tree) is None


def test_v1_limits_memory_and_swap_together(tmp_path: Path) -> None:
    tree = machine(
        tmp_path,
        {
            "proc/self/mountinfo": V1_MOUNT, "proc/self/cgroup": "4:memory:/a\n",
            "sys/fs/cgroup/memory/a/cgroup.procs": "",
        },
    )  # fmt: skip
    group = open_memory_group(50 * MIB, tree)
    assert group is not None
    assert group.by == "cgroup-v1"
    assert (group.folder / "memory.limit_in_bytes").read_text() == str(50 * MIB)
    assert (group.folder / "memory.memsw.limit_in_bytes").read_text() == str(50 * MIB)


def test_a_machine_without_control_groups_gives_none(tmp_path: Path) -> None:
    assert open_memory_group(50 * MIB, Tree(tmp_path)) is None


def test_cores_are_the_strong_ones_and_one_of_each_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    cpu = "sys/devices/system/cpu/cpu{}/"
    twins = machine(
        tmp_path / "twins",
        {f"{cpu.format(number)}topology/thread_siblings_list": f"{number % 2},{number % 2 + 2}" for number in range(4)},
    )
    assert choose_cores(1, twins) == (1,)
    assert choose_cores(2, twins) == (0, 1)
    assert choose_cores(3, twins) == (0, 1, 3)
    little = {f"{cpu.format(number)}cpu_capacity": "1024" if number < 2 else "400" for number in range(4)}
    assert choose_cores(2, machine(tmp_path / "little", little)) == (0, 1)
    assert choose_cores(None, twins) == choose_cores(9, twins) == (0, 1, 2, 3)


def test_a_real_group_ends_what_takes_too_much_and_leaves_nothing() -> None:
    group = open_memory_group(64 * MIB)
    if group is None:
        pytest.skip("no control group may be made here: it needs root, or a delegated memory controller")
    try:
        modest = subprocess.run(group.entering([sys.executable, "-c", "bytearray(8 << 20)"]), check=False)
        assert modest.returncode == 0
        assert group.kills() == 0
        greedy = subprocess.run(group.entering([sys.executable, "-c", "x = b'1' * (256 << 20)"]), check=False)
        assert greedy.returncode < 0
        assert group.kills() >= 1
        with subprocess.Popen(group.entering(["/bin/sleep", "3600"])) as lasting:
            while not (group.folder / "cgroup.procs").read_text():
                time.sleep(0.01)
            group.close()
            assert lasting.wait(10) == -9
    finally:
        group.close()
    assert not group.folder.exists()


def test_groups_of_a_killed_build_are_removed() -> None:
    first = open_memory_group(64 * MIB)
    if first is None:
        pytest.skip("no control group may be made here: it needs root, or a delegated memory controller")
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    left = first.folder.with_name(f"skerry-trial-{ended.pid}-1")
    left.mkdir()
    second = open_memory_group(64 * MIB)
    assert second is not None
    assert first.folder.exists()
    assert not left.exists()
    first.close()
    second.close()


def test_a_group_is_removed_when_its_making_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    first = open_memory_group(64 * MIB)
    if first is None:
        pytest.skip("no control group may be made here: it needs root, or a delegated memory controller")
    first.close()
    monkeypatch.setattr(limits.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_memory_group(64 * MIB)
    assert not list(first.folder.parent.glob(f"skerry-trial-{os.getpid()}-*"))


def test_a_child_confines_itself() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux knows all of it")
    told = Confinement(cores=choose_cores(1), data_bytes=data_limit(32 * MIB, 1), niceness=2)
    program = (
        "import os, resource; from skerry.build.limits import Confinement\n"
        f"before = os.nice(0); {told!r}.apply()\n"
        "print(len(os.sched_getaffinity(0)), os.nice(0) - before)\n"
        "try: x = b'1' * (400 << 20)\n"
        "except MemoryError: print('no memory')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[0] in ("1 2", "1 1", "1 0"), "a process that is very nice already cannot be much nicer"
    assert "no memory" in said


def test_the_limit_of_data_leaves_room_for_stacks() -> None:
    assert data_limit(80 * MIB, 4) - data_limit(80 * MIB, 1) == 3 * limits._STACK
    assert data_limit(80 * MIB, 1) > 140 * MIB
