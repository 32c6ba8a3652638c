"""Planning: what is measured on this machine, reckoned for a device of the catalogue that one does not hold. Pure.

A time here is taken apart into products of integers, work in floating point, moving weights and overhead
(:class:`skerry.build.latency.rates.Parts`), and each part grows by how much slower the device does it: matrix products
in 8 bits and in floating point, memory, and single instructions. Nothing of that was measured on the device, so the
interval is wide: a factor of two to either side where the catalogue itself estimates how fast the device multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec

from skerry.build.figures import Estimate, Figures
from skerry.build.findings import FigureName
from skerry.build.latency.rates import Parts
from skerry.spec.profile import DeviceProfile, Origin

PREDICTED: tuple[FigureName, ...] = (
    "latency_p50_ms", "latency_p99_ms", "speedup", "items_per_s", "load_ms", "cpu_ms",
)  # fmt: skip
"""What is reckoned for the device. Quality, peak memory and size are measured here; energy stays unknown."""

TIMES_OFF: dict[Origin, float] = {"measured": 1.25, "datasheet": 1.5, "estimate": 2.0}
"""By what factor a figure of a profile may be off, by where it comes from."""

MODEL_OFF = 1.25
"""By what factor the sum of parts was off here, for nine in ten of encoders that it was not fitted to."""

ARCHITECTURES: dict[str, frozenset[str]] = {
    "executorch": frozenset({"x86_64", "aarch64"}),
    "litert": frozenset({"x86_64", "aarch64"}),
    "onnxruntime": frozenset({"x86_64", "aarch64"}),
    "openvino": frozenset({"x86_64", "aarch64"}),
    "tensorrt": frozenset({"x86_64", "aarch64"}),
}
"""For which processors a runtime's Python package is published, under Linux."""

_LANES = (("avx512f", 16), ("avx2", 8), ("avx", 8), ("neon", 4), ("sse2", 4), ("rvv", 4))
"""Numbers of 32 bits that an instruction takes, by instruction set, the widest first."""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one core of a machine is.

    Parameters
    ----------
    integers, floats:
        Operations per second in products of 8 bits and of fp32.
    bandwidth:
        Bytes per second from memory.
    single:
        Operations per second of one lane: what is left without wide registers, as for calls and small loops.
    off:
        By what factor these may be off.
    """

    integers: float
    floats: float
    bandwidth: float
    single: float
    off: float = 1.0


def speed_of(profile: DeviceProfile) -> Speed | None:
    """Return a machine's speed; ``None`` where its profile tells no rate of products or no bandwidth."""
    cpu, bandwidth = profile.cpu, profile.memory.bandwidth_bytes_per_s
    if not cpu.gemm_fp32_flops or not bandwidth:
        return None
    cores = max(1.0, cpu.usable_cores or cpu.logical_cores or 1.0)
    floats = cpu.gemm_fp32_flops / cores
    integers = (cpu.gemm_int8_ops or cpu.gemm_fp32_flops) / cores
    origins = {each.figure: each.how for each in profile.measurements}
    off = max(TIMES_OFF[origins.get(name, "measured")] for name in ("cpu.gemm_fp32_flops", "cpu.gemm_int8_ops"))
    return Speed(integers=integers, floats=floats, bandwidth=bandwidth, single=floats / lanes(cpu.isa), off=off)


def lanes(instructions: Collection[str]) -> int:
    """Return how many numbers of 32 bits an instruction takes, by the names of instruction sets."""
    return next((count for name, count in _LANES if name in instructions), 1)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A device that is planned for, beside the machine that measures."""

    name: str
    profile: DeviceProfile
    here: Speed
    there: Speed

    @property
    def off(self) -> float:
        """By what factor a predicted time may be off, to either side."""
        return math.exp(math.hypot(*(math.log(each) for each in (self.here.off, self.there.off, MODEL_OFF))))

    @property
    def cores(self) -> int:
        """How many cores the device has."""
        return max(1, int(self.profile.cpu.usable_cores or self.profile.cpu.logical_cores or 1))

    @property
    def memory_bytes(self) -> int | None:
        """Its memory."""
        return self.profile.memory.usable_bytes

    def slower(self, parts: Parts) -> float:
        """Return how many times as long the device takes for what these parts are the time of here."""
        there = (
            parts.integers * self.here.integers / self.there.integers
            + parts.floats * self.here.floats / self.there.floats
            + parts.moving * self.here.bandwidth / self.there.bandwidth
            + parts.overhead * self.here.single / self.there.single
        )
        return there / parts.total if parts.total else self.here.floats / self.there.floats

    def lacks(self, runtime: str) -> str:
        """Return why a runtime does not work on the device, or an empty text."""
        architecture = self.profile.cpu.architecture or ""
        known = ARCHITECTURES.get(runtime)
        if known is not None and architecture not in known:
            return f"{runtime} has no package for {architecture or 'its processor'}"
        if runtime == "tensorrt" and not any(
            each.kind == "gpu" and "nvidia" in each.vendor.lower() for each in self.profile.accelerators
        ):
            return "tensorrt needs a GPU of NVIDIA, and the device has none"
        return ""

    def reckoned(self, figures: Figures, parts: Parts | None, baseline: Parts | None) -> Figures:
        """Return figures that were measured here as they are to be expected on the device.

        ``parts`` are those of the candidate, ``baseline`` those of the model as it was given; ``None`` where they are
        not known, which leaves the rate of floating point to go by.
        """
        mine, other = (self.slower(each or Parts(floats=1.0)) for each in (parts, baseline))
        return Figures(
            quality=figures.quality, latency_p50_ms=self._times(figures.latency_p50_ms, mine),
            latency_p99_ms=self._times(figures.latency_p99_ms, mine),
            speedup=self._times(figures.speedup, other / mine), items_per_s=figures.items_per_s / mine,
            load_ms=figures.load_ms * self.here.single / self.there.single, peak_bytes=figures.peak_bytes,
            size_bytes=figures.size_bytes, cpu_ms=None if figures.cpu_ms is None else figures.cpu_ms * mine,
            energy_j=None, texts=figures.texts, repeats=figures.repeats,
        )  # fmt: skip

    def _times(self, estimate: Estimate, factor: float) -> Estimate:
        return Estimate(estimate.value * factor, estimate.low * factor / self.off, estimate.high * factor * self.off)
