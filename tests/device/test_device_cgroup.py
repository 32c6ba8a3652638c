"""Limits of control groups: both versions, nested, in containers, and for real."""

from __future__ import annotations

import os
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.device.cgroup import Group, groups, parse_membership, parse_mounts
from skerry.device.limits import (
    cpu_quotas,
    memory_limits,
    memory_pressure_file,
    parse_meminfo,
    parse_pressure,
    usable_cores,
)
from skerry.device.memory import read_memory
from skerry.device.tree import Tree
from skerry.spec.profile import DeviceProfile

from .conftest import MEMINFO, Plant

FOUR = frozenset(range(4))
V2 = "35 25 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "40 30 0:35 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "41 30 0:36 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "42 30 0:37 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
NO_LIMIT = "9223372036854771712\n"


def test_v2_takes_the_least_of_all_ancestors(plant: Plant) -> None:
    top = "/sys/fs/cgroup"
    tree = plant(
        {
            "/proc/meminfo": MEMINFO.format(total=8_000_000, available=6_000_000),
            "/proc/self/cgroup": "0::/a.slice/b.scope\n",
            "/proc/self/mountinfo": V2,
            f"{top}/a.slice/cpu.max": "150000 100000\n",
            f"{top}/a.slice/memory.max": "1000000000\n",
            f"{top}/a.slice/memory.current": "700000000\n",
            f"{top}/a.slice/memory.stat": "anon 1\ninactive_file 200000000\n",
            f"{top}/a.slice/b.scope/cpu.max": "max 100000\n",
            f"{top}/a.slice/b.scope/cpuset.cpus.effective": "0-2\n",
            f"{top}/a.slice/b.scope/memory.max": "max\n",
            f"{top}/a.slice/b.scope/memory.high": "2000000000\n",
            f"{top}/a.slice/b.scope/memory.current": "100000000\n",
            f"{top}/a.slice/b.scope/memory.pressure": "some avg10=3.00 avg60=0.00 avg300=0.00 total=0\n",
            "/proc/pressure/memory": "some avg10=9.00 avg60=0.00 avg300=0.00 total=0\n",
        }
    )
    assert usable_cores(tree, FOUR) == (1.5, "quota")
    memory = read_memory(tree)
    assert (memory.usable_bytes, memory.limited_by, memory.used_bytes) == (1_000_000_000, "cgroup", 500_000_000)
    assert memory.pressure_share == 0.03, "the group's own pressure, not the machine's"
    assert sorted(limit.limit_bytes for limit in memory_limits(tree)) == [1_000_000_000, 2_000_000_000]


def test_v1_has_a_hierarchy_per_controller(plant: Plant) -> None:
    top = "/sys/fs/cgroup"
    tree = plant(
        {
            "/proc/meminfo": MEMINFO.format(total=4_000_000, available=3_000_000),
            "/proc/self/status": "Cpus_allowed_list:\t1\n",
            "/proc/self/cgroup": "3:memory:/outer/inner\n2:cpuset:/\n1:cpu,cpuacct:/service\n",
            "/proc/self/mountinfo": V1,
            f"{top}/cpu,cpuacct/service/cpu.cfs_quota_us": "200000\n",
            f"{top}/cpu,cpuacct/service/cpu.cfs_period_us": "100000\n",
            f"{top}/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            f"{top}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            f"{top}/cpuset/cpuset.cpus": "0-3\n",
            f"{top}/memory/memory.limit_in_bytes": NO_LIMIT,
            f"{top}/memory/outer/memory.limit_in_bytes": "300000000\n",
            f"{top}/memory/outer/memory.usage_in_bytes": "100000000\n",
            f"{top}/memory/outer/memory.stat": "total_inactive_file 40000000\n",
            f"{top}/memory/outer/inner/memory.limit_in_bytes": NO_LIMIT,
        }
    )
    assert cpu_quotas(tree) == [2.0]
    assert usable_cores(tree, FOUR) == (1.0, "affinity")
    memory = read_memory(tree)
    assert (memory.usable_bytes, memory.limited_by, memory.used_bytes) == (300_000_000, "cgroup", 60_000_000)


