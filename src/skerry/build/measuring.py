"""Measuring with a memory: trials whose figures are found again by all that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec

from skerry.build import trial
from skerry.build.artifact import Artifact
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.halving import Rung
from skerry.build.items import Items
from skerry.build.limits import Limits
from skerry.build.measure import machine_digest
from skerry.build.naming import in_words
from skerry.build.progress import Progress
from skerry.build.report import tool_versions
from skerry.build.trial import Measured, Trials

RUNTIME_PACKAGES = ("ai-edge-litert", "executorch", "numpy", "onnxruntime", "openvino", "tokenizers")


class RememberedTrials:
    """Trials against one baseline; the baseline is loaded only when something has to be measured.

    A failure is not remembered: it may have been the machine's.

    Parameters
    ----------
    items:
        What is asked, with the right answers among what decides the figures.
    progress:
        Told of what has to be measured.
    limits, metrics, truth, output, seed:
        See :class:`skerry.build.trial.Trials`.
    """

    def __init__(
        self,
        cache: Cache,
        baseline: Artifact,
        items: Items,
        *,
        limits: Limits,
        metrics: tuple[str, ...],
        truth: Mapping[str, Sequence[Any] | None] | None = None,
        output: int = 0,
        seed: int,
        progress: Progress,
    ) -> None:
        self._cache = cache
        self._progress = progress
        self._open: Callable[[], Trials] = lambda: Trials(
            baseline, items.items, limits=limits, metrics=metrics, truth=truth, output=output, seed=seed
        )
        self._trials: Trials | None = None
        self._key = {
            "step": "trial", "version": trial.VERSION, "baseline": baseline.digest, "machine": machine_digest(),
            "items": items.digest, "metrics": list(metrics), "output": output, "seed": seed,
            "limits": msgspec.to_builtins(limits), "tools": tool_versions(*RUNTIME_PACKAGES),
        }  # fmt: skip

    def __enter__(self) -> RememberedTrials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._trials is not None:
            self._trials.close()
            self._trials = None

    def run(self, candidate: Artifact, rung: Rung, *, threads: int = 1, starts: int = 1) -> Measured | Failure:
        """Measure a candidate, or find what an earlier search measured of it; see :meth:`Trials.run`."""
        name = in_words(candidate, threads)
        return self._found(name, candidate.key, rung, threads, starts, lambda: self._opened().run(
            candidate, rung, threads=threads, starts=starts
        ))  # fmt: skip

    def baseline(self, rung: Rung, *, starts: int = 1) -> Measured | Failure:
        """Measure the baseline against itself; see :meth:`Trials.baseline`."""
        return self._found(
            "the model as it was given", {}, rung, 1, starts, lambda: self._opened().baseline(rung, starts=starts)
        )

    def _found(
        self,
        name: str,
        what: dict[str, Any],
        rung: Rung,
        threads: int,
        starts: int,
        measure: Callable[[], Measured | Failure],
    ) -> Measured | Failure:
        key = {**self._key, "of": what, "rung": msgspec.to_builtins(rung), "threads": threads, "starts": starts}

        def make(folder: Any) -> dict[str, Any]:
            with self._progress.step(f"measure {name}", rung.seconds * starts):
                answer = measure()
            if isinstance(answer, Failure):
                raise _FailedError(answer)
            return {"figures": msgspec.to_builtins(answer)}

        try:
            entry = self._cache.entry(key, make)
        except _FailedError as error:
            return error.failure
        return msgspec.convert(entry.note.facts["figures"], Measured)

    def _opened(self) -> Trials:
        if self._trials is None:
            self._trials = self._open().__enter__()
        return self._trials


class _FailedError(Exception):
    """Carries a failure out of the cache, which keeps nothing of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure
