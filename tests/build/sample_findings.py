"""Findings to render: every figure in here is made up, in the order of size that small encoders have on one core."""

# ruff: noqa: E501 - a table of figures reads best with a candidate on a line
from __future__ import annotations

from typing import Any

from skerry.build.artifact import Step
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import (
    Baseline,
    Candidate,
    Discarded,
    Environment,
    Failed,
    FigureName,
    Findings,
    Measured,
    Origin,
    TextsUsed,
)
from skerry.build.halving import front, ladder, order
from skerry.build.relaxation import near_misses
from skerry.build.verdict import verdict
from skerry.spec.budget import Budget, Quality
from skerry.spec.units import Duration, Size

METRIC = "agreement@10"
BUDGET = Budget(
    quality=Quality(metric=METRIC, min=0.95), latency_p50=Duration(0.002), memory=Size(80e6), size=Size(25e6)
)
HOPELESS = Budget(
    quality=Quality(metric=METRIC, min=0.99), latency_p50=Duration(0.001), memory=Size(60e6), size=Size(20e6)
)

_BASELINE_MS = 5.1
# runtime, threads, steps, speed-up, agreement, MB on disk, MB peak, load ms, rung
_MEASURED: list[tuple[str, int, list[tuple[str, dict[str, Any]]], float, float, float, float, float, int]] = [
    ("litert", 1, [("smooth", {"alpha": 0.6}), ("litert-int8", {"embedding": "int8"})], 3.62, 0.971, 23.6, 63, 12, 3),
    ("litert", 1, [("litert-int8", {})], 3.55, 0.949, 23.4, 62, 12, 3),
    ("litert", 2, [("smooth", {"alpha": 0.6}), ("litert-int8", {"embedding": "int8"})], 3.1, 0.971, 23.6, 65, 13, 2),
    ("litert", 1, [("trim-vocabulary", {"keep": 9000}), ("litert-int8", {})], 3.6, 0.944, 14.1, 49, 9, 3),
    ("litert", 1, [("litert-int4", {"block": 32})], 3.1, 0.823, 13.0, 53, 11, 2),
    ("litert", 1, [("litert-fp32", {})], 1.2, 1.0, 89.8, 123, 30, 1),
    ("litert", 1, [("litert-fp16", {})], 1.15, 0.999, 45.2, 131, 25, 1),
    ("onnxruntime", 1, [("onnx-dynamic", {"per_channel": True})], 2.1, 0.892, 22.9, 89, 100, 2),
    ("onnxruntime", 1, [("onnx-dynamic", {"per_channel": False})], 2.3, 0.795, 22.8, 88, 98, 1),
    ("onnxruntime", 1, [("onnx-dynamic", {"per_channel": True, "exclude": [1, 2, 3, 4, 5, 6]})], 1.8, 0.919, 33.5, 101, 110, 2),
    ("onnxruntime", 1, [("smooth", {"alpha": 0.5}), ("onnx-dynamic", {"per_channel": True})], 2.1, 0.951, 22.9, 89, 100, 3),
    ("onnxruntime", 1, [("onnx-static", {"calibration": "minmax"})], 2.0, 0.696, 23.0, 92, 105, 1),
    ("onnxruntime", 1, [("onnx-weight-only", {"bits": 4, "block": 32})], 1.4, 0.87, 17.2, 95, 120, 1),
    ("onnxruntime", 2, [("onnx-dynamic", {"per_channel": True})], 2.6, 0.892, 22.9, 91, 104, 2),
    ("onnxruntime", 1, [("onnx-fp16", {})], 0.7, 0.999, 45.5, 170, 160, 1),
    ("openvino", 1, [("nncf-weights", {"bits": 8})], 1.9, 0.972, 22.8, 134, 420, 3),
    ("openvino", 1, [("nncf-ptq", {"preset": "mixed"})], 2.4, 0.939, 22.9, 201, 510, 2),
    ("openvino", 1, [("nncf-weights", {"bits": 4})], 2.0, 0.816, 12.1, 128, 410, 1),
    ("openvino", 1, [("openvino-fp32", {})], 1.05, 1.0, 90.1, 239, 480, 1),
    ("litert", 1, [("prune-layers", {"keep": 3}), ("distill", {"epochs": 4}), ("litert-int8", {})], 6.7, 0.856, 16.0, 50, 8, 3),
    ("litert", 1, [("prune-layers", {"keep": 3}), ("prune-ffn", {"keep": 768}), ("distill", {"epochs": 4}), ("litert-int8", {})], 9.8, 0.781, 14.2, 48, 7, 3),
    ("litert", 1, [("prune-layers", {"keep": 2}), ("distill", {"epochs": 4}), ("litert-int8", {})], 10.9, 0.715, 13.8, 46, 7, 2),
    ("onnxruntime", 1, [("prune-layers", {"keep": 3}), ("distill", {"epochs": 4}), ("onnx-dynamic", {"per_channel": True})], 4.1, 0.842, 17.1, 72, 70, 2),
    ("onnxruntime", 1, [("prune-heads", {"keep": 8})], 1.2, 0.912, 81.0, 171, 200, 1),
    ("openvino", 1, [("prune-layers", {"keep": 4}), ("nncf-weights", {"bits": 8})], 2.8, 0.402, 19.2, 120, 380, 1),
]  # fmt: skip


