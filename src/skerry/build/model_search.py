"""A model's search: one model of a pipeline, from its data to the forms that win and what a release says of them."""

from __future__ import annotations

import datetime
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from skerry import __version__
from skerry.build import measure, toolchain
from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.figures import plain
from skerry.build.findings import (
    Baseline,
    Candidate,
    Environment,
    Findings,
    Measured,
    Origin,
    Split,
    TextsUsed,
    outcome_of,
)
from skerry.build.halving import RUNGS
from skerry.build.importing import Origin as Given
from skerry.build.importing import artifact_of, find_origin
from skerry.build.items import Items
from skerry.build.latency.foresight import Foresight
from skerry.build.latency.here import plan_for
from skerry.build.latency.prospects import PlannedTrials, foresight_of, limited, predicted
from skerry.build.limits import Limits
from skerry.build.material import Material, default_metric, tensor_material, text_material
from skerry.build.measuring import RUNTIME_PACKAGES, RememberedTrials
from skerry.build.progress import Progress
from skerry.build.relaxation import NearMiss, near_misses
from skerry.build.report import TOOLS, tool_versions
from skerry.build.search import Found, Search, making_s
from skerry.build.signature import signature_of
from skerry.build.splits import key
from skerry.build.teacher import Embed, teaching
from skerry.build.technique import Kind, LateError, Workbench, techniques
from skerry.run.digest import PREFIX, file_digest
from skerry.run.tokens import VocabularyTokens
from skerry.runtimes.listing import survey
from skerry.spec.errors import DeviceError, ModelError, ModelKindError, UsageError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.pipeline import Model
from skerry.spec.reading import Project

LEAST_CONVERSION_S = 30.0
"""What a conversion may take beyond the time of the search: small models take less."""
HEADROOM = 2.0
"""A candidate may use so many times the budget's memory before it is ended: nearest misses should still give a peak."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How to search: the time for each model, the kinds of techniques and the thread counts to try.

    ``device`` names one of the catalogue that is planned for instead of this machine.
    """

    seconds: float
    kinds: tuple[Kind, ...] = ("convert", "quantize")
    threads: tuple[int, ...] = (1,)
    seed: int = 0
    toolchains: bool = True
    device: str | None = None


