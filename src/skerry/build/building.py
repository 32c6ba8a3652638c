"""A build: every model of a pipeline, from where it is to a release folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry import __version__
from skerry.build import export, measure
from skerry.build.artifact import Artifact
from skerry.build.cache import Cache, Entry
from skerry.build.evaluation import evaluation_set
from skerry.build.importing import Origin, find_origin
from skerry.build.progress import Progress
from skerry.build.release import write_release
from skerry.build.report import TOOLS, Lock, ModelReport, Report, VariantReport, budget_lines, tool_versions
from skerry.build.splits import split
from skerry.build.technique import Workbench
from skerry.build.techniques.onnx_dynamic import OnnxDynamic
from skerry.build.texts import Texts, own_texts, read_texts
from skerry.run.digest import PREFIX, file_digest
from skerry.run.encoder import load_encoder
from skerry.spec.errors import ModelKindError
from skerry.spec.manifest import Manifest, ModelManifest, Variant
from skerry.spec.pipeline import Data, Model
from skerry.spec.reading import Project

STEPS_PER_MODEL = 4
_ONNX = "model.onnx"

# Seconds per 100 MB of fp32 weights, and for starting the libraries, on a 2-core x86-64; what is said beforehand.
_EXPORT_S, _QUANTIZE_S, _MEASURE_S, _START_S = 6.0, 3.0, 6.0, 5.0


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A built model: what goes into the manifest and the lock, and the files by their names in the release."""

    manifest: ModelManifest
    report: ModelReport
    files: dict[str, Path]


def build_project(project: Project, cache: Cache, progress: Progress, *, keep_fp32: bool = False) -> Report:
    """Build every model of a pipeline and write its release folder.

    Interrupting it leaves the release as it was; what was finished is in the cache and not made again.

    Parameters
    ----------
    keep_fp32:
        Also keep each model's fp32 form, as the first rung of its ladder. A model whose ``shadow`` is ``fp32`` keeps
        it in any case.

    Raises
    ------
    ModelError
        A model is missing, damaged or of a kind that cannot be built; a subclass says which.
    DependencyError
        A package that a step needs is not installed.
    SpecError
        The file of texts is missing or wrong.
    DeviceError
        The disk is full, or a folder cannot be written.
    """
    start = time.monotonic()
    built = {
        name: _build_model(name, model, project.home, cache, progress, keep_fp32=keep_fp32)
        for name, model in project.pipeline.models.items()
    }
    pipeline = file_digest(project.path)
    manifest = Manifest(
        name=project.name, release=_release_digest(pipeline, built),
        models={name: one.manifest for name, one in built.items()},
    )  # fmt: skip
    lock = Lock(
        skerry=__version__, name=project.name, release=manifest.release, pipeline=pipeline,
        machine=measure.machine(), tools=tool_versions(*TOOLS),
        models={name: one.report for name, one in built.items()},
    )  # fmt: skip
    body = msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n"
    files = {name: path for one in built.values() for name, path in one.files.items()}
    changed = write_release(project.release_folder, manifest, body, files)
    return Report(
        folder=str(project.release_folder), changed=changed, seconds=round(time.monotonic() - start, 3), lock=lock
    )


def _release_digest(pipeline: str, built: Mapping[str, Built]) -> str:
    """Return the digest over the pipeline file and every file of every model."""
    files = [[name, *sorted(one.files)] for name, one in sorted(built.items())]  # file names hold their digests
    return PREFIX + hashlib.sha256(msgspec.json.encode([pipeline, files])).hexdigest()


def _build_model(name: str, model: Model, home: Path, cache: Cache, progress: Progress, *, keep_fp32: bool) -> Built:
    with progress.step(f"{name}: find {model.from_}"):
        origin = find_origin(model, home)
    if origin.kind == "null":
        return _build_null(name, model, origin)
    if origin.tokenizer is None or origin.kind not in {"transformer", "onnx"}:
        raise ModelKindError(
            "only a text model from weights or from ONNX can be built without a search", where=name,
            hint="give the search some time: skerry build PIPELINE --time 3min",
        )  # fmt: skip
    return _TextBuild(name, model, origin, home, cache, progress).run(keep_fp32=keep_fp32 or model.shadow == "fp32")


def _build_null(name: str, model: Model, origin: Origin) -> Built:
    """Take null models as they are, each a rung of the ladder in the order of their names."""
    variants = tuple(_null_variant(name, path, model.threads) for path in origin.files)
    bare = ModelManifest(source=origin.source, task="null", max_tokens=origin.max_tokens, variants=variants)
    dimension = _dimension(origin.files[0].parent, bare, origin.files[0].name, "null")
    report = ModelReport(
        source=origin.source, source_digest=origin.digest, variants=tuple(_variant_report(one) for one in variants)
    )
    return Built(
        manifest=msgspec.structs.replace(bare, dimension=dimension), report=report,
        files={variant.file: path for variant, path in zip(variants, origin.files, strict=True)},
    )  # fmt: skip