def test_a_container_sees_its_limits_at_the_mount_point(plant: Plant) -> None:
    """As Docker does on v1: the path of the host, mounted from that path on."""
    tree = plant(
        {
            "/proc/self/cgroup": "3:memory:/docker/abc/child\n1:cpu,cpuacct:/docker/abc\n",
            "/proc/self/mountinfo": (
                "42 30 0:37 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
                "40 30 0:35 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n"
            ),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "200000000\n",
            "/sys/fs/cgroup/memory/child/memory.limit_in_bytes": "100000000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    assert groups(tree, "memory") == [Group(1, "/sys/fs/cgroup/memory/child"), Group(1, "/sys/fs/cgroup/memory")]
    assert [limit.limit_bytes for limit in memory_limits(tree)] == [100_000_000, 200_000_000]
    assert usable_cores(tree, FOUR) == (0.5, "quota")
    assert tree.notes == []


@pytest.mark.parametrize("path", ["/", "/system.slice/docker-abc.scope", "/../elsewhere"])
def test_a_container_on_v2_uses_the_mount_point_when_its_path_is_not_there(plant: Plant, path: str) -> None:
    tree = plant(
        {
            "/proc/self/cgroup": f"0::{path}\n",
            "/proc/self/mountinfo": V2,
            "/sys/fs/cgroup/memory.max": "134217728\n",
            "/sys/fs/cgroup/cpu.max": "25000 100000\n",
        }
    )
    assert [limit.limit_bytes for limit in memory_limits(tree)] == [134217728]
    assert usable_cores(tree, FOUR) == (0.25, "quota")
    assert bool(tree.notes) == (".." in path)


def test_an_ancestor_that_a_v1_container_cannot_see_still_limits(plant: Plant) -> None:
    tree = plant(
        {
            "/proc/self/cgroup": "3:memory:/\n",
            "/proc/self/mountinfo": V1,
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
            "/sys/fs/cgroup/memory/memory.stat": "hierarchical_memory_limit 536870912\n",
        }
    )
    assert [limit.limit_bytes for limit in memory_limits(tree)] == [536870912]


def test_both_versions_side_by_side(plant: Plant) -> None:
    tree = plant(
        {
            "/proc/self/cgroup": "3:memory:/a\n0::/b\n",
            "/proc/self/mountinfo": V1 + "45 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "400000000\n",
            "/sys/fs/cgroup/unified/b/memory.max": "300000000\n",
        }
    )
    assert sorted(limit.limit_bytes for limit in memory_limits(tree)) == [300_000_000, 400_000_000]


def test_without_mountinfo_the_usual_places_are_taken(plant: Plant) -> None:
    tree = plant(
        {
            "/proc/self/cgroup": "3:memory:/a\n",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "400000000\n",
        }
    )
    assert [limit.limit_bytes for limit in memory_limits(tree)] == [400_000_000]
    assert [limit.folder for limit in memory_limits(tree)] == ["/sys/fs/cgroup/memory/a"]


def test_a_mount_point_with_a_blank(plant: Plant) -> None:
    tree = plant(
        {
            "/proc/self/cgroup": "0::/a\n",
            "/proc/self/mountinfo": "35 25 0:30 / /odd\\040place rw - cgroup2 cgroup2 rw\n",
            "/odd place/a/memory.max": "400000000\n",
        }
    )
    assert [limit.limit_bytes for limit in memory_limits(tree)] == [400_000_000]


@pytest.mark.parametrize("text", ["", "max", "0 0", "100000", "-5 100", "many few", "1 2 3", "100000 0", "9" * 5000])
def test_a_corrupt_quota_limits_nothing(plant: Plant, text: str) -> None:
    tree = plant({"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": V2, "/sys/fs/cgroup/cpu.max": text})
    assert usable_cores(tree, FOUR) == (4.0, None)
    assert bool(tree.notes) == (text not in ("", "max"))


def test_a_corrupt_memory_limit_is_a_note(plant: Plant) -> None:
    tree = plant(
        {
            "/proc/meminfo": MEMINFO.format(total=4_000_000, available=3_000_000),
            "/proc/self/cgroup": "0::/\n",
            "/proc/self/mountinfo": V2,
            "/sys/fs/cgroup/memory.max": "\x00\xff lots\n",
        }
    )
    memory = read_memory(tree)
    assert (memory.usable_bytes, memory.limited_by) == (memory.total_bytes, None)
    assert any("memory.max" in note for note in tree.notes)


def test_the_affinity_counts_only_processors_that_are_on(plant: Plant) -> None:
    tree = plant({"/proc/self/status": "Cpus_allowed_list:\t0-255\n"})
    assert usable_cores(tree, FOUR) == (4.0, None)
    assert memory_pressure_file(tree) is None


NAMES = st.text(string.ascii_letters + string.digits + "-_.@ ", min_size=1, max_size=12).map(lambda name: f"x{name}")


@given(depth=st.lists(NAMES, max_size=4), limits=st.lists(st.integers(1, 1 << 40), min_size=5, max_size=5))
def test_the_least_limit_on_the_way_up_wins(
    tmp_path_factory: pytest.TempPathFactory, depth: list[str], limits: list[int]
) -> None:
    root = tmp_path_factory.mktemp("machine")
    path, expected = "/sys/fs/cgroup", []
    for name, limit in zip(["", *depth], limits, strict=False):
        path = f"{path}/{name}" if name else path
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/") / "memory.max").write_text(f"{limit}\n")
        expected.append(limit)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(V2)
    (root / "proc/self/cgroup").write_text(f"0::/{'/'.join(depth)}\n")
    assert [limit.limit_bytes for limit in memory_limits(Tree(root))] == expected[::-1]


@given(st.text(max_size=400))
def test_parsers_take_any_text(text: str) -> None:
    parse_membership(text)
    parse_mounts(text)
    parse_meminfo(text)
    share = parse_pressure(text)
    assert share is None or 0.0 <= share <= 1.0


@contextmanager
def limited_group(controller: str, limits: list[dict[str, str]]) -> Iterator[Path]:
    """A real group below our own, one level per set of limits; skips where that is not permitted."""
    made: list[Path] = []
    try:
        own = [
            Path(group.folder)
            for group in groups(Tree(), controller)
            if any((Path(group.folder) / name).exists() for name in ("memory.limit_in_bytes", "cpu.cfs_quota_us"))
            or controller in _controllers(Path(group.folder))
        ]
        if not own:
            pytest.skip(f"no control group of this machine has the controller {controller}")
        place = own[0]
        for level, files in enumerate(limits):
            place = place / f"skerry-test-{os.getpid()}-{level}"
            try:
                place.mkdir()
                made.append(place)
                for name, text in files.items():
                    if (place / name).exists():
                        (place / name).write_text(text)
                if not any((place / name).exists() for name in files):
                    pytest.skip(f"a new control group does not get the controller {controller} here")
            except OSError as error:
                pytest.skip(f"this machine does not permit to make a control group: {error}")
        yield place
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def _controllers(folder: Path) -> list[str]:
    try:
        return (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


def _probe_inside(*folders: Path) -> DeviceProfile:
    """Run the probe in a process that has entered the groups."""
    enter = " && ".join(f'echo $$ > "{folder}/cgroup.procs"' for folder in folders)
    code = (
        "import sys, msgspec; from skerry.device.probe import probe;"
        "sys.stdout.buffer.write(msgspec.json.encode(probe(quick=True)))"
    )
    done = subprocess.run(
        ["sh", "-c", f'{enter} && exec "$0" -c "$1"', sys.executable, code],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode and b"cgroup.procs" in done.stderr:
        pytest.skip(f"this machine does not permit to enter a control group: {done.stderr.decode().strip()}")
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=DeviceProfile)


def test_a_real_group_limits_memory_also_from_above() -> None:
    outer = {"memory.limit_in_bytes": str(256 << 20), "memory.max": str(256 << 20)}
    inner = {"memory.limit_in_bytes": str(512 << 20), "memory.max": str(512 << 20)}
    with limited_group("memory", [outer, inner]) as folder:
        memory = _probe_inside(folder).memory
    assert (memory.usable_bytes, memory.limited_by) == (256 << 20, "cgroup")
    assert memory.used_bytes is not None and 0 < memory.used_bytes < 256 << 20
    assert memory.total_bytes is not None and memory.total_bytes > 256 << 20


def test_a_real_group_limits_processor_time() -> None:
    quota = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}
    with limited_group("cpu", [quota]) as folder:
        cpu = _probe_inside(folder).cpu
    assert (cpu.usable_cores, cpu.limited_by) == (0.5, "quota")


def test_a_real_affinity_limits_cores() -> None:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one usable core only")
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{one}]); from skerry.device.probe import probe;"
        "cpu = probe(quick=True).cpu; print(cpu.usable_cores, cpu.limited_by)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1.0", "affinity"]
