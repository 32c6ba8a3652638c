"""Accelerators: GPUs, NPUs, TPUs and DSPs, which runtime drives each, and whether that runtime works here.

They are found by device nodes, by sysfs, on the PCI and USB buses, and by what the installed inference libraries
report. Vendor and product numbers are those of the PCI and USB id databases (``pci.ids``, ``usb.ids``).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from skerry.device.tree import Tree
from skerry.spec.profile import Accelerator, AcceleratorKind


class Driver(NamedTuple):
    """A runtime that can drive an accelerator, and the name under which it then reports it (``""``: none)."""

    runtime: str
    reported_as: str = ""


class Sighting(NamedTuple):
    """An accelerator as it was found, before asking which runtime drives it."""

    kind: AcceleratorKind
    name: str
    vendor: str
    nodes: tuple[str, ...]
    drivers: tuple[Driver, ...]
    problem: str = ""
    memory_bytes: int | None = None


_CUDA = (Driver("tensorrt"), Driver("onnxruntime", "CUDAExecutionProvider"))
_OPENVINO_GPU = (Driver("openvino", "GPU"), Driver("onnxruntime", "OpenVINOExecutionProvider"))
_OPENVINO_NPU = (Driver("openvino", "NPU"),)
_ROCM = (Driver("onnxruntime", "MIGraphXExecutionProvider"), Driver("onnxruntime", "ROCMExecutionProvider"))
_VITIS = (Driver("onnxruntime", "VitisAIExecutionProvider"),)
_QNN = (Driver("onnxruntime", "QNNExecutionProvider"), Driver("executorch", "QnnBackend"))
_CORAL = (Driver("litert", "edgetpu"),)
_HAILO = (Driver("hailort"),)
_RKNN = (Driver("rknn"),)
_GPU_DELEGATE = (Driver("litert", "gpu"),)

# DRM drivers that have a render node and compute units: driver -> (vendor, name, runtimes).
_GPU_DRIVERS: dict[str, tuple[str, str, tuple[Driver, ...]]] = {
    "i915": ("Intel", "Intel GPU", _OPENVINO_GPU),
    "xe": ("Intel", "Intel GPU", _OPENVINO_GPU),
    "amdgpu": ("AMD", "AMD GPU", _ROCM),
    "panfrost": ("Arm", "Mali GPU", _GPU_DELEGATE),
    "panthor": ("Arm", "Mali GPU", _GPU_DELEGATE),
    "mali": ("Arm", "Mali GPU", _GPU_DELEGATE),
    "msm": ("Qualcomm", "Adreno GPU", _GPU_DELEGATE),
    "msm_dpu": ("Qualcomm", "Adreno GPU", _GPU_DELEGATE),
    "powervr": ("Imagination", "PowerVR GPU", _GPU_DELEGATE),
    "v3d": ("Broadcom", "VideoCore GPU", ()),
    "etnaviv": ("VeriSilicon", "Vivante GPU or NPU", ()),
}

# Drivers of the kernel's compute-accelerator class.
_ACCEL_DRIVERS: dict[str, tuple[AcceleratorKind, str, str, tuple[Driver, ...]]] = {
    "intel_vpu": ("npu", "Intel", "Intel NPU", _OPENVINO_NPU),
    "amdxdna": ("npu", "AMD", "AMD XDNA NPU", _VITIS),
    "rocket": ("npu", "Rockchip", "Rockchip NPU", _RKNN),
    "qaic": ("npu", "Qualcomm", "Qualcomm Cloud AI", _QNN),
    "habanalabs": ("npu", "Intel", "Habana Gaudi", ()),
    "ethosu": ("npu", "Arm", "Arm Ethos-U", (Driver("litert", "ethosu"),)),
}

# On USB: (vendor, product) -> what it is. A Coral stick shows the first pair until a model was loaded once.
_USB: dict[tuple[str, str], tuple[AcceleratorKind, str, str, tuple[Driver, ...]]] = {
    ("1a6e", "089a"): ("tpu", "Google", "Coral USB Accelerator (not yet initialised)", _CORAL),
    ("18d1", "9302"): ("tpu", "Google", "Coral USB Accelerator", _CORAL),
    ("03e7", "2485"): ("npu", "Intel", "Movidius Myriad X", ()),
}

# On PCI, to tell of hardware whose driver is not loaded: (vendor, device or "" for any) -> name, marks of its driver.
_PCI: dict[tuple[str, str], tuple[AcceleratorKind, str, str, tuple[Driver, ...], str]] = {
    ("0x1ac1", "0x089a"): ("tpu", "Google", "Coral Edge TPU", _CORAL, "apex_"),
    ("0x1e60", ""): ("npu", "Hailo", "Hailo accelerator", _HAILO, "hailo"),
    ("0x10de", ""): ("gpu", "NVIDIA", "NVIDIA GPU", _CUDA, "nvidia"),
}


def reported_devices(tree: Tree) -> dict[str, frozenset[str]]:
    """What the inference libraries that are installed report: runtime to the names of its devices.

    Loads ONNX Runtime and OpenVINO where they are installed, which may take a second on a small machine.
    """
    reports: dict[str, frozenset[str]] = {}
    for runtime, ask in {"onnxruntime": _onnxruntime_providers, "openvino": _openvino_devices}.items():
        try:
            reports[runtime] = frozenset(ask())
        except ImportError:
            continue
        except Exception as error:  # noqa: BLE001  a vendor's broken driver raises whatever it likes on loading
            tree.note(f"accelerators: {runtime} cannot tell its devices: {error}")
    return reports


def _onnxruntime_providers() -> Collection[str]:
    import os

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return [str(provider) for provider in onnxruntime.get_available_providers()]


def _openvino_devices() -> Collection[str]:
    import importlib

    core = importlib.import_module("openvino").Core()
    # "GPU.0" and "GPU.1" are two of a kind.
    return [str(device).partition(".")[0] for device in core.available_devices]


def read_accelerators(
    tree: Tree,
    runtimes: Mapping[str, str] | None = None,
    reports: Mapping[str, Collection[str]] | None = None,
) -> tuple[Accelerator, ...]:
    """Every accelerator that can be found.

    Parameters
    ----------
    tree:
        The machine.
    runtimes:
        The runtimes that Skerry has: name to ``""`` if it is usable here, or to the reason why it is not.
    reports:
        What the installed libraries report, see ``reported_devices``; ``None`` to start no tool and ask no library.
    """
    found = _nvidia(tree, ask_tools=reports is not None)
    for look in _LOOKS:
        found += look(tree)
    seen = {sighting.vendor for sighting in found}
    found += [unseen for unseen in _on_pci(tree) if unseen.vendor not in seen]
    accelerators = [_accelerator(sighting, runtimes or {}, reports) for sighting in found]
    return (*accelerators, *_only_reported(found, runtimes or {}, reports or {}))


def _accelerator(
    sighting: Sighting, runtimes: Mapping[str, str], reports: Mapping[str, Collection[str]] | None
) -> Accelerator:
    usable, reasons = _judge(sighting.drivers, runtimes, reports)
    problem = sighting.problem
    first = sighting.drivers[0].runtime if sighting.drivers else None
    return Accelerator(
        kind=sighting.kind,
        name=sighting.name,
        vendor=sighting.vendor,
        nodes=sighting.nodes,
        runtime=usable or first,
        usable=usable is not None and not problem,
        why=problem or ("" if usable else "; ".join(reasons)),
        memory_bytes=sighting.memory_bytes,
    )


def _judge(
    drivers: tuple[Driver, ...], runtimes: Mapping[str, str], reports: Mapping[str, Collection[str]] | None
) -> tuple[str | None, list[str]]:
    """The first runtime that works for the accelerator, and why those before it do not."""
    reasons: list[str] = []
    for runtime, reported_as in drivers:
        if runtime not in runtimes:
            reasons.append(f"Skerry has no runtime {runtime} yet")
        elif runtimes[runtime]:
            reasons.append(f"{runtime}: {runtimes[runtime]}")
        elif reported_as and reports is None:
            reasons.append(f"{runtime} was not asked whether it has {reported_as}")
        elif reported_as and reported_as not in (reports or {}).get(runtime, ()):
            reasons.append(f"the installed {runtime} does not have {reported_as}")
        else:
            return runtime, []
    return None, reasons or ["no runtime that Skerry knows drives it"]


def _only_reported(
    found: list[Sighting], runtimes: Mapping[str, str], reports: Mapping[str, Collection[str]]
) -> Iterator[Accelerator]:
    """What a library reports although neither node nor bus shows it, as on Windows' Linux subsystem."""
    kinds: dict[str, AcceleratorKind] = {
        "GPU": "gpu", "NPU": "npu", "CUDAExecutionProvider": "gpu", "ROCMExecutionProvider": "gpu",
        "CoreMLExecutionProvider": "npu", "QNNExecutionProvider": "npu",
    }  # fmt: skip
    claimed = {driver for sighting in found for driver in sighting.drivers}
    for runtime, names in sorted(reports.items()):
        for name in sorted(names):
            # CUDA's provider is listed wherever onnxruntime-gpu is installed, also without a GPU.
            if name not in kinds or Driver(runtime, name) in claimed or name == "CUDAExecutionProvider":
                continue
            reason = runtimes.get(runtime, f"Skerry has no runtime {runtime} yet")
            yield Accelerator(
                kind=kinds[name],
                name=f"{name} of {runtime}",
                vendor="unknown",
                runtime=runtime,
                usable=not reason,
                why=reason,
            )