def _null_variant(model: str, path: Path, threads: int) -> Variant:
    name = path.name.removesuffix(".json").removesuffix(".null")
    digest = file_digest(path)
    return Variant(
        name=name, runtime="null", technique="none", threads=threads, size=path.stat().st_size, digest=digest,
        file=_file_name(model, name, digest, ".null.json"),
    )  # fmt: skip


class _TextBuild:
    """The build of one text model; each step is looked up in the cache and made only when it is asked for."""

    def __init__(self, name: str, model: Model, origin: Origin, home: Path, cache: Cache, progress: Progress) -> None:
        self._name, self._model, self._origin = name, model, origin
        self._cache, self._progress = cache, progress
        self._fp32_entry: Entry | None = None
        self._weight_mb = sum(path.stat().st_size for path in origin.files) / 1e6
        self._fp32_key = {
            "step": "export", "version": export.VERSION, "source": origin.digest, "task": model.task,
            "tools": tool_versions("onnx", "torch", "transformers") if origin.kind == "transformer" else {},
        }  # fmt: skip
        self._calibrate, self._report = _texts(model.data, home)
        self._int8_key = {
            "step": OnnxDynamic.name, "version": OnnxDynamic.version, "source": self._fp32_key,
            "texts": self._calibrate.digest, "max_tokens": origin.max_tokens,
            "tools": tool_versions("onnx", "onnxruntime"),
        }  # fmt: skip

    def run(self, *, keep_fp32: bool) -> Built:
        """Return the model with the variants int8 and, where it is to be kept, fp32 before it."""
        texts = self._report
        chosen, key = self._chosen()
        bare = ModelManifest(
            source=self._origin.source, task=self._model.task, tokenizer=self._tokenizer_name(),
            max_tokens=self._origin.max_tokens, pooling=self._origin.pooling, normalize=self._origin.normalize,
        )  # fmt: skip
        facts = self._figures(bare, chosen, key, texts)
        reference = msgspec.convert(facts["reference"], measure.Figures)
        figures = msgspec.convert(facts["candidate"], measure.Figures)
        name = "int8" if key is self._int8_key else "original"
        found = [(self._variant(name, chosen, figures), chosen, figures)]
        if keep_fp32 and name == "int8":
            fp32 = self._fp32()
            found.insert(0, (self._variant("fp32", fp32, reference), fp32, reference))
        return self._built(bare, facts["dimension"], found, reference, texts)

    def _built(
        self,
        bare: ModelManifest,
        dimension: int,
        found: list[tuple[Variant, Entry, measure.Figures]],
        reference: measure.Figures,
        texts: Texts,
    ) -> Built:
        tokenizer = self._origin.tokenizer
        assert tokenizer is not None
        assert bare.tokenizer is not None
        reports = tuple(_variant_report(variant, figures) for variant, _, figures in found)
        report = ModelReport(
            source=self._origin.source, source_digest=self._origin.digest, reference=reference, texts=texts.origin,
            texts_digest=texts.digest, variants=reports,
            budget=budget_lines(self._model.budget, reports[-1], tokenizer.stat().st_size),
        )  # fmt: skip
        variants = tuple(variant for variant, _, _ in found)
        files = {variant.file: entry.file(_ONNX) for variant, entry, _ in found} | {bare.tokenizer: tokenizer}
        return Built(
            manifest=msgspec.structs.replace(bare, dimension=dimension, variants=variants), report=report, files=files
        )

    def _chosen(self) -> tuple[Entry, dict[str, Any]]:
        """Return the quantized entry and its key, or a model that came quantized, as it is."""
        if self._origin.kind == "onnx" and self._fp32().note.facts["quantized"]:
            return self._fp32(), self._fp32_key
        return self._int8(), self._int8_key

    def _fp32(self) -> Entry:
        if self._fp32_entry is None and self._origin.kind == "onnx":
            self._fp32_entry = self._step("read", 0.0, self._fp32_key, self._read_onnx)
        elif self._fp32_entry is None:
            self._fp32_entry = self._step("export to ONNX", self._about(_EXPORT_S), self._fp32_key, self._export)
        return self._fp32_entry

    def _int8(self) -> Entry:
        def make(folder: Path) -> None:
            source = self._fp32().file(_ONNX)
            with self._announced("quantize to int8", self._about(_QUANTIZE_S)):
                OnnxDynamic().apply(self._artifact(source), {}, self._workbench(), folder)

        return self._cached("quantize to int8", self._int8_key, make)

    def _artifact(self, path: Path) -> Artifact:
        origin = self._origin
        assert origin.tokenizer is not None
        return Artifact(
            form="onnx", folder=path.parent, file=path.name, files=(path.name,), source=origin.digest,
            task=self._model.task, tokenizer=origin.tokenizer, pooling=origin.pooling, normalize=origin.normalize,
            max_tokens=origin.max_tokens,
        )  # fmt: skip

    def _workbench(self) -> Workbench:
        return Workbench(texts=self._calibrate.lines, threads=self._model.threads, progress=self._progress)

    def _figures(self, bare: ModelManifest, chosen: Entry, chosen_key: Any, texts: Texts) -> dict[str, Any]:
        """Return the figures of reference and candidate, and the dimension, from the cache or a measurement."""
        threads = self._model.threads
        key = {
            "step": "measure", "version": measure.VERSION, "reference": self._fp32_key, "candidate": chosen_key,
            "texts": texts.digest, "machine": measure.machine_digest(), "threads": threads,
            "how": [bare.max_tokens, bare.pooling, bare.normalize],
            "tools": tool_versions("numpy", "onnxruntime", "tokenizers"),
        }  # fmt: skip

        def make(folder: Path) -> dict[str, Any]:
            fp32 = self._fp32()
            with self._announced(f"measure on {len(texts.lines)} texts", self._about(_MEASURE_S)):
                return _measured(self._origin, bare, (fp32, chosen), texts, threads)

        return self._cached("measure", key, make).note.facts

    def _step(self, what: str, about_s: float, key: dict[str, Any], make: Callable[[Path], Any]) -> Entry:
        def announced(folder: Path) -> Any:
            with self._announced(what, about_s):
                return make(folder)

        return self._cached(what, key, announced)

    def _cached(self, what: str, key: dict[str, Any], make: Callable[[Path], Any]) -> Entry:
        entry = self._cache.entry(key, make)
        if not entry.fresh:
            self._progress.found(f"{self._name}: {what}")
        return entry

    def _announced(self, what: str, about_s: float) -> Any:
        return self._progress.step(f"{self._name}: {what}", about_s)

    def _about(self, per_100_mb: float) -> float:
        return _START_S + per_100_mb * self._weight_mb / 100

    def _export(self, folder: Path) -> dict[str, Any]:
        export.export_transformer(self._origin, self._model.task, folder / _ONNX)
        return {"quantized": False}

    def _read_onnx(self, folder: Path) -> dict[str, Any]:
        return {"quantized": export.normalize_onnx(self._origin, folder / _ONNX)}

    def _tokenizer_name(self) -> str:
        assert self._origin.tokenizer is not None
        return _file_name(self._name, "tokenizer", file_digest(self._origin.tokenizer), ".json")

    def _variant(self, name: str, entry: Entry, figures: measure.Figures) -> Variant:
        technique = {"int8": OnnxDynamic.name, "fp32": "none", "original": "none"}[name]
        digest = entry.digest(_ONNX)
        return Variant(
            name=name, runtime="onnxruntime", file=_file_name(self._name, name, digest, ".onnx"), digest=digest,
            size=entry.file(_ONNX).stat().st_size, technique=technique, threads=self._model.threads,
            latency_p50_ms=figures.latency_p50_ms, agreement=figures.agreement,
        )  # fmt: skip


