"""Accelerators: how each is found, and what is said of those that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from skerry.device.accelerators import read_accelerators, reported_devices
from skerry.device.tree import Tree

from .conftest import Plant

ACCEL, RENDER = "/sys/class/accel/accel0/device", "/sys/class/drm/renderD128/device"
HERE: Mapping[str, str] = {"onnxruntime": "", "openvino": "", "tensorrt": "not built yet"}


@pytest.mark.parametrize(
    ("files", "vendor", "kind", "runtime"),
    [
        ({"/dev/nvidia0": "", "/dev/nvidiactl": ""}, "NVIDIA", "gpu", "tensorrt"),
        ({"/dev/apex_0": ""}, "Google", "tpu", "litert"),
        (
            {"/sys/bus/usb/devices/2-1/idVendor": "1a6e\n", "/sys/bus/usb/devices/2-1/idProduct": "089a\n"},
            "Google",
            "tpu",
            "litert",
        ),
        ({"/dev/hailo0": ""}, "Hailo", "npu", "hailort"),
        ({"/dev/fastrpc-cdsp": "", "/dev/fastrpc-adsp": ""}, "Qualcomm", "dsp", "onnxruntime"),
        ({"/dev/adsprpc-smd": ""}, "Qualcomm", "dsp", "onnxruntime"),
        ({"/dev/rknpu": ""}, "Rockchip", "npu", "rknn"),
        ({"/sys/class/devfreq/fdab0000.npu/cur_freq": "1"}, "Rockchip", "npu", "rknn"),
        ({f"{ACCEL}/uevent": "DRIVER=amdxdna\n", "/dev/accel/accel0": ""}, "AMD", "npu", "onnxruntime"),
        ({f"{RENDER}/uevent": "DRIVER=amdgpu\n", "/dev/dri/renderD128": ""}, "AMD", "gpu", "onnxruntime"),
        ({f"{RENDER}/uevent": "DRIVER=panthor\n", "/dev/dri/renderD128": ""}, "Arm", "gpu", "litert"),
        ({"/dev/mali0": ""}, "Arm", "gpu", "litert"),
        ({"/dev/ethosu0": ""}, "Arm", "npu", "litert"),
        ({"/dev/galcore": ""}, "VeriSilicon", "npu", "litert"),
    ],
)  # fmt: skip
def test_each_kind_is_found(plant: Plant, files: dict[str, str], vendor: str, kind: str, runtime: str) -> None:
    (found,) = read_accelerators(plant(files))
    assert (found.vendor, found.kind, found.runtime, found.usable) == (vendor, kind, runtime, False)
    assert found.nodes
    assert f"Skerry has no runtime {runtime} yet" in found.why


def test_one_is_usable_only_if_skerry_has_the_runtime_and_the_runtime_reports_it(laptop: Tree) -> None:
    found = {item.name: item for item in read_accelerators(laptop, HERE, {"openvino": ["CPU", "GPU"]})}
    assert (found["Intel GPU"].usable, found["Intel GPU"].runtime, found["Intel GPU"].why) == (True, "openvino", "")
    assert (found["Intel NPU"].usable, found["Intel NPU"].why) == (False, "the installed openvino does not have NPU")


def test_why_not_is_told_for_every_runtime_that_could(plant: Plant) -> None:
    (gpu,) = read_accelerators(plant({"/dev/nvidia0": ""}), HERE, {"onnxruntime": ["CPUExecutionProvider"]})
    assert gpu.why == "tensorrt: not built yet; the installed onnxruntime does not have CUDAExecutionProvider"
    (gpu,) = read_accelerators(plant({}), HERE, {"onnxruntime": ["CUDAExecutionProvider"]})
    assert (gpu.usable, gpu.runtime) == (True, "onnxruntime")


def test_without_reports_it_is_said_that_nobody_asked(plant: Plant) -> None:
    (gpu,) = read_accelerators(plant({"/dev/nvidia0": ""}), {"onnxruntime": ""}, None)
    assert "was not asked" in gpu.why


def test_hardware_without_its_driver_is_told(plant: Plant) -> None:
    bus = "/sys/bus/pci/devices"
    tree = plant(
        {
            f"{bus}/0000:01:00.0/vendor": "0x1e60\n",
            f"{bus}/0000:01:00.0/device": "0x2864\n",
            f"{bus}/0000:02:00.0/vendor": "0x10de\n",
            f"{bus}/0000:02:00.0/class": "0x030200\n",
            f"{bus}/0000:02:00.1/vendor": "0x10de\n",
            f"{bus}/0000:02:00.1/class": "0x040300\n",
        }
    )
    assert [(found.vendor, found.why) for found in read_accelerators(tree, HERE)] == [
        ("Hailo", "its kernel driver is not loaded"),
        ("NVIDIA", "its kernel driver is not loaded"),
    ]


def test_a_node_that_a_container_does_not_have_is_told(plant: Plant) -> None:
    tree = plant({"/sys/class/drm/renderD128/device/uevent": "DRIVER=i915\n"})
    (gpu,) = read_accelerators(tree, HERE, {"openvino": ["GPU"]})
    assert not gpu.usable
    assert "/dev/dri/renderD128 is missing" in gpu.why


def test_two_gpus_with_their_names(plant: Plant) -> None:
    gpus = "/proc/driver/nvidia/gpus"
    tree = plant(
        {
            "/dev/nvidia0": "",
            "/dev/nvidia1": "",
            f"{gpus}/0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ: 5\n",
            f"{gpus}/0000:02:00.0/information": "Model: \t\t NVIDIA T4\n",
        }
    )
    found = read_accelerators(tree)
    assert [(gpu.name, gpu.nodes) for gpu in found] == [
        ("NVIDIA L4", ("/dev/nvidia0",)),
        ("NVIDIA T4", ("/dev/nvidia1",)),
    ]


def test_a_gpu_that_only_a_library_reports(plant: Plant) -> None:
    (gpu,) = read_accelerators(plant({}), {}, {"openvino": ["CPU", "GPU"]})
    assert (gpu.kind, gpu.nodes, gpu.usable) == ("gpu", (), False)
    assert gpu.why == "Skerry has no runtime openvino yet"


def test_a_display_adapter_is_no_accelerator(plant: Plant) -> None:
    tree = plant({"/sys/class/drm/renderD128/device/uevent": "DRIVER=virtio-pci\n", "/dev/dri/renderD128": ""})
    assert read_accelerators(tree) == ()


def test_the_installed_libraries_are_asked() -> None:
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not there")
    assert "CPUExecutionProvider" in reported_devices(Tree())["onnxruntime"]


def test_nvidia_smi_tells_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tool is only asked on the real machine: a stand-in on the search path answers as it would."""
    from skerry.device.accelerators import nvidia_smi

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559'\necho 'Odd, [N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert nvidia_smi(Tree()) == [("NVIDIA H100 80GB HBM3", 81559 << 20), ("Odd", None)]
    tool.write_text("#!/bin/sh\nexit 9\n")
    tree = Tree()
    assert nvidia_smi(tree) == []
    assert any("nvidia-smi" in note for note in tree.notes)
