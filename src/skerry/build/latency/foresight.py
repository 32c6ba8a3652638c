"""Foresight: what a form will take and weigh, before it is made or measured, and whether it is worth trying at all.

The work is read from the fp32 graph that a form descends from, so it is known before the form is. The rates are the
machine's, corrected by what the model as it was given took here. A form is hopeless when it is predicted to miss a
limit by far (:data:`MARGIN`) although another form is predicted to do better; the model as it was given never is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.cache import Cache
from skerry.build.figures import Figures
from skerry.build.findings import Discarded
from skerry.build.latency.planning import Plan
from skerry.build.latency.rates import Parts, Table, total
from skerry.build.latency.reading import read_workload
from skerry.build.latency.way import BYTES, PLAIN, TABLE_BYTES, Way, shape_of, way_of
from skerry.build.latency.workload import Workload, reading_lengths
from skerry.spec.budget import Budget
from skerry.spec.errors import DependencyError, ModelError

VERSION = 1
"""Counts changes of how a workload is read."""

MARGIN = 1.75
"""So many times the limit has to be predicted before a form is given up. Of encoders that the rates were not fitted to,
nine predictions in ten were within 1.25, and the worst of 144 was 1.52 times too long."""

UNCALIBRATED_MARGIN = 3.0
"""The same where the rates are those of another machine, corrected by the model as it was given."""

SIZE_MARGIN = 1.2
"""The same for bytes on disk, which are predicted within a few hundredths."""

HELD: dict[str, tuple[float, float]] = {
    "onnxruntime": (72e6, 1.4), "litert": (70e6, 1.0), "openvino": (128e6, 1.4), "executorch": (70e6, 1.0),
}  # fmt: skip
"""Bytes of a process with a runtime and no model, and bytes held for each on disk. From the trials of all-MiniLM-L6-v2,
measured | predicted in MB: ONNX Runtime fp32 205 | 199, int8 110 | 105; LiteRT int8 97 | 95; OpenVINO int8 weights
168 | 161. OpenVINO's calibrated int8 held 282: such a miss discards nothing in vain, since it is too low."""


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """What is predicted of a form; milliseconds and bytes.

    ``parts`` is the time here for the mean of the texts, by what it goes into.
    """

    latency_p50_ms: float
    latency_p99_ms: float
    size_bytes: float
    peak_bytes: float | None
    parts: Parts


class _Model(msgspec.Struct, frozen=True):
    """What is known of a model from its fp32 graph: its work, and its numbers beside those of dense layers."""

    workload: Workload
    table_numbers: float
    tokenizer_bytes: float


