"""The models of a pipeline: a handle for each, over what the build made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.encoder import load_encoder
from skerry.run.model import LoadedModel, ModelHandle
from skerry.run.tensors import load_tensor_model
from skerry.runtimes.memory import keep_heaps_small
from skerry.spec.errors import ModelCorruptError, ModelError, ModelKindError, ModelMissingError
from skerry.spec.manifest import Manifest, ModelManifest, Variant
from skerry.spec.pipeline import Model
from skerry.spec.summary import ModelState
from skerry.spec.words import did_you_mean

MANIFEST_FILE = "manifest.json"
BUILD_FIRST = "run `skerry build PIPELINE` first"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a build.

    Raises
    ------
    ModelMissingError
        Nothing was built there.
    ModelCorruptError
        The manifest is damaged, or of another version of Skerry.
    """
    path = folder / MANIFEST_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelMissingError("the models were not built yet", where=str(path), hint=BUILD_FIRST) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelCorruptError(
            f"this manifest is damaged: {error}", where=str(path), hint="run `skerry build PIPELINE` again"
        ) from error
    except OSError as error:
        raise ModelError(f"the manifest cannot be read: {error.strerror or error}", where=str(path)) from error


def open_models(folder: Path, manifest: Manifest, models: Mapping[str, Model]) -> Models:
    """Return a handle for each model of a pipeline; nothing is loaded yet.

    Parameters
    ----------
    folder:
        The build: ``.skerry/<name>``.
    manifest:
        What was built there.
    models:
        ``pipeline.models``. A ``runtime`` named there leaves only its variants; ``threads`` counts instead of the
        build's; ``max_tokens`` where it is less.

    Raises
    ------
    ModelMissingError
        A model, its variant for that runtime, its shadow or a file was not built.
    ModelKindError
        A model of tensors is to have a shadow, which compares vectors of texts.
    """
    keep_heaps_small()
    return Models({name: _handle(name, folder, manifest, model) for name, model in models.items()})


class Models(Mapping[str, ModelHandle]):
    """Handles by the names of the pipeline file; called with a name (``Context.models``), it loads that model."""

    def __init__(self, handles: Mapping[str, ModelHandle]) -> None:
        self._handles = dict(handles)

    def __getitem__(self, name: str) -> ModelHandle:
        return self._handles[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)

    def __call__(self, name: str) -> ModelHandle:
        """Return a model, loaded and warmed up; raises ``ModelMissingError`` for an unknown name."""
        if name not in self._handles:
            raise ModelMissingError(
                f"there is no model {name!r}",
                expected=f"one of {', '.join(self._handles) or '(none is declared under `models`)'}",
                hint=did_you_mean(name, self._handles),
            )
        handle = self._handles[name]
        handle.load()
        return handle

    @property
    def last_rung(self) -> int:
        """The lowest rung that any of the models can step to."""
        return max((len(handle.rungs) - 1 for handle in self._handles.values()), default=0)

    def step_to(self, rung: int) -> None:
        """Let every model step to a rung of its ladder, or to its last; raises what the first swap that fails does."""
        for handle in self._handles.values():
            handle.step_to(rung)

    def states(self) -> dict[str, ModelState]:
        """Return every model's state by name."""
        return {name: handle.state() for name, handle in self._handles.items()}

    def load(self) -> None:
        """Load every model that is not loaded."""
        for handle in self._handles.values():
            handle.load()

    def unload(self) -> None:
        """Free the memory of every model until it is needed again."""
        for handle in self._handles.values():
            handle.unload()

    def close(self) -> None:
        """Free everything for good; safe to call twice."""
        for handle in self._handles.values():
            handle.close()


def _handle(name: str, folder: Path, manifest: Manifest, model: Model) -> ModelHandle:
    built = manifest.models.get(name)
    if built is None:
        raise ModelMissingError(
            f"the model {name} was not built yet",
            where=str(folder / MANIFEST_FILE),
            expected=f"one of {', '.join(manifest.models) or '(none was built)'}",
            hint="run `skerry build PIPELINE` again",
        )
    variants = [variant for variant in built.variants if model.runtime in (None, variant.runtime)]
    if not variants:
        raise ModelMissingError(
            f"the model {name} was not built for the runtime {model.runtime}",
            where=str(folder),
            expected=f"one of {', '.join(sorted({variant.runtime for variant in built.variants}))}",
            hint="run `skerry build PIPELINE` again",
        )
    _require_files(folder, built)
    return ModelHandle(
        name,
        variants,
        _loader(name, folder, built, model),
        dimension=built.dimension,
        shadow=model.shadow,
        shadow_share=float(model.shadow_share),
        takes_text=built.task != "tensors",
    )


def _loader(name: str, folder: Path, built: ModelManifest, model: Model) -> Callable[[Variant], LoadedModel]:
    """Return what loads a variant: an encoder for texts, or a model that takes arrays."""
    if built.task != "tensors":
        return functools.partial(load_encoder, folder, built, threads=model.threads, max_tokens=model.max_tokens)
    if model.shadow is not None:
        raise ModelKindError(
            f"the model {name} takes arrays, and a shadow compares vectors of texts", where=f"models.{name}.shadow",
            hint="leave `shadow` out",
        )  # fmt: skip
    load: Callable[..., Any] = functools.partial(load_tensor_model, folder, built, threads=model.threads)
    return load  # its `infer` takes the arrays of items instead of texts


def _require_files(folder: Path, built: ModelManifest) -> None:
    """Say before anything runs what is missing; whether it is damaged is told by its digest when it is loaded."""
    for file in (built.tokenizer, *(file for variant in built.variants for file in variant.files())):
        if file is not None and not (folder / file).is_file():
            raise ModelMissingError("a file of the build is missing", where=str(folder / file), hint=BUILD_FIRST)
