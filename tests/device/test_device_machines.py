"""Whole machines, as the probe sees them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from skerry.device.energy import EnergyMeter
from skerry.device.pressure import VitalSigns
from skerry.device.probe import probe
from skerry.device.report import profile_table
from skerry.device.tree import Tree
from skerry.spec.profile import DeviceProfile


def test_a_raspberry_pi_is_told_as_it_is(raspberry_pi_5: Tree) -> None:
    profile = probe(raspberry_pi_5.root, runtimes={"onnxruntime": "", "null": ""})

    assert profile.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert profile.board.vendor == "raspberrypi"
    assert profile.board.compatible == ("raspberrypi,5-model-b", "brcm,bcm2712")
    assert profile.cpu.model == "4x Cortex-A76"
    assert profile.cpu.vendor == "Arm"
    assert profile.cpu.architecture == "aarch64"
    assert profile.cpu.isa == ("dotprod", "fp16", "neon")
    assert (profile.cpu.logical_cores, profile.cpu.physical_cores, profile.cpu.usable_cores) == (4, 4, 4.0)
    assert profile.cpu.limited_by is None
    assert profile.cpu.max_frequency_hz == 2.4e9
    assert profile.cpu.last_level_cache_bytes == 2 << 20
    assert profile.memory.usable_bytes == profile.memory.total_bytes == 8245536 * 1024
    assert profile.memory.used_bytes == (8245536 - 7000000) * 1024
    assert [(link.name, link.kind) for link in profile.links] == [("eth0", "ethernet"), ("wlan0", "wifi")]


def test_a_raspberry_pi_slows_down_before_the_kernels_trip_point(raspberry_pi_5: Tree) -> None:
    (zone,) = probe(raspberry_pi_5.root).thermal
    assert (zone.name, zone.temperature_c, zone.limit_c) == ("cpu-thermal", 61.45, 80.0)
    assert [trip.kind for trip in zone.trips] == ["firmware", "critical"]


def test_what_a_raspberry_pi_cannot_tell_is_noted(raspberry_pi_5: Tree) -> None:
    profile = probe(raspberry_pi_5.root)
    assert profile.memory.pressure_share is None
    assert profile.cpu.gemm_fp32_flops is None
    for part in ("psi=1", "under-voltage", "neither RAPL", "no supply or battery", "not measured"):
        assert any(part in note for note in profile.notes), part


def test_a_vendors_accelerator_without_a_runtime_is_named_as_such(raspberry_pi_5: Tree) -> None:
    found = {accelerator.vendor: accelerator for accelerator in probe(raspberry_pi_5.root).accelerators}
    hailo = found["Hailo"]
    assert (hailo.kind, hailo.nodes, hailo.runtime, hailo.usable) == ("npu", ("/dev/hailo0",), "hailort", False)
    assert hailo.why == "Skerry has no runtime hailort yet"
    assert found["Broadcom"].runtime is None
    assert found["Broadcom"].why == "no runtime that Skerry knows drives it"


def test_a_jetson_is_one_gpu_and_its_power_is_the_whole_modules(jetson_orin: Tree) -> None:
    profile = probe(jetson_orin.root)
    (gpu,) = profile.accelerators
    assert (gpu.kind, gpu.vendor, gpu.runtime) == ("gpu", "NVIDIA", "tensorrt")
    assert gpu.nodes == ("/dev/nvhost-gpu", "/dev/nvmap")
    assert profile.cpu.model == "6x Cortex-A78AE"
    assert {(rail.name, rail.whole, rail.power_w) for rail in profile.energy} == {
        ("VDD_IN", True, 6.0),
        ("VDD_CPU_GPU_CV", False, 2.0),
    }


def test_the_power_of_a_jetson_is_integrated(jetson_orin: Tree) -> None:
    now = [0.0]
    meter = EnergyMeter(jetson_orin, clock=lambda: now[0])
    now[0] = 10.0
    assert meter.joules() == 60.0
    jetson_orin.path("/sys/class/hwmon/hwmon1/curr1_input").write_text("2000\n")
    now[0] = 12.0
    assert meter.joules() == 60.0 + (6.0 + 10.0) / 2 * 2


def test_a_laptop_on_battery(laptop: Tree) -> None:
    profile = probe(laptop.root)
    assert (profile.board.vendor, profile.board.name) == ("LENOVO", "21ML")
    assert (profile.cpu.architecture, profile.cpu.logical_cores, profile.cpu.physical_cores) == ("x86_64", 4, 2)
    assert profile.cpu.isa == ("avx", "avx2", "avx_vnni", "f16c", "fma", "sse4_2")
    supplies = {source.name: source for source in profile.power}
    assert set(supplies) == {"AC", "BAT0"}, "the battery of a mouse is not the machine's"
    battery = supplies["BAT0"]
    assert (battery.capacity_share, battery.status, battery.power_w) == (0.42, "discharging", 7.5)
    assert battery.energy_full_j is not None and round(battery.energy_full_j) == 180_000
    assert supplies["AC"].online is False
    assert [(zone.name, zone.limit_c) for zone in profile.thermal] == [
        ("x86_pkg_temp", 95.0),
        ("nvme Composite", 81.85),
    ]


def test_links_of_a_laptop(laptop: Tree) -> None:
    links = {link.name: link for link in probe(laptop.root, metered={"enp0s1": False}).links}
    assert {name: link.kind for name, link in links.items()} == {
        "lo": "loopback",
        "wwan0": "cellular",
        "enp0s1": "ethernet",
    }
    assert links["enp0s1"].advertised_bits_per_s == 2.5e9
    assert (links["enp0s1"].metered, links["lo"].metered, links["wwan0"].metered) == (False, False, None)


def test_the_energy_of_a_laptop_counts_the_package_once_and_survives_the_wrap(laptop: Tree) -> None:
    meter = EnergyMeter(laptop)
    assert [counter.name for counter in meter.counters] == ["package-0"]
    counter = laptop.path("/sys/class/powercap/intel-rapl:0/energy_uj")
    assert meter.joules() == 0.0
    counter.write_text("9000000\n")
    assert meter.joules() == 8.0
    counter.write_text("500000\n")  # 10 J is where it wraps
    assert meter.joules() == 9.5


def test_a_counter_that_fails_once_loses_nothing(laptop: Tree) -> None:
    meter = EnergyMeter(laptop)
    counter = laptop.path("/sys/class/powercap/intel-rapl:0/energy_uj")
    counter.write_text("\n")
    assert meter.joules() == 0.0
    counter.write_text("3000000\n")
    assert meter.joules() == 2.0


def test_vital_signs_follow_the_machine(laptop: Tree) -> None:
    signs = VitalSigns(laptop)
    first = signs.read()
    assert first.memory_pressure == 0.5
    assert first.memory_stall == 0.125
    assert (first.hottest_c, first.limit_c) == (80.85, 81.85), "the disk is nearer to its limit than the processor"
    assert (first.battery_share, first.on_mains, first.cpu_load) == (0.42, False, None)

    laptop.path("/proc/stat").write_text("cpu  150 0 125 725 100 0 0 0 0 0\n")
    laptop.path("/sys/class/thermal/thermal_zone0/temp").write_text("94500\n")
    laptop.path("/sys/class/power_supply/AC/online").write_text("1\n")
    second = signs.read()
    assert (second.hottest_c, second.on_mains, second.cpu_load) == (94.5, True, 0.75)


def test_vital_signs_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    vitals = VitalSigns(Tree(tmp_path)).read()
    assert all(value is None for value in msgspec.structs.asdict(vitals).values())


def test_an_empty_machine_is_a_profile_of_notes(tmp_path: Path) -> None:
    profile = probe(tmp_path)
    assert profile.cpu.model is None
    assert profile.memory.total_bytes is None
    assert profile.accelerators == profile.thermal == profile.energy == profile.links == ()
    assert len(profile.notes) >= 6


def test_a_profile_survives_json(laptop: Tree) -> None:
    profile = probe(laptop.root)
    assert msgspec.json.decode(msgspec.json.encode(profile), type=DeviceProfile) == profile


def test_the_report_names_every_part(laptop: Tree) -> None:
    rows = profile_table(probe(laptop.root, runtimes={"openvino": "not installed"}))
    labels = [label for label, _ in rows]
    for label in (
        "device",
        "processor",
        "cores",
        "memory",
        "accelerator",
        "temperature",
        "power",
        "energy",
        "link",
        "note",
    ):
        assert label in labels, label
    told = "\n".join(value for _, value in rows)
    for part in ("Ultra 5 125U", "not usable: openvino: not installed", "42%", "50 Wh", "2.5 Gbit/s", "limit 95 °C"):
        assert part in told, part
    assert all(isinstance(label, str) and "\n" not in value for label, value in rows)
