"""A measurement: how a variant answers beside its reference, how fast it is, and what memory a process with it needs.

Run as a program it loads one variant and prints its peak, so that nothing of the build is counted.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.digest import PREFIX
from skerry.run.encoder import Encoder, load_encoder
from skerry.spec.errors import ModelError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.ports import Array

VERSION = 1
"""Counts changes of what is measured, so that cached figures of older ones are not used."""

NEIGHBOURS = 10
_WARM_UPS = 10
_PEAK_TEXTS = 50


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a variant.

    ``agreement`` is *agreement@10* for embeddings (the share of each text's ten nearest neighbours that are the
    reference's), the share of equal labels for classification; ``cosine_*`` compare single vectors. Latencies are in
    milliseconds per text alone, ``load_ms`` from nothing to the first answer. ``peak_bytes`` is the most memory that
    a process with only this model had.
    """

    texts: int
    agreement: float
    cosine_mean: float
    cosine_min: float
    latency_p50_ms: float
    latency_p99_ms: float
    load_ms: float
    peak_bytes: int


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What the measuring program is told: which variant to load and what to give it."""

    folder: str
    manifest: ModelManifest
    variant: Variant
    texts: list[str]


def compare(
    reference: tuple[Path, Variant], candidate: tuple[Path, Variant], manifest: ModelManifest, texts: Sequence[str]
) -> tuple[Figures, Figures]:
    """Measure two variants, each a folder and a file in it; return the reference's figures and the candidate's.

    Both answer the same texts in turn, so that a disturbance meets both.

    Raises
    ------
    ModelError
        A variant answers with numbers that are none, or fails.
    """
    encoders = [load_encoder(folder, manifest, variant) for folder, variant in (reference, candidate)]
    try:
        vectors, times = _answers(encoders, texts)
    finally:
        for encoder in encoders:
            encoder.close()
    figures = [
        _figures(vectors[0], vectors[place], times[place], manifest, *_peak(*variant, manifest, texts))
        for place, variant in enumerate((reference, candidate))
    ]
    return figures[0], figures[1]


def agreement_at(reference: Array, candidate: Array, neighbours: int = NEIGHBOURS) -> float:
    """Return the mean share of each row's nearest rows by cosine that are the same in both: the metric agreement@k.

    ``reference`` and ``candidate`` are float of shape (texts, dimension), of length 1; there are more than
    ``neighbours`` texts.
    """
    nearest = [_nearest(vectors, neighbours) for vectors in (reference, candidate)]
    shared = [len(set(one) & set(other)) for one, other in zip(nearest[0].tolist(), nearest[1].tolist(), strict=True)]
    return sum(shared) / (len(shared) * neighbours)


def machine() -> str:
    """Return what computes here, as far as figures depend on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware")))
    return f"{platform.machine()} {next(names, platform.processor())}, {os.cpu_count()} threads"


def machine_digest() -> str:
    """Return the digest of all that the processor tells of itself: figures are cached by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    kept = sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU "))})
    return PREFIX + hashlib.sha256("\n".join([machine(), *kept]).encode()).hexdigest()


def _answers(encoders: Sequence[Encoder], texts: Sequence[str]) -> tuple[list[Array], list[list[float]]]:
    """Return each encoder's vectors, and its milliseconds per text."""
    import numpy as np

    for encoder in encoders:
        encoder.warm_up()
        for text in texts[:_WARM_UPS]:
            encoder.embed([text])
    vectors: list[list[Array]] = [[] for _ in encoders]
    times: list[list[float]] = [[] for _ in encoders]
    for text in texts:
        for place, encoder in enumerate(encoders):
            start = time.perf_counter()
            vectors[place].append(encoder.embed([text])[0])
            times[place].append((time.perf_counter() - start) * 1e3)
    return [np.array(rows) for rows in vectors], times


def _figures(
    reference: Array, vectors: Array, times: Sequence[float], manifest: ModelManifest, peak_bytes: int, load_ms: float
) -> Figures:
    import numpy as np

    if not np.isfinite(vectors).all():
        raise ModelError("the model answers with numbers that are none (NaN or infinity)", where=manifest.source)
    one, other = _unit(reference), _unit(vectors)
    cosines = (one * other).sum(axis=1)
    if manifest.task == "classification":
        agreement = float((reference.argmax(axis=1) == vectors.argmax(axis=1)).mean())
    else:
        agreement = agreement_at(one, other)
    return Figures(
        texts=len(vectors), agreement=round(agreement, 4), cosine_mean=round(float(cosines.mean()), 5),
        cosine_min=round(float(cosines.min()), 5), latency_p50_ms=round(float(np.percentile(times, 50)), 4),
        latency_p99_ms=round(float(np.percentile(times, 99)), 4), load_ms=round(load_ms, 1), peak_bytes=peak_bytes,
    )  # fmt: skip


def _unit(vectors: Array) -> Array:
    import numpy as np

    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _nearest(vectors: Array, count: int) -> Array:
    import numpy as np

    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argpartition(-likeness, count, axis=1)[:, :count]


def _peak(folder: Path, variant: Variant, manifest: ModelManifest, texts: Sequence[str]) -> tuple[int, float]:
    """Return the peak in bytes and the loading time in ms of a process with one variant."""
    told = Rehearsal(folder=str(folder), manifest=manifest, variant=variant, texts=list(texts[:_PEAK_TEXTS]))
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name], input=msgspec.json.encode(told), capture_output=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"the variant {variant.name} failed in a process of its own: {reason}", where=str(folder))
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return int(answer["peak_bytes"]), float(answer["load_ms"])


def _peak_bytes() -> int:
    """Return the most resident memory that this process had since it began to run its own program."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        # In bytes on macOS, the one system without /proc that is supported.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _rehearse(told: Rehearsal) -> dict[str, float]:
    start = time.perf_counter()
    encoder = load_encoder(Path(told.folder), told.manifest, told.variant)
    encoder.embed(told.texts[:1])
    load_ms = (time.perf_counter() - start) * 1e3
    for text in told.texts:
        encoder.embed([text])
    return {"peak_bytes": _peak_bytes(), "load_ms": load_ms}


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(_rehearse(msgspec.json.decode(sys.stdin.buffer.read(), type=Rehearsal)))
    )
