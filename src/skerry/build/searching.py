"""Searching: a pipeline's models, each searched within its budget, and the release that the winners make."""

from __future__ import annotations

import datetime
import hashlib
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry import __version__
from skerry.build import measure, toolchain
from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.documents import documents
from skerry.build.evaluation import evaluation_set
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
from skerry.build.importing import find_origin
from skerry.build.limits import Limits
from skerry.build.measuring import RUNTIME_PACKAGES, RememberedTrials
from skerry.build.progress import Progress
from skerry.build.release import write_release
from skerry.build.report import TOOLS, tool_versions
from skerry.build.search import Found, Search
from skerry.build.splits import Splits, key, split
from skerry.build.technique import Kind, Workbench, techniques
from skerry.build.texts import Texts, own_texts, read_texts
from skerry.run.digest import PREFIX, file_digest
from skerry.run.encoder import Encoder, load_encoder
from skerry.runtimes.listing import survey
from skerry.spec.errors import ModelError, ModelKindError
from skerry.spec.manifest import Manifest, ModelManifest, Variant
from skerry.spec.pipeline import Model
from skerry.spec.reading import Project

MOST_TEXTS = 2000
"""Texts read of a user's file: half of them to calibrate on, which is plenty for ranges and enough for a start at
distilling."""
HEADROOM = 2.0
"""A candidate may use so many times the budget's memory before it is ended: nearest misses should still give a peak."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How to search: the time for each model, the kinds of techniques and the thread counts to try."""

    seconds: float
    kinds: tuple[Kind, ...] = ("convert", "quantize")
    threads: tuple[int, ...] = (1,)
    seed: int = 0
    toolchains: bool = True


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """What a search of a whole pipeline gave: the findings by model, and where the release and reports are."""

    folder: str
    changed: bool
    seconds: float
    models: dict[str, Findings]


def search_project(project: Project, cache: Cache, progress: Progress, wish: Wish) -> Searched:
    """Search every model of a pipeline and write the release of the winners, with a report for each model.

    Interrupting it leaves the release as it was; what was made and measured is in the cache and not done again.

    Raises
    ------
    ModelError
        A model cannot be read, or no form of it could be measured.
    DependencyError, SpecError, DeviceError
        As :func:`skerry.build.building.build_project`.
    """
    begin = time.monotonic()
    models = project.pipeline.models
    done = {name: _Model(name, model, project, cache, progress, wish) for name, model in models.items()}
    results = {name: one.search() for name, one in done.items()}
    manifests = {name: one.manifest(results[name]) for name, one in done.items()}
    files = {name: path for one in done.values() for name, path in one.files.items()}
    digest = hashlib.sha256(msgspec.json.encode([file_digest(project.path), sorted(files)])).hexdigest()
    manifest = Manifest(name=project.name, release=PREFIX + digest, models=manifests)
    lock = msgspec.json.format(msgspec.json.encode({"skerry": __version__, "models": results}), indent=2) + b"\n"
    changed = write_release(project.release_folder, manifest, lock, files)
    for name, findings in results.items():
        _write_documents(project.release_folder / "reports" / name, findings)
    return Searched(
        folder=str(project.release_folder), changed=changed, seconds=round(time.monotonic() - begin, 1), models=results
    )


def missing_toolchains(kinds: tuple[Kind, ...]) -> list[str]:
    """Return the toolchains that techniques of these kinds would use if they were installed."""
    wanted = {each.toolchain for each in techniques().values() if each.kind in kinds and each.toolchain}
    return sorted(name for name in wanted if toolchain.find(name) is None)


