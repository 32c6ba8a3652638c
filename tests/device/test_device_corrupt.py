"""Odd machines: whatever the files hold, the probe ends with a profile and notes."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.device import probe as probing
from skerry.device.board import read_board
from skerry.device.energy import EnergyMeter
from skerry.device.power import on_mains, read_power
from skerry.device.pressure import VitalSigns
from skerry.device.probe import probe
from skerry.device.thermal import read_thermal
from skerry.device.tree import Tree
from skerry.spec.profile import DeviceProfile, PowerSource

from .conftest import Plant


def files_of(tree: Tree) -> list[Path]:
    return sorted(path for path in tree.root.rglob("*") if path.is_file())


@pytest.mark.parametrize("seed", range(25))
def test_garbage_in_any_file_never_ends_the_probe(laptop: Tree, raspberry_pi_5: Tree, seed: int) -> None:
    source = random.Random(seed)
    for file in files_of(laptop):
        content = file.read_bytes()
        how = source.randrange(5)
        if how == 0:
            file.write_bytes(source.randbytes(source.randrange(200)))
        elif how == 1:
            file.write_bytes(content[: source.randrange(len(content) + 1)])
        elif how == 2:
            file.write_bytes(b"9" * 5000)
        elif how == 3:
            file.write_bytes(b"-1\n")
    profile = probe(laptop.root)
    assert msgspec.json.decode(msgspec.json.encode(profile), type=DeviceProfile) == profile
    VitalSigns(laptop).read()
    EnergyMeter(laptop).joules()


def test_a_file_that_cannot_be_read_is_a_note(plant: Plant) -> None:
    """A folder in the place of a file fails on reading for everyone, root included."""
    tree = plant({"/proc/meminfo/": "", "/proc/cpuinfo/": ""})
    profile = probe(tree.root)
    assert profile.memory.total_bytes is None
    for name in ("/proc/meminfo", "/proc/cpuinfo"):
        assert any(note.startswith(f"{name}: ") and "directory" in note for note in profile.notes), name


def test_a_counter_for_root_only_is_told(plant: Plant) -> None:
    tree = plant({"/sys/class/powercap/intel-rapl:0/energy_uj/": ""})
    (counter,) = probe(tree.root).energy
    assert not counter.readable
    assert any("root" in note for note in probe(tree.root).notes)
    assert EnergyMeter(tree).joules() is None


def test_a_reader_that_breaks_is_a_note(laptop: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by a driver")

    monkeypatch.setattr(probing, "read_thermal", broken)
    profile = probe(laptop.root)
    assert profile.thermal == ()
    assert "thermal: failed: ZeroDivisionError: by a driver" in profile.notes
    assert profile.cpu.logical_cores == 4


def test_a_broken_sensor_is_left_out(plant: Plant) -> None:
    tree = plant(
        {
            "/sys/class/thermal/thermal_zone0/type": "broken\n",
            "/sys/class/thermal/thermal_zone0/temp": "-274000\n",
            "/sys/class/thermal/thermal_zone1/temp": "40000\n",
            "/sys/class/thermal/thermal_zone1/trip_point_0_temp": "-1\n",
            "/sys/class/thermal/thermal_zone1/trip_point_0_type": "passive\n",
        }
    )
    assert [(zone.name, zone.limit_c) for zone in read_thermal(tree)] == [("thermal_zone1", None)]


def test_an_unfilled_dmi_is_no_name(plant: Plant) -> None:
    tree = plant(
        {"/sys/class/dmi/id/product_name": "To Be Filled By O.E.M.\n", "/sys/class/dmi/id/board_name": "X10\n"}
    )
    assert read_board(tree, []).name == "X10"


def test_a_virtual_machine_and_a_container_are_told(plant: Plant) -> None:
    tree = plant({"/.dockerenv": "", "/proc/self/cgroup": "0::/\n"})
    board = read_board(tree, [{"flags": "fpu hypervisor"}])
    assert (board.virtual, board.container) == (True, True)
    assert read_board(tree, [{"flags": "fpu"}]).virtual is False
    assert read_board(tree, []).virtual is None


def test_a_battery_that_counts_charge(plant: Plant) -> None:
    folder = "/sys/class/power_supply/battery"
    tree = plant(
        {
            f"{folder}/type": "Battery\n",
            f"{folder}/charge_now": "2000000\n",
            f"{folder}/charge_full": "4000000\n",
            f"{folder}/voltage_min_design": "3700000\n",
            f"{folder}/voltage_now": "4000000\n",
            f"{folder}/current_now": "-500000\n",
        }
    )
    (battery,) = read_power(tree)
    assert (battery.capacity_share, battery.energy_full_j, battery.power_w) == (0.5, 14.4e3 * 3.7, 2.0)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], None),
        ([PowerSource(name="b", kind="battery", status="discharging")], False),
        ([PowerSource(name="b", kind="battery", status="full")], True),
        ([PowerSource(name="b", kind="battery", status="unknown")], None),
        ([PowerSource(name="a", kind="usb", online=True), PowerSource(name="b", kind="battery")], True),
        ([PowerSource(name="a", kind="mains", online=False), PowerSource(name="b", kind="usb", online=True)], True),
    ],
)
def test_on_mains(sources: list[PowerSource], expected: bool | None) -> None:
    assert on_mains(tuple(sources)) is expected


@given(readings=st.lists(st.integers(0, 999), min_size=2, max_size=30))
def test_a_wrapping_counter_never_runs_backwards(tmp_path_factory: pytest.TempPathFactory, readings: list[int]) -> None:
    zone = tmp_path_factory.mktemp("machine") / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text("1000000000\n")
    (zone / "energy_uj").write_text(f"{readings[0]}000000\n")
    meter = EnergyMeter(Tree(zone.parents[3]))
    last = 0.0
    for joules in readings[1:]:
        (zone / "energy_uj").write_text(f"{joules}000000\n")
        now = meter.joules()
        assert now is not None
        assert now >= last
        last = now
    steps = pairwise(readings)
    assert last == pytest.approx(sum((after - before) % 1000 for before, after in steps))


def test_jetpack_4_shows_its_power_monitor_as_iio(plant: Plant) -> None:
    device = "/sys/bus/iio/devices/iio:device0"
    tree = plant(
        {
            f"{device}/rail_name_0": "POM_5V_IN\n",
            f"{device}/in_power0_input": "2500\n",
            f"{device}/rail_name_1": "POM_5V_GPU\n",
            f"{device}/in_power1_input": "500\n",
        }
    )
    assert [(rail.name, rail.power_w, rail.whole) for rail in probe(tree.root).energy] == [
        ("POM_5V_IN", 2.5, True),
        ("POM_5V_GPU", 0.5, False),
    ]
