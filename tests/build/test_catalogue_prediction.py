"""Predictions and suggestions: pure, and the more one has the more one gets."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.catalogue import ModelEntry, catalogue, load_model, tasks
from skerry.build.catalogue.prediction import (
    PRECISIONS,
    RUNTIMES,
    Precision,
    Runtime,
    Setting,
    in_memory,
    item_of,
    latency,
    predict,
    predictions,
)
from skerry.build.catalogue.suggestion import Suggestions, Wish, suggest
from skerry.device.catalogue import catalogue as devices
from skerry.device.catalogue import load_device
from skerry.spec.profile import Cpu, DeviceProfile, Memory

MODELS = tuple(catalogue().values())
PI = load_device("raspberry-pi-5")
any_model = st.sampled_from(MODELS)
any_task = st.sampled_from(sorted(tasks().tasks))
any_bytes = st.floats(1e5, 1e10)
any_seconds = st.floats(1e-6, 1e2)


def names(found: Suggestions) -> set[str]:
    return {one.model.name for one in found.fits}


def asked(task: str, **limits: object) -> Suggestions:
    return suggest(MODELS, msgspec.convert({"task": task, **limits}, Wish), tasks(), PI)


@pytest.mark.parametrize(
    ("precision", "runtime", "disk_mb", "peak_mb"),
    [
        ("fp32", "onnxruntime", 90.3, 186),
        ("int8", "onnxruntime", 22.8, 89),
        ("fp32", "litert", 89.8, 123),
        ("int8", "litert", 23.4, 63),
        ("int4", "litert", 13.0, 53),
    ],
)
def test_the_encoder_that_was_measured(precision: Precision, runtime: Runtime, disk_mb: float, peak_mb: float) -> None:
    found = predict(load_model("all-minilm-l6-v2"), precision, runtime, None, Setting())
    assert found.weights_bytes / 1e6 == pytest.approx(disk_mb, rel=0.05)
    assert found.memory_bytes / 1e6 == pytest.approx(peak_mb, rel=0.1)
    assert found.latency_s is None


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_is_predicted_on_every_device(model: ModelEntry) -> None:
    for name in devices():
        found = list(predictions(model, load_device(name)))
        assert len(found) == len(PRECISIONS) * len(RUNTIMES)
        assert all(one.latency_s is not None and one.latency_s > 0 for one in found)
        sizes = [one.size_bytes for one in found if one.runtime == "litert"]
        assert sizes == sorted(sizes, reverse=True)
        assert all(one.embedding_bytes <= one.weights_bytes < one.memory_bytes for one in found)
    assert item_of(model, Setting())


@given(any_model, st.sampled_from(PRECISIONS), st.floats(1.0, 10.0), st.floats(1.0, 10.0))
def test_a_faster_device_is_never_slower(
    model: ModelEntry, precision: Precision, rate: float, bandwidth: float
) -> None:
    def device(by_rate: float, by_bandwidth: float) -> DeviceProfile:
        return DeviceProfile(
            cpu=Cpu(gemm_fp32_flops=1e10 * by_rate, gemm_int8_ops=3e10 * by_rate),
            memory=Memory(bandwidth_bytes_per_s=5e9 * by_bandwidth),
        )

    slow, fast = (latency(model, precision, one, Setting()) for one in (device(1, 1), device(rate, bandwidth)))
    assert slow is not None and fast is not None
    assert sum(fast) <= sum(slow)


@given(any_model, st.integers(1, 512), st.integers(0, 512))
def test_a_longer_text_never_costs_less(model: ModelEntry, tokens: int, more: int) -> None:
    short, long = (predict(model, "int8", "litert", PI, Setting(tokens=one)) for one in (tokens, tokens + more))
    assert long.memory_bytes >= short.memory_bytes
    assert (long.latency_s or 0) >= (short.latency_s or 0)


@given(any_task, any_bytes, st.floats(1.0, 100.0), any_bytes, any_seconds)
def test_more_memory_never_removes_a_suggestion(
    task: str, memory: float, factor: float, size: float, seconds: float
) -> None:
    limits = {"size_bytes": size, "latency_s": seconds}
    before, after = (asked(task, memory_bytes=memory * by, **limits) for by in (1.0, factor))
    assert names(before) <= names(after)


@given(any_task, any_bytes, any_bytes, any_seconds, st.sampled_from(["any", "permissive", "commercial", "MIT"]))
def test_what_fits_keeps_every_limit_and_nothing_is_lost(
    task: str, memory: float, size: float, seconds: float, licence: str
) -> None:
    found = asked(task, memory_bytes=memory, size_bytes=size, latency_s=seconds, licence=licence, language="de")
    for one in found.fits:
        kept = one.prediction
        assert kept.memory_bytes <= memory and kept.size_bytes <= size
        assert kept.latency_s is not None and kept.latency_s <= seconds
        assert one.breaks == ()
    for one in found.near:
        assert one.breaks and all(b.over is not None and b.over > 1 for b in one.breaks)
    everything = len(found.fits) + len(found.near) + sum(found.left_out.values())
    assert everything == sum(task in model.tasks for model in MODELS)


@pytest.mark.parametrize("task", sorted(tasks().tasks))
def test_the_order_is_by_the_published_figure_then_by_size(task: str) -> None:
    fits = asked(task).fits
    with_figure = [one for one in fits if one.quality is not None]
    without = [one for one in fits if one.quality is None]
    values = [one.quality.value for one in with_figure if one.quality is not None]
    lower = tasks().metrics[tasks().tasks[task].metric].better == "lower"
    assert values == sorted(values, reverse=not lower)
    assert fits == (*with_figure, *without)
    sizes = [one.prediction.size_bytes for one in without]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("memory", "precision"), [(130e6, "fp32"), (90e6, "fp16"), (70e6, "int8"), (52e6, "int4")])
def test_the_mildest_precision_that_fits_is_taken(memory: float, precision: str) -> None:
    chosen = {one.model.name: one.prediction.precision for one in asked("embedding", memory_bytes=memory).fits}
    assert chosen["potion-base-2m"] == "fp32"
    assert chosen["all-minilm-l6-v2"] == precision


def test_near_misses_start_with_the_nearest_and_say_by_how_much() -> None:
    found = asked("embedding", memory_bytes=80e6, size_bytes=25e6, language="de", licence="permissive")
    assert not found.fits
    worst = [max(one.over or 0 for one in miss.breaks) for miss in found.near]
    assert worst == sorted(worst)
    memory = next(one for one in found.near[0].breaks if one.limit == "memory")
    assert memory.over == pytest.approx(found.near[0].prediction.memory_bytes / 80e6)
    assert found.left_out["language"] > 5


def test_the_memory_of_the_device_is_a_limit_too() -> None:
    small = load_device("raspberry-pi-zero-2-w")
    found = suggest(MODELS, Wish(task="generation"), tasks(), small)
    assert all(one.prediction.memory_bytes <= (small.memory.usable_bytes or 0) for one in found.fits)
    assert "smollm2-1.7b-instruct" in {one.model.name for one in found.near}


def test_a_device_without_rates_fits_no_latency() -> None:
    blank = DeviceProfile(cpu=Cpu(), memory=Memory())
    found = suggest(MODELS, Wish(task="embedding", latency_s=1.0), tasks(), blank)
    assert not found.fits
    assert all(one.breaks[0].predicted is None and one.breaks[0].over is None for one in found.near)


def test_a_limit_of_nothing_fits_nothing_and_does_not_divide_by_it() -> None:
    found = asked("detection", memory_bytes=0.0, size_bytes=0.0, latency_s=0.0)
    assert not found.fits and found.near


def test_16_bits_save_memory_only_where_they_are_computed() -> None:
    assert in_memory("fp16", None) == "fp32"
    assert in_memory("fp16", PI) == "fp16"
    assert in_memory("fp16", load_device("intel-n100")) == "fp32"


def test_one_runtime_only() -> None:
    found = asked("embedding", runtime="litert")
    assert {one.prediction.runtime for one in found.fits} == {"litert"}


def test_a_licence_by_its_identifier() -> None:
    found = asked("image-text", licence="MIT")
    assert names(found) == {"clip-vit-base-patch32"}
    assert "mobileclip-s0" not in names(asked("image-text", licence="permissive"))
    assert "mobileclip-s0" in names(asked("image-text", licence="commercial"))