class Foresight:
    """Predicts the forms of one model.

    Parameters
    ----------
    tokens:
        The lengths of the texts that candidates are measured on.
    table:
        Rates of this machine.
    baseline:
        The model as it was given; its fp32 graph is read at once.
    plan:
        The device that is planned for; ``None`` for this machine.
    margin:
        So many times a limit of latency has to be predicted before a form is given up.
    """

    def __init__(
        self, budget: Budget, tokens: Sequence[int], table: Table, cache: Cache, baseline: Artifact,
        plan: Plan | None = None, margin: float = MARGIN,
    ) -> None:  # fmt: skip
        self._budget, self._table, self._cache, self._plan = budget, table, cache, plan
        self._tokens = Counter(max(1, each) for each in tokens)
        self._models: dict[bytes, _Model] = {}
        self._baseline = baseline
        self._correction = 1.0
        self._best: dict[str, float] = {}
        self._margins = {"latency_p50": margin, "latency_p99": margin, "memory": MARGIN, "size": SIZE_MARGIN}
        self.learn(baseline)

    def learn(self, artifact: Artifact) -> None:
        """Read the work of a model from its fp32 graph; anything else is passed over."""
        place = _place(artifact)
        if place in self._models or way_of(artifact) != Way(runtime="onnxruntime"):
            return

        def make(folder: Path) -> dict[str, Any]:
            read = read_workload(artifact.path, reading_lengths(artifact.max_tokens))
            return {"workload": msgspec.to_builtins(read)}

        try:
            entry = self._cache.entry({"step": "workload", "version": VERSION, **artifact.key}, make)
        except (ModelError, DependencyError):
            return  # what cannot be read is not predicted
        workload = msgspec.convert(entry.note.facts["workload"], Workload)
        dense = workload.readings[0].weights
        tokenizer = artifact.size_with_tokenizer - artifact.size
        self._models[place] = _Model(workload, max(0.0, artifact.size / BYTES[PLAIN] - dense), tokenizer)

    def correct(self, measured: Figures) -> None:
        """Take into account what the model as it was given took here, in processor time for the mean text."""
        parts = self.parts(self._baseline)
        if parts is not None and parts.total and measured.cpu_ms:
            self._correction = measured.cpu_ms / parts.total

    def parts(self, artifact: Artifact) -> Parts | None:
        """Return the predicted time here for the mean of the texts; ``None`` where nothing is known of the form."""
        way, model = way_of(artifact), self._models.get(_place(artifact))
        if way is None or model is None:
            return None
        return self._timed(way, model)

    def foresee(self, artifact: Artifact, threads: int = 1) -> Foreseen | None:
        """Predict a form, which need not be there yet; ``None`` where nothing is known of it.

        With several threads everything but overhead is taken to be shared out evenly, which is the best that can be.
        """
        way, model = way_of(artifact), self._models.get(_place(artifact))
        if way is None or model is None or (parts := self._timed(way, model)) is None:
            return None
        times = self._percentiles(way, model, threads)
        size = _size(way, model)
        base, copies = HELD.get(way.runtime, (0.0, 0.0))
        peak = base + copies * (size - model.tokenizer_bytes) if base else None
        return Foreseen(latency_p50_ms=times[0], latency_p99_ms=times[1], size_bytes=size, peak_bytes=peak, parts=parts)

    def hopeless(self, artifact: Artifact, threads: int = 1) -> Discarded | None:
        """Return why a form is not to be tried, or ``None`` where it may be."""
        way = way_of(artifact)
        if self._plan is not None and way is not None and (why := self._plan.lacks(way.runtime)):
            return Discarded(reason=why, by="device")
        if artifact.digest == self._baseline.digest or (foreseen := self.foresee(artifact, threads)) is None:
            return None
        missed = [said for name, margin in self._margins.items() if (said := self._missed(name, margin, foreseen))]
        return Discarded(reason="; ".join(missed)) if missed else None

    def _missed(self, limit: str, margin: float, foreseen: Foreseen) -> str:
        """Say by how much a limit is predicted to be missed beyond its margin; nothing where it is not."""
        field, unit, name = _FIELDS[limit]
        most, value = getattr(self._budget, limit), getattr(foreseen, field)
        if most is None or value is None:
            return ""
        asked = float(most) * (1e3 if unit == "ms" else 1.0)
        best = self._best[limit] = min(value, self._best.get(limit, value))
        if not is_far(value, asked, best, margin):
            return ""
        shown = (f"{value:.3g} ms", f"{asked:.3g} ms") if unit == "ms" else (_mb(value), _mb(asked))
        return f"{name} predicted at {shown[0]}, {value / asked:.1f} times the limit of {shown[1]}"

    def _timed(self, way: Way, model: _Model) -> Parts | None:
        whole, count = Parts(), sum(self._tokens.values())
        for tokens, times in self._tokens.items():
            parts = self._table.parts(model.workload.at(way.padded(tokens)), way)
            if parts is None:
                return None
            whole = total(whole, parts.scaled(times / count))
        return whole

    def _percentiles(self, way: Way, model: _Model, threads: int) -> tuple[float, float]:
        """Return the 50th and the 99th percentile of the predicted times, on the device that is planned for."""
        found: list[float] = []
        for tokens, times in self._tokens.items():
            parts = self._table.parts(model.workload.at(way.padded(tokens)), way)
            assert parts is not None, "the same way had rates for other lengths"
            shared = parts.overhead + (parts.total - parts.overhead) / threads
            factor = self._correction * (self._plan.slower(parts) if self._plan is not None else 1.0)
            found += [shared * factor] * times
        found.sort()
        return found[(len(found) - 1) // 2], found[round(0.99 * (len(found) - 1))]


def is_far(value: float, limit: float, best: float, margin: float) -> bool:
    """Tell whether a predicted value misses a limit beyond the margin, and the best that is predicted too.

    Where nothing keeps the limit, what comes near the best is still worth measuring: it may be the nearest miss.
    """
    return value > margin * max(limit, best)


_FIELDS = {
    "latency_p50": ("latency_p50_ms", "ms", "latency p50"), "latency_p99": ("latency_p99_ms", "ms", "latency p99"),
    "memory": ("peak_bytes", "bytes", "peak memory"), "size": ("size_bytes", "bytes", "size"),
}  # fmt: skip
"""Of each limit: the figure, its unit and its name in words."""


def _place(artifact: Artifact) -> bytes:
    """Return what decides the work of a form, as a key."""
    return msgspec.json.encode([artifact.source, shape_of(artifact)], order="deterministic")


def _size(way: Way, model: _Model) -> float:
    """Return the bytes on disk of a form, with its tokenizer."""
    dense = model.workload.readings[0].dense
    layers = sum(
        layer.weights * BYTES[way.spared_precision if layer.name in way.spared else way.precision] for layer in dense
    )
    return layers + model.table_numbers * TABLE_BYTES[way.table] + model.tokenizer_bytes


def _mb(value: float) -> str:
    return f"{value / 1e6:.1f} MB"
