"""Loading: from what a user names - a project, a folder, a model file - to servables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.run.digest import require_digest
from skerry.run.encoder import IDS, Encoder, load_encoder
from skerry.run.models import read_manifest
from skerry.run.serve.servable import Servable
from skerry.run.serve.tensors import TensorServable
from skerry.run.serve.texts import Classifier, TextServable
from skerry.run.stages.classify import ClassifyOptions
from skerry.run.tokens import VocabularyTokens
from skerry.runtimes.memory import keep_heaps_small
from skerry.runtimes.modelfile import kind_of
from skerry.spec.errors import ModelCorruptError, ModelKindError, ModelMissingError, SpecMissingError, UsageError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.pipeline import Model
from skerry.spec.plugins import load_plugin, plugins
from skerry.spec.ports import Session
from skerry.spec.reading import PIPELINE_FILE, Project, read_project
from skerry.spec.words import did_you_mean

TOKENIZER = "tokenizer.json"
_TAKEN = "a project folder, a pipeline file, a folder with a model, or a model file"


def load_servables(
    what: Path, *, name: str | None = None, variant: str | None = None, threads: int | None = None
) -> list[Servable]:
    """Load everything that is to be served.

    Parameters
    ----------
    what:
        A project folder or pipeline file, of which every model is served; a folder with one model file, which is a
        text model where a ``tokenizer.json`` lies beside it; or a model file, which is served by its own tensors.
    name:
        The name that clients ask for, where one model is served; by default the project's, or the file's.
    variant:
        Another variant of a project's model than the best.
    threads:
        Threads of one run, instead of what the build noted (1 for a plain file).

    Raises
    ------
    SpecError, SpecMissingError
        There is nothing, or the pipeline file is wrong.
    ModelError
        A model is missing, damaged, or not one that can be served.
    UsageError
        A name for several models.
    """
    keep_heaps_small()
    try:
        if not what.exists():
            raise SpecMissingError(f"there is no {what}", expected=_TAKEN)
        is_project = (what / PIPELINE_FILE).exists() if what.is_dir() else what.suffix in {".yaml", ".yml"}
    except OSError as error:
        raise SpecMissingError(f"cannot read {what}: {error.strerror or error}", expected=_TAKEN) from error
    if is_project:
        return _project(read_project(what), name, variant, threads)
    if variant is not None:
        raise UsageError("--variant is for a project: a file has no variants")
    if what.is_dir():
        return [_folder(what, name, threads or 1)]
    return [TensorServable(name or _stem(what), _session(what, threads or 1))]


def _project(project: Project, name: str | None, variant: str | None, threads: int | None) -> list[Servable]:
    models = project.pipeline.models
    if not models:
        raise ModelMissingError(
            "this project has no models", where=str(project.path), expected="at least one under `models`"
        )
    if name is not None and len(models) > 1:
        raise UsageError(f"one name cannot stand for {', '.join(models)}", hint="leave --name out")
    manifest = read_manifest(project.release_folder)
    loaded: list[Servable] = []
    try:
        for key, model in models.items():
            built = manifest.models.get(key)
            if built is None:
                raise ModelMissingError(
                    f"the model {key} was not built yet", where=str(project.release_folder),
                    hint="run `skerry build PIPELINE` again",
                )  # fmt: skip
            loaded.append(_model(project, key, name or key, model, built, variant, threads))
    except BaseException:
        for servable in loaded:
            servable.close()
        raise
    return loaded


def _model(
    project: Project, key: str, name: str, model: Model, built: ModelManifest, variant: str | None, threads: int | None
) -> Servable:
    folder = project.release_folder
    chosen = _variant(key, model, built, variant)
    if built.task == "tensors":
        for file, digest in chosen.files().items():
            require_digest(folder / file, digest)
        runtime = load_plugin("skerry.runtimes", chosen.runtime, where=str(folder))()
        session = runtime.load(folder / chosen.file, threads=threads or model.threads or chosen.threads)
        return TensorServable(name, session)
    encoder = load_encoder(folder, built, chosen, threads=threads or model.threads, max_tokens=model.max_tokens)
    return TextServable(name, encoder, chosen.runtime, _classifier(project, key))


def _variant(key: str, model: Model, built: ModelManifest, wanted: str | None) -> Variant:
    """Return the variant of that name, or the best of the runtime that the pipeline file names."""
    found = [each for each in built.variants if model.runtime in (None, each.runtime)]
    found = [each for each in found if wanted in (None, each.name) and (wanted or each.name != model.shadow)]
    if not found:
        names = [each.name for each in built.variants]
        raise ModelMissingError(
            f"the model {key} has no such variant", expected=f"one of {', '.join(names) or '(none was built)'}",
            hint=did_you_mean(wanted or "", names),
        )  # fmt: skip
    return found[0]


def _classifier(project: Project, model: str) -> Classifier | None:
    """Return the first ``classify`` stage that uses the model."""
    for entry in project.stages:
        if entry.kind == "classify":
            options = project.document.convert(ClassifyOptions, entry.path, value=entry.options)
            if options.model == model:
                return Classifier(options, project.home)
    return None


def _folder(folder: Path, name: str | None, threads: int) -> Servable:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _runtime_of(path)]
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise ModelMissingError(
            f"a folder is served when it holds one model file; found: {found}", where=str(folder), expected=_TAKEN
        )
    stem = _stem(files[0])
    title = name or (folder.resolve().name if stem == "model" else stem)
    session = _session(files[0], threads)
    takes = {spec.name for spec in session.describe().inputs}
    if not (folder / TOKENIZER).is_file() or IDS not in takes:
        return TensorServable(title, session)
    try:
        return TextServable(title, _encoder(folder, session), session.describe().runtime)
    except BaseException:
        session.close()
        raise


def _encoder(folder: Path, session: Session) -> Encoder:
    """Return the text encoder of a folder that Sentence Transformers could have written."""
    info = session.describe()
    is_pooled = all(len(spec.shape) != 3 for spec in info.outputs)
    longest = int(_setting(folder / "sentence_bert_config.json", "max_seq_length", 256))
    sizes = [spec.shape[1] for spec in info.inputs if spec.name == IDS and len(spec.shape) == 2]
    tokens = VocabularyTokens(folder / TOKENIZER, min([longest, *(size for size in sizes if isinstance(size, int))]))
    modules = folder / "modules.json"
    manifest = ModelManifest(
        source=str(folder),
        task="embedding",
        dimension=0 if _has_dimension(session) else int(_setting(folder / "config.json", "hidden_size", 0)),
        tokenizer=TOKENIZER,
        max_tokens=longest,
        pooling="none" if is_pooled else _pooling(folder),
        normalize=not is_pooled and (not modules.is_file() or b"Normalize" in modules.read_bytes()),
    )
    return Encoder(manifest, session, tokens)


def _has_dimension(session: Session) -> bool:
    return all(spec.shape and isinstance(spec.shape[-1], int) for spec in session.describe().outputs)


def _pooling(folder: Path) -> Literal["mean", "cls", "max"]:
    path = folder / "1_Pooling" / "config.json"
    if _setting(path, "pooling_mode_cls_token", False):
        return "cls"
    return "max" if _setting(path, "pooling_mode_max_tokens", False) else "mean"


def _setting(path: Path, key: str, default: Any) -> Any:
    """Return one value of a JSON file, or the default where the file or the key is missing."""
    if not path.is_file():
        return default
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Any]).get(key, default)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ModelCorruptError(f"the settings beside the model cannot be read: {error}", where=str(path)) from error
    return found if isinstance(found, type(default)) else default


def _session(path: Path, threads: int) -> Session:
    runtime = _runtime_of(path)
    if not runtime:
        kind = kind_of(path)
        raise ModelKindError(
            f"this is {kind.what if kind else 'no model that is known'}", where=str(path), expected=_TAKEN,
            hint=kind.advice if kind else "",
        )  # fmt: skip
    session: Session = load_plugin("skerry.runtimes", runtime, where=str(path))().load(path, threads=threads)
    return session


def _runtime_of(path: Path) -> str:
    """Return the runtime that takes a file: by what is in it, or else by its ending; empty for none."""
    known = plugins("skerry.runtimes")
    kind = kind_of(path)
    if kind is not None:
        return kind.runtime if kind.runtime in known else ""
    return next((name for name, ends in _endings() if path.name.endswith(ends)), "")


def _endings() -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in plugins("skerry.runtimes"):
        yield name, tuple(load_plugin("skerry.runtimes", name).suffixes)


def _stem(path: Path) -> str:
    for _, endings in _endings():
        for ending in endings:
            if path.name.endswith(ending) and path.name != ending:
                return path.name.removesuffix(ending)
    return path.stem
