"""Fake machines: folders that stand for `/`, made of a few files each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from skerry.device.tree import Tree

Plant = Callable[[Mapping[str, str]], Tree]

ARM_CORE = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3
"""

MEMINFO = "MemTotal:  {total} kB\nMemFree:  1000 kB\nMemAvailable:  {available} kB\nSwapTotal:  0 kB\n"


def arm_cores(parts: list[str], features: str = "fp asimd evtstrm crc32 cpuid") -> str:
    return "\n".join(ARM_CORE.format(number=number, part=part, features=features) for number, part in enumerate(parts))


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write files below a fresh folder; a path that ends in a slash is an empty folder."""

    def write(files: Mapping[str, str]) -> Tree:
        for name, text in files.items():
            place = tmp_path / name.lstrip("/")
            if name.endswith("/"):
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(text.encode("utf-8", "surrogateescape"))
        return Tree(tmp_path)

    return write


@pytest.fixture
def raspberry_pi_5(plant: Plant) -> Tree:
    """A Raspberry Pi 5 with a Hailo hat, warm, on Wi-Fi, without PSI."""
    files = {
        "/proc/cpuinfo": arm_cores(
            ["0xd0b"] * 4, "fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
        )
        + "\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
        "/proc/meminfo": MEMINFO.format(total=8245536, available=7000000),
        "/proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3\n",
        "/proc/self/cgroup": "0::/user.slice/user-1000.slice\n",
        "/proc/self/mountinfo": "26 1 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
        "/sys/fs/cgroup/user.slice/user-1000.slice/cpu.max": "max 100000\n",
        "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "/proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
        "/sys/devices/system/cpu/online": "0-3\n",
        "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "/sys/class/thermal/thermal_zone0/temp": "61450\n",
        "/sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000\n",
        "/sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
        "/sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
        "/sys/class/hwmon/hwmon2/name": "rpi_volt\n",
        "/sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n",
        "/sys/class/net/wlan0/type": "1\n",
        "/sys/class/net/wlan0/operstate": "up\n",
        "/sys/class/net/wlan0/uevent": "DEVTYPE=wlan\nINTERFACE=wlan0\n",
        "/sys/class/net/eth0/type": "1\n",
        "/sys/class/net/eth0/operstate": "down\n",
        "/sys/class/net/eth0/speed": "-1\n",
        "/sys/class/net/eth0/device/": "",
        "/sys/class/drm/renderD128/device/uevent": "DRIVER=v3d\nOF_NAME=v3d\n",
        "/dev/dri/renderD128": "",
        "/dev/hailo0": "",
    }
    for number in range(4):
        files[f"/sys/devices/system/cpu/cpu{number}/cpufreq/cpuinfo_max_freq"] = "2400000\n"
        files[f"/sys/devices/system/cpu/cpu{number}/topology/core_id"] = f"{number}\n"
        files[f"/sys/devices/system/cpu/cpu{number}/topology/physical_package_id"] = "0\n"
    files["/sys/devices/system/cpu/cpu0/cache/index3/size"] = "2048K\n"
    return plant(files)


@pytest.fixture
def jetson_orin(plant: Plant) -> Tree:
    """A Jetson Orin Nano with its power monitor."""
    ina = "/sys/class/hwmon/hwmon1"
    return plant(
        {
            "/proc/cpuinfo": arm_cores(["0xd42"] * 6, "fp asimd fphp asimdhp asimddp"),
            "/proc/meminfo": MEMINFO.format(total=7800000, available=5000000),
            "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "/proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
            "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\n",
            "/dev/nvhost-gpu": "",
            "/dev/nvmap": "",
            "/dev/nvidia0": "",
            f"{ina}/name": "ina3221\n",
            f"{ina}/in1_label": "VDD_IN\n",
            f"{ina}/in1_input": "5000\n",
            f"{ina}/curr1_input": "1200\n",
            f"{ina}/in2_label": "VDD_CPU_GPU_CV\n",
            f"{ina}/in2_input": "5000\n",
            f"{ina}/curr2_input": "400\n",
        }
    )


@pytest.fixture
def laptop(plant: Plant) -> Tree:
    """An x86 laptop on battery: hyper-threads, RAPL, an Intel GPU and NPU, a Coral stick, a modem."""
    flags = "fpu lm sse4_2 avx avx2 fma f16c avx_vnni"
    cores = "\n".join(
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) Ultra 5 125U\n"
        f"physical id\t: 0\ncore id\t\t: {number // 2}\nflags\t\t: {flags}\n"
        for number in range(4)
    )
    rapl, battery = "/sys/class/powercap/intel-rapl:0", "/sys/class/power_supply/BAT0"
    return plant(
        {
            "/proc/cpuinfo": cores,
            "/proc/meminfo": MEMINFO.format(total=16000000, available=8000000),
            "/proc/pressure/memory": "some avg10=12.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=1.00\n",
            "/proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n",
            "/sys/class/dmi/id/sys_vendor": "LENOVO\n",
            "/sys/class/dmi/id/product_name": "21ML\n",
            "/sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "/sys/class/thermal/thermal_zone0/temp": "70000\n",
            "/sys/class/thermal/thermal_zone0/trip_point_0_temp": "95000\n",
            "/sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
            "/sys/class/hwmon/hwmon3/name": "nvme\n",
            "/sys/class/hwmon/hwmon3/temp1_input": "80850\n",
            "/sys/class/hwmon/hwmon3/temp1_label": "Composite\n",
            "/sys/class/hwmon/hwmon3/temp1_max": "81850\n",
            "/sys/class/hwmon/hwmon3/temp2_input": "-273150\n",
            "/sys/class/power_supply/AC/type": "Mains\n",
            "/sys/class/power_supply/AC/online": "0\n",
            f"{battery}/type": "Battery\n",
            f"{battery}/status": "Discharging\n",
            f"{battery}/capacity": "42\n",
            f"{battery}/energy_full": "50000000\n",
            f"{battery}/energy_now": "21000000\n",
            f"{battery}/power_now": "7500000\n",
            "/sys/class/power_supply/hidpp_battery_0/type": "Battery\n",
            "/sys/class/power_supply/hidpp_battery_0/scope": "Device\n",
            "/sys/class/power_supply/hidpp_battery_0/capacity": "3\n",
            f"{rapl}/name": "package-0\n",
            f"{rapl}/energy_uj": "1000000\n",
            f"{rapl}/max_energy_range_uj": "10000000\n",
            "/sys/class/powercap/intel-rapl:0:0/name": "core\n",
            "/sys/class/powercap/intel-rapl:0:0/energy_uj": "500000\n",
            "/sys/class/powercap/intel-rapl:1/name": "psys\n",
            "/sys/class/powercap/intel-rapl:1/energy_uj": "9000000\n",
            "/sys/class/drm/renderD128/device/uevent": "DRIVER=xe\n",
            "/dev/dri/renderD128": "",
            "/sys/class/accel/accel0/device/uevent": "DRIVER=intel_vpu\n",
            "/dev/accel/accel0": "",
            "/sys/bus/usb/devices/1-2/idVendor": "18d1\n",
            "/sys/bus/usb/devices/1-2/idProduct": "9302\n",
            "/sys/class/net/lo/type": "772\n",
            "/sys/class/net/lo/operstate": "unknown\n",
            "/sys/class/net/wwan0/type": "519\n",
            "/sys/class/net/wwan0/operstate": "up\n",
            "/sys/class/net/enp0s1/type": "1\n",
            "/sys/class/net/enp0s1/device/": "",
            "/sys/class/net/enp0s1/operstate": "up\n",
            "/sys/class/net/enp0s1/speed": "2500\n",
        }
    )