def about(value: float, share: float) -> Estimate:
    return Estimate(value, value * (1 - share), value * (1 + share))


def _figures(row: tuple[Any, ...], number: int) -> Figures:
    _, threads, _, speedup, quality, disk, peak, load, rung = row
    width = 0.03 / rung
    half = (1 - quality) * 0.12 / rung + 0.001
    latency = _BASELINE_MS / speedup
    return Figures(
        quality={METRIC: Estimate(quality, quality - half, min(1.0, quality + half))},
        latency_p50_ms=about(latency, width), latency_p99_ms=about(latency * (1.3 + number % 5 / 10), 3 * width),
        speedup=about(speedup, width), items_per_s=1000 / latency * 1.3, load_ms=load, peak_bytes=int(peak * 1e6),
        size_bytes=int(disk * 1e6), cpu_ms=latency * threads, texts=500, repeats=200 * rung,
    )  # fmt: skip


def _steps(steps: list[tuple[str, dict[str, Any]]]) -> tuple[Step, ...]:
    return tuple(Step(technique=name, version=1, settings=settings) for name, settings in steps)


def _name(row: tuple[Any, ...]) -> str:
    _, threads, steps = row[:3]
    last = steps[-1][0] + ("-per-tensor" if steps[-1][1].get("per_channel") is False else "")
    names = [step[0].removeprefix("prune-") + str(step[1].get("keep", "")) for step in steps[:-1]] + [last]
    marks = [
        f"x{len(value) if isinstance(value, list) else value}"
        for key, value in steps[-1][1].items()
        if key in {"bits", "exclude"}
    ]
    return "+".join(names + marks) + (f" {threads}t" if threads > 1 else "")