def _nodes(tree: Tree, prefix: str) -> tuple[str, ...]:
    """Device nodes in ``/dev`` whose name is ``prefix`` and what distinguishes several of them."""
    return tuple(f"/dev/{name}" for name in tree.names("/dev") if name.startswith(prefix))


def _nvidia(tree: Tree, *, ask_tools: bool) -> list[Sighting]:
    """Discrete GPUs: named in ``/proc/driver/nvidia``, with their memory if ``nvidia-smi`` is there."""
    if _is_jetson(tree):  # its display driver makes a /dev/nvidia0 that is not a second GPU
        return []
    nodes = tuple(node for node in _nodes(tree, "nvidia") if node.removeprefix("/dev/nvidia").isdigit())
    folder = "/proc/driver/nvidia/gpus"
    names = [_information(tree.text(f"{folder}/{gpu}/information") or "") for gpu in tree.names(folder)]
    told = nvidia_smi(tree) if ask_tools and (nodes or names) else []
    found = []
    for index in range(max(len(nodes), len(names))):
        name, memory = told[index] if index < len(told) else (None, None)
        name = name or (names[index] if index < len(names) else None) or "NVIDIA GPU"
        own = nodes[index : index + 1]
        problem = "" if own else "the driver is loaded but /dev/nvidia* is missing"
        found.append(Sighting("gpu", name, "NVIDIA", own, _CUDA, problem, memory))
    return found


