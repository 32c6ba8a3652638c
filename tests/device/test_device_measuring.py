"""What is measured: bandwidth, matrix products, durable writes; and that a failure of one is only a note."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.device import probe as probing
from skerry.device.bandwidth import array_bytes, measure_bandwidth
from skerry.device.gemm import matmul_integer_model, measure_fp32, measure_int8
from skerry.device.probe import probe
from skerry.device.stopwatch import time_rounds
from skerry.device.storage import measure_fsync, read_storage
from skerry.device.tree import Tree
from skerry.spec.errors import DependencyError
from skerry.spec.profile import Memory, unit_of

from .conftest import Plant


def test_the_model_written_by_hand_is_a_valid_one() -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not there")
    model = onnx.load_from_string(matmul_integer_model(3, bytes(range(9))))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["MatMulInteger"]


@given(side=st.integers(1, 200), seed=st.integers(0, 5))
def test_the_model_written_by_hand_multiplies(side: int, seed: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not there")
    random = np.random.default_rng(seed)
    weights = random.integers(-127, 128, (side, side), dtype=np.int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = matmul_integer_model(side, weights.tobytes())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    a = random.integers(0, 128, (side, side), dtype=np.uint8)
    (found,) = session.run(None, {"a": a})
    assert np.array_equal(found, a.astype(np.int32) @ weights.astype(np.int32))


def test_rates_are_plausible(tmp_path: Path) -> None:
    bandwidth = measure_bandwidth(4 << 20, 2, limit_s=0.02)
    assert bandwidth.copy_bytes_per_s > 1e7
    assert bandwidth.triad_bytes_per_s > 1e7
    assert bandwidth.rounds >= 3
    assert measure_fp32(side=64, limit_s=0.01).ops_per_s > 1e6
    fsync = measure_fsync(tmp_path, limit_s=0.2, most=20)
    assert 1 <= fsync.writes <= 20
    assert fsync.per_s > 0
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_int8_is_measured_with_the_installed_runtime() -> None:
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not there")
    seen = measure_int8(1, side=64, limit_s=0.01)
    assert seen.ops_per_s > 1e6
    assert seen.engine.startswith("onnxruntime ")


def test_without_onnxruntime_the_int8_rate_is_missing_and_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("no module of that name")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DependencyError) as caught:
        measure_int8(1)
    assert "skerry[onnxruntime]" in caught.value.hint


@given(cache=st.none() | st.integers(0, 1 << 31), memory=st.none() | st.integers(16 << 20, 1 << 40))
def test_arrays_never_take_more_than_a_fifth_of_the_memory(cache: int | None, memory: int | None) -> None:
    size = array_bytes(cache, memory)
    assert 1 << 20 <= size <= 256 << 20
    assert memory is None or 3 * size <= memory / 5


def test_under_a_quota_the_mean_counts_and_otherwise_the_best() -> None:
    rounds = iter([0, 0, 200_000, 0, 0])

    def work() -> None:
        sum(range(next(rounds, 0)))

    mean = time_rounds(work, limit_s=0.0, sustained=True)
    rounds = iter([0, 0, 200_000, 0, 0])
    best = time_rounds(work, limit_s=0.0, sustained=False)
    assert mean.times == best.times == 3
    assert best.seconds < mean.seconds


def test_a_full_probe_of_this_machine_measures_everything_it_can(tmp_path: Path) -> None:
    profile = probe(storage=tmp_path)
    assert not profile.quick
    assert profile.memory.bandwidth_bytes_per_s == max(
        profile.memory.copy_bytes_per_s or 0, profile.memory.triad_bytes_per_s or 0
    )
    assert profile.cpu.gemm_fp32_flops
    assert profile.storage.fsync_per_s
    for measurement in profile.measurements:
        part, name = measurement.figure.split(".")
        assert getattr(getattr(profile, part), name) == measurement.value
        assert measurement.unit == unit_of(measurement.figure)
        assert measurement.how == "measured"
        assert measurement.source


def test_little_memory_beside_a_large_cache_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probing, "read_memory", lambda _: Memory(total_bytes=64 << 20, usable_bytes=64 << 20))
    monkeypatch.setattr(probing.processor, "last_level_cache_bytes", lambda _: 32 << 20)
    profile = probe(storage=tmp_path)
    assert profile.memory.bandwidth_bytes_per_s
    assert any("partly cached" in note for note in profile.notes)


def test_a_folder_that_cannot_be_written_is_a_note() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("this system has no /proc, on which nobody may write")
    profile = probe(storage=Path("/proc/self"))
    assert profile.storage.fsync_per_s is None
    assert any(note.startswith("fsync: failed") for note in profile.notes)


def test_the_disk_is_told_by_its_mount(plant: Plant) -> None:
    tree = plant(
        {
            "/proc/self/mountinfo": (
                "27 1 179:2 / / rw - ext4 /dev/mmcblk0p2 rw\n"
                "30 27 0:27 / /run rw - tmpfs tmpfs rw\n"
                "31 27 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n"
                "32 27 0:50 / /net rw - nfs4 host:/export rw\n"
            ),
            "/sys/block/mmcblk0/device/type": "SD\n",
        }
    )
    told = {place: read_storage(tree, Path(place)) for place in ("/", "/run/x", "/data/y", "/database", "/net")}
    assert {place: (found.filesystem, found.medium) for place, found in told.items()} == {
        "/": ("ext4", "sd"),
        "/run/x": ("tmpfs", "memory"),
        "/data/y": ("xfs", "nvme"),
        "/database": ("ext4", "sd"),
        "/net": ("nfs4", "network"),
    }
    assert told["/data/y"].free_bytes is None
    assert told["/"].free_bytes is not None


def test_the_probe_loads_nothing_heavy() -> None:
    code = (
        "import sys; import skerry.device.probe, skerry.device.pressure;"
        "heavy = {'numpy', 'onnxruntime', 'openvino', 'psutil', 'ssl', 'http.client', 'rich'};"
        "skerry.device.probe.probe(quick=True); print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_units_come_from_names() -> None:
    assert unit_of("accelerators.0.int8_ops") == "op/s"
    assert unit_of("links.1.advertised_bits_per_s") == "bit/s"
    with pytest.raises(ValueError, match="tells no unit"):
        unit_of("cpu.model")


def test_the_real_machine_answers_within_its_own_tree() -> None:
    profile = probe(quick=True)
    assert profile.cpu.architecture
    assert profile.probe_s is not None
    assert (profile.memory.usable_bytes or 0) <= (profile.memory.total_bytes or 0)
    assert Tree().real