def _write_documents(folder: Path, findings: Findings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in documents(findings).items():
        fresh = folder / f".{name}.new"
        fresh.write_bytes(content)
        fresh.replace(folder / name)


class _Model:
    """The search of one model."""

    def __init__(self, name: str, model: Model, project: Project, cache: Cache, progress: Progress, wish: Wish) -> None:
        self._name, self._model, self._project = name, model, project
        self._cache, self._progress, self._wish = cache, progress, wish
        self._metric = model.budget.quality.metric if model.budget.quality else "agreement@10"
        self._techniques = {each.name: each for each in (kind() for kind in techniques().values())}
        self._found: Found | None = None
        self.files: dict[str, Path] = {}

    def search(self) -> Findings:
        """Search, and measure the winners on texts that the search has not seen."""
        given = find_origin(self._model, self._project.home)
        if given.kind == "null":
            raise ModelKindError("a null model has nothing to search for", where=self._name, hint="leave --time out")
        begin = time.monotonic()
        splits = self._splits()
        origin = _artifact(given, self._model)
        baseline = self._baseline(origin)
        memory = self._model.budget.memory
        limits = Limits(cores=max(self._wish.threads), memory_bytes=None if memory is None else int(HEADROOM * memory))
        metrics = tuple(dict.fromkeys((self._metric, "agreement@10", "cosine")))
        with _Teacher(baseline) as embed:
            workbench = self._workbench(splits, origin, embed, begin)
            search = Search(
                origin, self._chosen_techniques(), workbench, self._cache, budget=self._model.budget,
                metric=self._metric, threads=self._wish.threads, seconds=self._wish.seconds,
                runtimes=frozenset(each.name for each in survey() if each.usable),
            )  # fmt: skip
            with RememberedTrials(
                self._cache, baseline, splits.select.lines, limits=limits, metrics=metrics, seed=self._wish.seed
            ) as trials:
                found = search.run(trials)
        if found.chosen is None:
            reasons = [getattr(each.outcome, "reason", "") for each in found.candidates]
            raise ModelError(
                f"no form of the model could be measured: {next(filter(None, reasons), 'no technique takes it')}",
                where=self._name,
            )
        self._found = found
        with RememberedTrials(
            self._cache, baseline, splits.report.lines, limits=limits, metrics=metrics, seed=self._wish.seed
        ) as trials:
            reported = {name: self._reported(name, trials) for name in found.ladder}
            reference = trials.baseline(RUNGS[-1], starts=3)
        if isinstance(reference, Failure):
            raise ModelError(f"the model as it was given fails: {reference.reason}", where=self._name)
        candidates = tuple(reported.get(each.name, each) for each in found.candidates)
        return Findings(
            name=self._name, metric=self._metric,
            origin=Origin(source=given.source, digest=given.digest, task=self._model.task),
            baseline=Baseline(name="fp32", runtime=RUNTIMES[baseline.form], figures=plain(reference)),
            candidates=candidates, chosen=found.chosen, front=found.front, ladder=found.ladder,
            near_misses=found.near_misses, rungs=len(RUNGS), environment=self._environment(splits, found, begin),
        )  # fmt: skip

    def _splits(self) -> Splits:
        home, data = self._project.home, self._model.data
        named = data.calibrate or data.evaluate
        if named is None:
            return split(own_texts(most=MOST_TEXTS), evaluation_set().texts)
        calibrate = read_texts(home / named, most=MOST_TEXTS)
        both = data.calibrate is not None and data.evaluate is not None
        return split(calibrate, read_texts(home / str(data.evaluate), most=MOST_TEXTS) if both else None)

    def _baseline(self, origin: Artifact) -> Artifact:
        """Return the model as it was given, in fp32, in a form that a runtime runs."""
        if origin.form in RUNTIMES:
            return origin
        search = Search(
            origin, {"export-onnx": self._techniques["export-onnx"]}, Workbench(texts=(), progress=self._progress),
            self._cache, budget=type(self._model.budget)(), runtimes=frozenset({"onnxruntime"}), seconds=1e9,
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

    def _workbench(
        self, splits: Splits, origin: Artifact, embed: Callable[[Sequence[str]], Any], begin: float
    ) -> Workbench:
        def converter(name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
            return toolchain.run(name, script, request)

        return Workbench(
            texts=splits.calibrate.lines, seed=self._wish.seed, threads=max(self._wish.threads),
            deadline=begin + self._wish.seconds, progress=self._progress, embed=embed, toolchain=converter,
            teacher=origin,
            forbidden=frozenset(key(text) for part in (splits.select, splits.report) for text in part.lines),
        )  # fmt: skip

    def _reported(self, name: str, trials: RememberedTrials) -> Candidate:
        """Return a winner with the figures that it has on texts nobody has looked at before."""
        found = self._found
        assert found is not None
        before = next(each for each in found.candidates if each.name == name)
        answer = trials.run(found.artifacts[name], RUNGS[-1], threads=before.threads, starts=3)
        if isinstance(answer, Failure):
            raise ModelError(f"the winner fails when it is measured again: {answer.reason}", where=name)
        outcome = outcome_of(plain(answer), self._model.budget, rung=len(RUNGS))
        return msgspec.structs.replace(before, outcome=outcome)

    def _environment(self, splits: Splits, found: Found, begin: float) -> Environment:
        purposes: tuple[tuple[Split, Texts], ...] = (
            ("calibrate", splits.calibrate), ("select", splits.select), ("report", splits.report),
        )  # fmt: skip
        used = tuple(
            TextsUsed(split=purpose, origin=texts.origin, count=len(texts.lines), digest=texts.digest)
            for purpose, texts in purposes
        )
        command = f"skerry build {shlex.quote(os.path.relpath(self._project.path))} --time {self._wish.seconds:g}s"
        return Environment(
            machine=measure.machine(), versions={"skerry": __version__, **tool_versions(*TOOLS, *RUNTIME_PACKAGES)},
            seed=self._wish.seed, allowed_s=self._wish.seconds, spent_s=round(time.monotonic() - begin, 1),
            phases={"making": round(found.making_s, 1), "measuring": round(found.measuring_s, 1)},
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), texts=used,
            commands=(f"{command} --seed {self._wish.seed}",),
        )  # fmt: skip

    def manifest(self, findings: Findings) -> ModelManifest:
        """Return the model's part of the manifest; its variants are the rungs of the ladder. Fills :attr:`files`."""
        found = self._found
        assert found is not None
        first = found.artifacts[findings.ladder[0]]
        tokenizer = self._file("tokenizer", first.vocabulary, ".json")
        chosen = [name for name in findings.ladder if found.artifacts[name].tokenizer == first.tokenizer]
        measured = {each.name: each for each in findings.candidates}
        return ModelManifest(
            source=findings.origin.source, task=self._model.task, dimension=first.dimension, tokenizer=tokenizer,
            max_tokens=first.max_tokens, pooling=first.pooling, normalize=first.normalize,
            variants=tuple(self._variant(found.artifacts[name], measured[name], index)
                           for index, name in enumerate(chosen)),
        )  # fmt: skip

    def _variant(self, artifact: Artifact, candidate: Candidate, index: int) -> Variant:
        outcome = candidate.outcome
        assert isinstance(outcome, Measured)
        figures = outcome.figures
        name = "best" if not index else f"rung{index}"
        file = self._file(name, artifact.path, artifact.path.suffix)
        for extra in artifact.files:  # weights beside a graph, which is looked for under the graph's own stem
            if extra != artifact.file:
                self.files[str(Path(file).with_suffix(Path(extra).suffix))] = artifact.folder / extra
        agreement = figures.quality.get("agreement@10")
        return Variant(
            name=name, runtime=candidate.runtime, file=file, digest=file_digest(artifact.path), size=artifact.size,
            technique=artifact.name(), threads=candidate.threads,
            latency_p50_ms=round(figures.latency_p50_ms.value, 4),
            agreement=None if agreement is None else round(agreement.value, 4),
        )  # fmt: skip

    def _file(self, stem: str, path: Path, suffix: str) -> str:
        name = f"models/{self._name}/{stem}-{file_digest(path).removeprefix(PREFIX)[:16]}{suffix}"
        self.files[name] = path
        return name


def _artifact(given: Given, model: Model) -> Artifact:
    """Return the given model as the first artifact."""
    if given.tokenizer is None:
        raise ModelKindError("a model without a tokenizer cannot be searched", where=given.source)
    folder = given.path if given.kind == "transformer" else given.path.parent
    files = tuple(path.name for path in given.files if path.parent == folder)
    return Artifact(
        form="transformer" if given.kind == "transformer" else "onnx", folder=folder,
        file="config.json" if given.kind == "transformer" else given.path.name, files=files, source=given.digest,
        task="classification" if model.task == "classification" else "embedding", tokenizer=given.tokenizer,
        pooling=given.pooling, normalize=given.normalize, max_tokens=given.max_tokens,
    )  # fmt: skip


class _Teacher:
    """The vectors of texts by an artifact, for techniques that learn from the model that was given."""

    def __init__(self, artifact: Artifact) -> None:
        manifest = ModelManifest(
            source="teacher", task=artifact.task, tokenizer=str(artifact.tokenizer), max_tokens=artifact.max_tokens,
            pooling=artifact.pooling, normalize=artifact.normalize, dimension=artifact.dimension,
        )  # fmt: skip
        variant = Variant(name="teacher", runtime=RUNTIMES[artifact.form], file=artifact.file)
        self._load: Callable[[], Encoder] = lambda: load_encoder(artifact.folder, manifest, variant)
        self._loaded: Encoder | None = None

    def __enter__(self) -> Callable[[Sequence[str]], Any]:
        return self._embed

    def _embed(self, texts: Sequence[str]) -> Any:
        if self._loaded is None:  # most searches need no teacher
            self._loaded = self._load()
        return self._loaded.embed(texts)

    def __exit__(self, *error: object) -> None:
        if self._loaded is not None:
            self._loaded.close()
