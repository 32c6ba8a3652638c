"""The catalogue: every number has a source, and every device can be planned for."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from skerry.device.catalogue import catalogue, load_device, load_entry
from skerry.device.cpu import ISA_NAMES
from skerry.device.report import profile_table
from skerry.spec.errors import DeviceError
from skerry.spec.profile import ORIGINS, DeviceProfile

NAMED = {"raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2-w", "jetson-orin-nano", "intel-n100", "rock-5b"}


def numbers_in(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in numbers_in(inner, f"{path}.{key}".strip("."))]
    if isinstance(value, list | tuple):
        return [found for index, inner in enumerate(value) for found in numbers_in(inner, f"{path}.{index}")]
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_the_common_devices_are_there() -> None:
    assert set(catalogue()) >= NAMED
    assert any(name.startswith("phone") for name in catalogue())
    assert len(catalogue()) >= 8


@pytest.mark.parametrize("name", catalogue())
def test_every_number_has_an_origin_and_a_source(name: str) -> None:
    entry = load_entry(name)
    assert numbers_in(entry.profile) == [], "numbers stand under [figures], with their source"
    profile = load_device(name)
    derived = {"profile", "cpu.usable_cores", "memory.usable_bytes"}
    told = {measurement.figure for measurement in profile.measurements}
    contents = msgspec.to_builtins(profile)
    del contents["measurements"]
    assert set(numbers_in(contents)) - derived == told
    for measurement in profile.measurements:
        assert measurement.how in ORIGINS
        assert len(measurement.source) > 10
        assert measurement.unit


@pytest.mark.parametrize("name", catalogue())
def test_every_source_is_used_and_is_an_address_or_a_document(name: str) -> None:
    entry = load_entry(name)
    keys = {figure.source.partition(":")[0] for figure in entry.figures.values()}
    assert set(entry.sources) <= keys
    for figure in entry.figures.values():
        if figure.how != "estimate":
            assert figure.source.partition(":")[0] in entry.sources or re.match(r"[A-Z].*: ", figure.source), figure


@pytest.mark.parametrize("name", catalogue())
def test_every_device_can_be_planned_for(name: str) -> None:
    profile = load_device(name)
    assert profile.origin == "catalogue"
    assert profile.cpu.usable_cores == profile.cpu.logical_cores == sum(c.cores for c in profile.cpu.clusters)
    assert profile.memory.usable_bytes == profile.memory.total_bytes
    assert profile.cpu.gemm_int8_ops and profile.cpu.gemm_fp32_flops
    assert profile.cpu.gemm_int8_ops > profile.cpu.gemm_fp32_flops
    peak, reached = profile.memory.bandwidth_peak_bytes_per_s, profile.memory.bandwidth_bytes_per_s
    assert peak and reached and reached < peak
    assert set(profile.cpu.isa) <= set(ISA_NAMES.values())
    assert profile.cpu.isa == tuple(sorted(profile.cpu.isa))
    assert not any(accelerator.usable for accelerator in profile.accelerators)
    assert msgspec.json.decode(msgspec.json.encode(profile), type=DeviceProfile) == profile
    assert profile_table(profile)[0] == ("device", profile.name)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("rasberry-pi-5", "raspberry-pi-5"), ("Rock 5B", "rock-5b"), ("jetson_orin_nano", "jetson-orin-nano")],
)
def test_an_unknown_device_is_an_error_with_the_nearest_name(wrong: str, near: str) -> None:
    with pytest.raises(DeviceError) as caught:
        load_device(wrong)
    assert near in caught.value.hint
    assert near in caught.value.expected


@pytest.mark.parametrize("wrong", ["", "zzzzzz", "../../../etc/passwd"])
def test_what_is_near_nothing_gets_the_way_to_the_list(wrong: str) -> None:
    with pytest.raises(DeviceError, match="no device") as caught:
        load_device(wrong)
    assert "--list-devices" in caught.value.hint