def _information(text: str) -> str | None:
    """The line ``Model: NVIDIA H100`` of the driver's information file."""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Model:")]
    return models[0] if models else None


def nvidia_smi(tree: Tree) -> list[tuple[str | None, int | None]]:
    """Names and memory (bytes) of the GPUs in the driver's order."""
    tool = shutil.which("nvidia-smi") if tree.real else None
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        tree.note(f"accelerators: nvidia-smi failed: {error}")
        return []
    return [_smi_line(line) for line in done.stdout.splitlines() if line.strip()]


def _smi_line(line: str) -> tuple[str | None, int | None]:
    name, _, mebibytes = line.rpartition(",")
    amount = mebibytes.strip()
    return name.strip() or None, int(amount) << 20 if amount.isdecimal() and len(amount) < 10 else None


def _jetson(tree: Tree) -> list[Sighting]:
    """NVIDIA's modules share their memory with the processor; the DLA cores come with the larger ones."""
    model = tree.text("/proc/device-tree/model") or ""
    marks = [node for node in ("/dev/nvhost-gpu", "/dev/nvgpu", "/dev/nvmap") if tree.exists(node)]
    if not _is_jetson(tree):
        return []
    name = f"{model or 'NVIDIA Jetson'} GPU"
    problem = "" if marks else "no GPU node in /dev: not started with NVIDIA's container runtime?"
    found = [Sighting("gpu", name, "NVIDIA", tuple(marks), _CUDA, problem)]
    cores = _nodes(tree, "nvhost-nvdla") + _nodes(tree, "nvdla")
    found += [Sighting("npu", "NVIDIA DLA", "NVIDIA", (core,), (Driver("tensorrt", "DLA"),)) for core in cores]
    return found


def _is_jetson(tree: Tree) -> bool:
    return "Jetson" in (tree.text("/proc/device-tree/model") or "") or tree.exists("/etc/nv_tegra_release")


def _render_gpus(tree: Tree) -> list[Sighting]:
    """GPUs with a render node, by the driver that the kernel bound to them."""
    found = []
    for name in tree.names("/sys/class/drm"):
        driver = _kernel_driver(tree, f"/sys/class/drm/{name}") if name.startswith("renderD") else None
        if driver in _GPU_DRIVERS:
            vendor, title, drivers = _GPU_DRIVERS[driver]
            memory = tree.integer(f"/sys/class/drm/{name}/device/mem_info_vram_total", quiet=True)
            node = f"/dev/dri/{name}"
            problem = "" if tree.exists(node) else f"{node} is missing: not passed into this container?"
            found.append(Sighting("gpu", title, vendor, (node,), drivers, problem, memory))
    kbase = [node for node in ("/dev/mali0", "/dev/kgsl-3d0") if tree.exists(node)]
    for node in kbase:
        vendor, title, drivers = _GPU_DRIVERS["mali" if "mali" in node else "msm"]
        found.append(Sighting("gpu", title, vendor, (node,), drivers))
    return found


