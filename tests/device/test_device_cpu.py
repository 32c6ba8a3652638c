"""The processor, from what different kernels write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.device import cpu
from skerry.device.arm import core_name
from skerry.device.tree import Tree

from .conftest import Plant, arm_cores


def test_big_and_little_cores_share_only_what_both_have(plant: Plant) -> None:
    big = arm_cores(["0xd4e"], "fp asimd asimddp i8mm bf16 sve sve2")
    little = arm_cores(["0xd46"] * 3, "fp asimd asimddp i8mm bf16")
    text = big + "\n" + little.replace("processor\t: 0", "processor\t: 3", 1)
    clocks = {f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": "2000000\n" for n in (1, 2, 3)}
    tree = plant(
        {"/proc/cpuinfo": text, "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3200000\n", **clocks}
    )
    cpus = cpu.processors(tree)
    assert cpu.isa(cpus) == ("bf16", "dotprod", "i8mm", "neon")
    found = cpu.clusters(tree, cpus)
    assert [(cluster.model, cluster.cores, cluster.max_frequency_hz) for cluster in found] == [
        ("Cortex-X3", 1, 3.2e9),
        ("Cortex-A510", 3, 2e9),
    ]
    assert cpu.model(cpus, found) == "1x Cortex-X3 + 3x Cortex-A510"


def test_a_32_bit_arm_has_neon(plant: Plant) -> None:
    text = (
        "processor\t: 0\nmodel name\t: ARMv7 Processor rev 4 (v7l)\nFeatures\t: half thumb neon vfpv4\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd03\n\nHardware\t: BCM2835\n"
    )
    tree = plant({"/proc/cpuinfo": text})
    cpus = cpu.processors(tree)
    assert (cpu.architecture(tree, cpus), cpu.isa(cpus)) == ("armv7l", ("neon",))
    assert cpu.model(cpus, cpu.clusters(tree, cpus)) == "1x Cortex-A53"


def test_a_xeon_with_amx(plant: Plant) -> None:
    flags = "lm avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8"
    tree = plant({"/proc/cpuinfo": f"processor : 0\nvendor_id : GenuineIntel\nmodel name : Xeon\nflags : {flags}\n"})
    assert {"amx_tile", "amx_int8", "amx_bf16", "avx512_vnni"} <= set(cpu.isa(cpu.processors(tree)))


@pytest.mark.parametrize(("isa", "expected"), [("rv64imafdcv_zicsr", ("rvv",)), ("rv64imafdc_zve32x", ())])
def test_risc_v(plant: Plant, isa: str, expected: tuple[str, ...]) -> None:
    tree = plant({"/proc/cpuinfo": f"processor\t: 0\nhart\t: 0\nisa\t: {isa}\nuarch\t: sifive,u74-mc\n"})
    cpus = cpu.processors(tree)
    assert cpu.isa(cpus) == expected
    assert cpu.architecture(tree, cpus) == "riscv64"
    assert cpu.model(cpus, cpu.clusters(tree, cpus)) == "1x sifive,u74-mc"


def test_a_core_that_is_not_in_the_table_is_told_by_number() -> None:
    assert core_name(0x41, 0xFFF) == "Arm part 0xfff"
    assert core_name(0x99, 0x1) == "implementer 0x99 part 0x001"


def test_an_unreadable_list_of_processors_is_a_note(plant: Plant) -> None:
    tree = plant({"/sys/devices/system/cpu/online": "0-x\n"})
    assert cpu.online(tree, [{"processor": "0"}, {"processor": "1"}]) == {0, 1}
    assert any("online" in note for note in tree.notes)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpu_lists_round_trip(cpus: set[int]) -> None:
    assert cpu.parse_cpu_list(",".join(map(str, sorted(cpus)))) == cpus


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_span_is_all_between(first: int, length: int) -> None:
    assert cpu.parse_cpu_list(f"{first}-{first + length}\n") == set(range(first, first + length + 1))


@pytest.mark.parametrize("text", ["3-1", "x", "1-", "-2", "0-99999999", "1--2"])
def test_a_wrong_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        cpu.parse_cpu_list(text)


@given(st.text(max_size=600))
def test_cpuinfo_takes_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("machine")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_bytes(text.encode("utf-8", "replace"))
    tree = Tree(root)
    cpus = cpu.processors(tree)
    cpu.isa(cpus)
    cpu.model(cpus, cpu.clusters(tree, cpus))
    cpu.architecture(tree, cpus)