def _measured(
    origin: Origin, bare: ModelManifest, entries: tuple[Entry, Entry], texts: Texts, threads: int
) -> dict[str, Any]:
    """Compare fp32 and the candidate where they lie in the cache."""
    manifest = msgspec.structs.replace(bare, tokenizer=str(origin.tokenizer))
    dimension = _dimension(entries[0].folder, manifest, _ONNX, "onnxruntime")
    manifest = msgspec.structs.replace(manifest, dimension=dimension)
    fp32, candidate = (
        (entry.folder, Variant(name=name, runtime="onnxruntime", file=_ONNX, threads=threads))
        for name, entry in zip(("fp32", "candidate"), entries, strict=True)
    )
    reference, figures = measure.compare(fp32, candidate, manifest, texts.lines)
    return {
        "reference": msgspec.to_builtins(reference), "candidate": msgspec.to_builtins(figures), "dimension": dimension
    }  # fmt: skip


def _dimension(folder: Path, manifest: ModelManifest, file: str, runtime: str) -> int:
    """Return how many numbers a model's vectors have; raises ``ModelKindError`` when it is no text encoder."""
    encoder = load_encoder(folder, manifest, Variant(name="first", runtime=runtime, file=file))
    try:
        return encoder.dimension
    finally:
        encoder.close()


def _texts(data: Data, home: Path) -> tuple[Texts, Texts]:
    """Return the texts to calibrate by and other ones to report on: the user's, or what every Python brings."""
    named = [read_texts(home / Path(file).expanduser()) for file in (data.calibrate, data.evaluate) if file is not None]
    splits = split(*named) if named else split(own_texts(), evaluation_set().texts)
    if len(named) != 1:
        return splits.calibrate, splits.report
    rest = (*splits.select.lines, *splits.report.lines)  # nothing is selected here
    return splits.calibrate, Texts(origin=f"{named[0].origin}, {len(rest)} texts to report on", lines=rest)


def _file_name(model: str, stem: str, digest: str, suffix: str) -> str:
    return f"models/{model}/{stem}-{digest.removeprefix(PREFIX)[:16]}{suffix}"


def _variant_report(variant: Variant, figures: measure.Figures | None = None) -> VariantReport:
    return VariantReport(
        name=variant.name, runtime=variant.runtime, technique=variant.technique, file=variant.file,
        digest=variant.digest, size=variant.size, figures=figures,
    )  # fmt: skip