class ModelSearch:
    """The search of one model.

    After :meth:`search`, :attr:`found` has all the forms that it made, and after :meth:`manifest` :attr:`files` those
    that a release needs, by their names in it.
    """

    def __init__(self, name: str, model: Model, project: Project, cache: Cache, progress: Progress, wish: Wish) -> None:
        self._name, self._model, self._project = name, model, project
        self._cache, self._progress, self._wish = cache, progress, wish
        self._metric = default_metric(model)
        self._techniques = {each.name: each for each in (kind() for kind in techniques().values())}
        self._plan = None if wish.device is None else plan_for(wish.device, cache)
        if self._plan is not None and max(wish.threads) > self._plan.cores:
            raise UsageError(
                f"{self._plan.profile.name} has {self._plan.cores} cores", where=f"--threads {max(wish.threads)}"
            )
        self.found: Found | None = None
        self._origin: Artifact | None = None
        self.files: dict[str, Path] = {}

    def search(self) -> Findings:
        """Search, and measure the winners on texts that the search has not seen."""
        given = find_origin(self._model, self._project.home)
        if given.kind == "null":
            raise ModelKindError("a null model has nothing to search for", where=self._name, hint="leave --time out")
        begin = time.monotonic()
        origin = self._origin = artifact_of(given, self._model)
        material, baseline = self._material(given, origin)
        with teaching(baseline) as embed:
            workbench = self._workbench(material, origin, embed, begin)
            foresight = self._foresight(baseline, material)
            search = Search(
                origin, self._chosen_techniques(), workbench, self._cache, budget=self._model.budget,
                metric=self._metric, threads=self._wish.threads, seconds=self._wish.seconds,
                runtimes=frozenset(each.name for each in survey() if each.usable), outlook=foresight,
                predicted=predicted(self._plan),
            )  # fmt: skip
            with self._trials(baseline, material, material.splits.select) as trials:
                planned = PlannedTrials(trials, baseline, foresight, self._plan)
                planned.correct()
                found = search.run(planned)
        if found.chosen is None:
            reasons = [getattr(each.outcome, "reason", "") for each in found.candidates]
            raise ModelError(
                f"no form of the model could be measured: {next(filter(None, reasons), 'no technique takes it')}",
                where=self._name,
            )
        self.found = found
        with self._trials(baseline, material, material.splits.report) as trials:
            planned = PlannedTrials(trials, baseline, foresight, self._plan)
            reported = {name: self._reported(name, planned) for name in found.ladder}
            reference = planned.baseline(RUNGS[-1], starts=3)
        if isinstance(reference, Failure):
            raise ModelError(f"the model as it was given fails: {reference.reason}", where=self._name)
        candidates = tuple(reported.get(each.name, each) for each in found.candidates)
        return Findings(
            name=self._name, metric=self._metric, lower_is_better=self._model.budget.lower_is_better(self._metric),
            origin=Origin(source=given.source, digest=given.digest, task=self._model.task),
            baseline=Baseline(
                name="fp32", runtime=RUNTIMES[baseline.form], figures=plain(reference),
                predicted=predicted(self._plan),
            ),
            candidates=candidates, chosen=found.chosen, front=found.front, ladder=found.ladder,
            near_misses=found.near_misses or _missed(reported[found.chosen]), rungs=len(RUNGS),
            environment=self._environment(material, found, begin),
        )  # fmt: skip

    def _material(self, given: Given, origin: Artifact) -> tuple[Material, Artifact]:
        """Return the data and the baseline; texts are read first, since exporting a model takes long."""
        folder = given.path if given.path.is_dir() else given.path.parent
        folders = (folder, folder.parent)
        if self._model.task != "tensors":
            return text_material(self._model, self._project.home, folders), self._baseline(origin)
        baseline = self._baseline(origin)
        signature = signature_of(baseline, self._cache)
        return tensor_material(self._name, self._model, self._project.home, folders, signature), baseline

    def _trials(self, baseline: Artifact, material: Material, items: Items) -> RememberedTrials:
        memory, device = self._model.budget.memory, None if self._plan is None else self._plan.memory_bytes
        most = [int(HEADROOM * memory)] if memory is not None else []
        most += [device] if device is not None else []
        limits = Limits(cores=max(self._wish.threads), memory_bytes=min(most, default=None))
        return RememberedTrials(
            self._cache, baseline, items, limits=limits, metrics=material.metrics, truth=material.truth(items),
            output=material.output, seed=self._wish.seed, progress=self._progress,
        )  # fmt: skip

    def _foresight(self, baseline: Artifact, material: Material) -> Foresight | None:
        """Return what predicts forms of a model of texts, where there is anything to hold a prediction against."""
        if baseline.tokenizer is None or not limited(self._model.budget, self._plan):
            return None
        texts = [text for text in material.splits.select.items if isinstance(text, str)]
        tokens = [len(ids) for ids in VocabularyTokens(baseline.tokenizer, baseline.max_tokens).many(texts)]
        return foresight_of(self._model.budget, tokens, self._cache, baseline, self._plan)

    def _baseline(self, origin: Artifact) -> Artifact:
        """Return the model as it was given, in fp32, in a form that a runtime runs."""
        if origin.form in RUNTIMES:
            return origin
        search = Search(
            origin, {"export-onnx": self._techniques["export-onnx"]},
            Workbench(texts=(), progress=self._progress, toolchain=_convert), self._cache,
            budget=type(self._model.budget)(), runtimes=frozenset({"onnxruntime"}), seconds=1e9,
        )  # fmt: skip
        with self._progress.step(f"{self._name}: export to ONNX"):
            made = search.runnable()
        if not made:
            raise ModelError(f"the model cannot be exported: {search.first_reason()}", where=self._name)
        return next(iter(made.values()))[0]

    def _chosen_techniques(self) -> dict[str, Any]:
        return {
            name: each for name, each in self._techniques.items()
            if each.kind in self._wish.kinds and (each.toolchain is None or self._may_use(each.toolchain))
        }  # fmt: skip

    def _may_use(self, name: str) -> bool:
        """Tell whether a toolchain is there: a search installs none, which would take the time and a gigabyte."""
        return self._wish.toolchains and toolchain.find(name) is not None

    def _workbench(self, material: Material, origin: Artifact, embed: Embed | None, begin: float) -> Workbench:
        return Workbench(
            texts=material.texts, samples=material.rows, output=material.output, seed=self._wish.seed,
            threads=max(self._wish.threads), deadline=begin + making_s(self._wish.seconds), progress=self._progress,
            embed=embed, toolchain=_converter(begin + self._wish.seconds), teacher=origin,
            forbidden=frozenset(map(key, material.held_out)), students=self._students(),
        )  # fmt: skip

    def _students(self) -> dict[str, Artifact]:
        """Return the smaller models that the pipeline names, if any is to be taught."""
        if "prune" not in self._wish.kinds:
            return {}
        named = {source: msgspec.structs.replace(self._model, from_=source) for source in self._model.students}
        return {source: artifact_of(find_origin(one, self._project.home), one) for source, one in named.items()}

    def _reported(self, name: str, trials: PlannedTrials) -> Candidate:
        """Return a winner with the figures that it has on texts nobody has looked at before."""
        found = self.found
        assert found is not None
        before = next(each for each in found.candidates if each.name == name)
        answer = trials.run(found.artifacts[name], RUNGS[-1], threads=before.threads, starts=3)
        if isinstance(answer, Failure):
            raise ModelError(f"the winner fails when it is measured again: {answer.reason}", where=name)
        outcome = outcome_of(
            plain(answer), self._model.budget, rung=len(RUNGS), predicted=predicted(self._plan)
        )  # fmt: skip
        return msgspec.structs.replace(before, outcome=outcome)

    def _environment(self, material: Material, found: Found, begin: float) -> Environment:
        splits = material.splits
        purposes: tuple[tuple[Split, Items], ...] = (
            ("calibrate", splits.calibrate), ("select", splits.select), ("report", splits.report),
        )  # fmt: skip
        used = tuple(
            TextsUsed(
                split=purpose, origin=items.origin, count=len(items.items), digest=items.digest, called=items.called,
                labelled=items.labelled,
            )
            for purpose, items in purposes
        )  # fmt: skip
        plan, wish = self._plan, self._wish
        command = f"skerry build {shlex.quote(os.path.relpath(self._project.path))} --time {wish.seconds:g}s"
        command += f" --device {plan.name}" if plan is not None else ""
        command += " --prune" if "prune" in wish.kinds else ""
        command += f" --threads {','.join(map(str, wish.threads))}" if wish.threads != (1,) else ""
        return Environment(
            machine=measure.machine(), device="" if plan is None else plan.profile.name or plan.name,
            predicted_within=None if plan is None else round(plan.off, 2),
            versions={"skerry": __version__, **tool_versions(*TOOLS, *RUNTIME_PACKAGES)},
            seed=self._wish.seed, allowed_s=self._wish.seconds, spent_s=round(time.monotonic() - begin, 1),
            phases={"making": round(found.making_s, 1), "measuring": round(found.measuring_s, 1)},
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), texts=used,
            commands=(f"{command} --seed {self._wish.seed}",),
        )  # fmt: skip

    def manifest(self, findings: Findings) -> ModelManifest:
        """Return the model's part of the manifest; its variants are the rungs of the ladder. Fills :attr:`files`."""
        found, origin = self.found, self._origin
        assert found is not None
        assert origin is not None
        first = found.artifacts[findings.ladder[0]]
        tokenizer = None if first.tokenizer is None else self._file("tokenizer", first.tokenizer, ".json")
        measured = {each.name: each for each in findings.candidates}
        return ModelManifest(
            source=findings.origin.source, task=self._model.task, dimension=first.dimension, tokenizer=tokenizer,
            max_tokens=first.max_tokens, pooling=origin.pooling, normalize=origin.normalize,
            variants=tuple(self._variant(found.artifacts[name], measured[name], index)
                           for index, name in enumerate(findings.ladder)),
        )  # fmt: skip

    def _variant(self, artifact: Artifact, candidate: Candidate, index: int) -> Variant:
        outcome, origin = candidate.outcome, self._origin
        assert origin is not None
        assert isinstance(outcome, Measured)
        figures = outcome.figures
        name = "best" if not index else f"rung{index}"
        file = self._file(name, artifact.path, artifact.path.suffix)
        beside = {}
        for extra in artifact.files:  # weights beside a graph, which is looked for under the graph's own stem
            if extra != artifact.file:
                place = str(Path(file).with_suffix(Path(extra).suffix))
                self.files[place] = artifact.folder / extra
                beside[place] = file_digest(artifact.folder / extra)
        agreement = figures.quality.get("agreement@10")
        return Variant(
            name=name, runtime=candidate.runtime, file=file, digest=file_digest(artifact.path), beside=beside,
            size=artifact.size, pooled=origin.pooling != "none" == artifact.pooling,
            technique=artifact.name(), threads=candidate.threads,
            latency_p50_ms=round(figures.latency_p50_ms.value, 4),
            agreement=None if agreement is None else round(agreement.value, 4),
        )  # fmt: skip

    def _file(self, stem: str, path: Path, suffix: str) -> str:
        name = f"models/{self._name}/{stem}-{file_digest(path).removeprefix(PREFIX)[:16]}{suffix}"
        self.files[name] = path
        return name


def _missed(winner: Candidate) -> tuple[NearMiss, ...]:
    """Return by how much a winner misses the budget on the texts that nobody had looked at, if it does."""
    assert isinstance(winner.outcome, Measured)
    return near_misses({winner.name: winner.outcome.lines})


def _converter(ends: float) -> Callable[[str, str, dict[str, Any]], dict[str, Any]]:
    """Return what runs converters until a moment of ``time.monotonic()``; one begun late has half a minute."""

    def convert(name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
        limit_s = min(max(ends - time.monotonic(), LEAST_CONVERSION_S), toolchain.RUN_LIMIT_S)
        begin = time.monotonic()
        try:
            return toolchain.run(name, script, request, time_limit_s=limit_s)
        except DeviceError as error:
            if time.monotonic() - begin < limit_s:
                raise
            raise LateError(f"its conversion was broken off after {limit_s:.0f} s", where=script) from error

    return convert


def _convert(name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
    return toolchain.run(name, script, request)