def _kernel_driver(tree: Tree, folder: str) -> str | None:
    uevent = tree.text(f"{folder}/device/uevent", quiet=True) or ""
    named = [line.partition("=")[2] for line in uevent.splitlines() if line.startswith("DRIVER=")]
    return named[0] if named else None


def _accel_class(tree: Tree) -> list[Sighting]:
    """The kernel's own class of compute accelerators, ``/dev/accel``."""
    found = []
    for name in tree.names("/sys/class/accel"):
        driver = _kernel_driver(tree, f"/sys/class/accel/{name}")
        node = f"/dev/accel/{name}"
        problem = "" if tree.exists(node) else f"{node} is missing: not passed into this container?"
        unknown: tuple[AcceleratorKind, str, str, tuple[Driver, ...]]
        unknown = ("npu", "unknown", f"accelerator ({driver})", ())
        kind, vendor, title, drivers = _ACCEL_DRIVERS.get(driver or "", unknown)
        found.append(Sighting(kind, title, vendor, (node,), drivers, problem))
    return found


def _coral_and_usb(tree: Tree) -> list[Sighting]:
    """Coral on PCIe has a node of its own; on USB it is only a pair of numbers."""
    found = [Sighting("tpu", "Coral Edge TPU", "Google", (node,), _CORAL) for node in _nodes(tree, "apex_")]
    bus = "/sys/bus/usb/devices"
    for name in tree.names(bus):
        pair = (tree.text(f"{bus}/{name}/idVendor") or "", tree.text(f"{bus}/{name}/idProduct") or "")
        if pair in _USB:
            kind, vendor, title, drivers = _USB[pair]
            found.append(Sighting(kind, title, vendor, (f"{bus}/{name}",), drivers))
    return found


def _hailo(tree: Tree) -> list[Sighting]:
    return [Sighting("npu", "Hailo accelerator", "Hailo", (node,), _HAILO) for node in _nodes(tree, "hailo")]


def _qualcomm(tree: Tree) -> list[Sighting]:
    """The Hexagon DSP is reached by FastRPC: by the mainline driver, or by the vendor's older one."""
    nodes = _nodes(tree, "fastrpc-") + _nodes(tree, "adsprpc-smd")
    return [Sighting("dsp", "Hexagon DSP", "Qualcomm", nodes, _QNN)] if nodes else []


def _rockchip(tree: Tree) -> list[Sighting]:
    """The vendor's kernel shows the NPU as a node, a bound platform device, or a scaled clock."""
    marks = [node for node in ("/dev/rknpu", "/sys/kernel/debug/rknpu") if tree.exists(node)]
    clocks = "/sys/class/devfreq"
    marks += [f"{clocks}/{name}" for name in tree.names(clocks) if name.endswith(".npu")]
    drivers = "/sys/bus/platform/drivers/RKNPU"
    marks += [f"{drivers}/{name}" for name in tree.names(drivers) if name.endswith(".npu")]
    return [Sighting("npu", "Rockchip NPU", "Rockchip", tuple(marks), _RKNN)] if marks else []


def _embedded_npus(tree: Tree) -> list[Sighting]:
    """NPUs of microcontroller-class and NXP chips that have a node of their own."""
    ethos = [
        Sighting("npu", "Arm Ethos-U", "Arm", (node,), (Driver("litert", "ethosu"),)) for node in _nodes(tree, "ethosu")
    ]
    galcore = ("/dev/galcore",) if tree.exists("/dev/galcore") else ()
    vivante = [Sighting("npu", "Vivante GPU or NPU", "VeriSilicon", galcore, (Driver("litert", "vx"),))]
    return ethos + (vivante if galcore else [])


def _on_pci(tree: Tree) -> Iterator[Sighting]:
    """Accelerators on PCI that no node stands for."""
    bus = "/sys/bus/pci/devices"
    for name in tree.names(bus):
        vendor, device = tree.text(f"{bus}/{name}/vendor") or "", tree.text(f"{bus}/{name}/device") or ""
        known = _PCI.get((vendor, device)) or _PCI.get((vendor, ""))
        category = tree.text(f"{bus}/{name}/class") or ""
        # NVIDIA also makes bridges and sound devices: only displays (0x03….) count.
        if known is None or (vendor == "0x10de" and not category.startswith("0x03")) or _nodes(tree, known[4]):
            continue
        kind, maker, title, drivers, _ = known
        yield Sighting(kind, title, maker, (f"{bus}/{name}",), drivers, "its kernel driver is not loaded")


_LOOKS: tuple[Callable[[Tree], list[Sighting]], ...] = (
    _jetson, _render_gpus, _accel_class, _coral_and_usb, _hailo, _qualcomm, _rockchip, _embedded_npus,
)  # fmt: skip