def sample(budget: Budget = BUDGET, device: str = "", predicted: tuple[FigureName, ...] = ()) -> Findings:
    """Findings of a search with 25 measured candidates; nothing of it was ever measured."""
    figures = {_name(row): _figures(row, number) for number, row in enumerate(_MEASURED)}
    verdicts = {name: verdict(budget, each) for name, each in figures.items()}
    chosen = order(figures, budget, METRIC)[0]
    measured = [
        Candidate(
            name=_name(row), runtime=row[0], threads=row[1], steps=_steps(row[2]), digest=f"sha256:{number:064x}",
            outcome=Measured(
                figures=figures[_name(row)], lines=verdicts[_name(row)], rung=row[8], predicted=predicted
            ),
        )
        for number, row in enumerate(_MEASURED)
    ]  # fmt: skip
    return Findings(
        name="minilm", metric=METRIC,
        origin=Origin(
            source="hf://sentence-transformers/all-MiniLM-L6-v2@c9745ed", digest=f"sha256:{7:064x}", task="embedding",
            base_model="sentence-transformers/all-MiniLM-L6-v2", licence="Apache-2.0", parameters=22_713_216,
        ),
        baseline=Baseline(
            name="fp32", runtime="onnxruntime",
            figures=Figures(
                quality={METRIC: Estimate.exact(1.0)}, latency_p50_ms=about(_BASELINE_MS, 0.01),
                latency_p99_ms=about(7.4, 0.05), speedup=Estimate.exact(1.0), items_per_s=240, load_ms=230,
                peak_bytes=186_000_000, size_bytes=91_200_000, cpu_ms=_BASELINE_MS, texts=500, repeats=600,
            ),
        ),
        candidates=(*measured, *_others()), chosen=chosen, front=tuple(front(figures, METRIC)),
        ladder=tuple(ladder(figures, chosen, METRIC)), near_misses=near_misses(verdicts),
        environment=Environment(
            machine="made-up x86-64 processor, 2 cores, 8.0 GB", device=device,
            versions={"skerry": "0.3.0", "python": "3.11.9", "onnxruntime": "1.26.0", "ai-edge-litert": "2.3.0", "openvino": "2026.1.0", "torch": "2.13.0"},
            seed=7, allowed_s=1200, spent_s=1093.4, phases={"make": 402.0, "distil": 388.0, "measure": 303.4},
            finished="2026-11-22T17:00:00+00:00",
            texts=(
                TextsUsed(split="calibrate", origin="data/calibrate.jsonl", count=1200, digest=f"sha256:{1:064x}"),
                TextsUsed(split="select", origin="data/calibrate.jsonl", count=400, digest=f"sha256:{2:064x}"),
                TextsUsed(split="report", origin="data/evaluate.jsonl", count=500, digest=f"sha256:{3:064x}"),
            ),
            commands=("pip install 'skerry[build]==0.3.0'", "skerry build examples/log-triage --time 20m --seed 7"),
        ),
    )  # fmt: skip


def _others() -> list[Candidate]:
    failed = [
        Candidate(
            name="smooth+nncf-ptq", runtime="openvino", steps=_steps([("smooth", {"alpha": 0.6}), ("nncf-ptq", {})]),
            outcome=Failed(kind="out of memory", reason="ended at 512.0 MB, the budget's limit is 80.0 MB", rung=1),
        ),
        Candidate(
            name="executorch-int8", runtime="executorch", steps=_steps([("executorch-pt2e", {"bits": 8})]),
            outcome=Failed(kind="failed", reason="ExportError: 'aten.scaled_dot_product' cannot be quantized\nin XNNPACK's partitioner"),
        ),
        Candidate(
            name="onnx-static-percentile", runtime="onnxruntime", steps=_steps([("onnx-static", {"calibration": "percentile"})]),
            outcome=Failed(kind="refused", reason="percentile calibration takes texts of one length only"),
        ),
        Candidate(
            name="tensorrt-fp16", runtime="tensorrt", steps=_steps([("tensorrt", {"precision": "fp16"})]),
            outcome=Failed(kind="refused", reason="no NVIDIA device is at hand"),
        ),
    ]  # fmt: skip
    left = [
        Candidate(
            name=f"layers{keep}+onnx-fp16", runtime="onnxruntime",
            steps=_steps([("prune-layers", {"keep": keep}), ("onnx-fp16", {})]),
            outcome=Discarded(reason=f"predicted {5.5 * keep / 6:.1f} ms, 2.0 ms is asked"),
        )
        for keep in (3, 4, 5)
    ]  # fmt: skip
    late = Candidate(
        name="ffn512+distill+litert-int8", runtime="litert",
        steps=_steps([("prune-ffn", {"keep": 512}), ("distill", {"epochs": 8}), ("litert-int8", {})]),
        outcome=Discarded(reason="needs about 9 min, 2 min were left", by="time"),
    )  # fmt: skip
    return [*failed, *left, late]
