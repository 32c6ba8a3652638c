"""An origin: where a model comes from, and everything of it that decides what is built.

A folder is one as Hugging Face writes it (``config.json``, weights, ``tokenizer.json``, and where it is a
sentence-transformers model ``modules.json``, ``1_Pooling/config.json`` and ``sentence_bert_config.json``) or a
SavedModel of TensorFlow. A file is judged by its first bytes and never by its name.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Literal

import msgspec

from skerry.build.architecture import CONFIG, Architecture, read_architecture, read_json
from skerry.build.artifact import FOLDERS, Artifact
from skerry.build.locating import locate
from skerry.build.weights import find_weights, refused_pickle
from skerry.run.digest import PREFIX, file_digest
from skerry.run.pooling import Pooling
from skerry.runtimes.modelfile import KERAS, LFS_POINTER, LITERT, ONNX, SAFETENSORS, TORCH, ZIP, kind_of
from skerry.runtimes.modelfile import Kind as FileKind
from skerry.spec.errors import ModelCorruptError, ModelError, ModelKindError, ModelMissingError, SpecError
from skerry.spec.pipeline import Model

Kind = Literal["transformer", "saved-model", "keras", "torch-program", "onnx", "litert", "null"]
"""What can be given."""

TOKENIZER = "tokenizer.json"
SAVED_MODEL = "saved_model.pb"

_MANY_TOKENS = 2**31
"""More than any model takes: what a file that tells no limit is taken to allow."""

_TAKEN: dict[FileKind, Kind] = {ONNX: "onnx", LITERT: "litert", KERAS: "keras"}
"""What a file becomes, by what it looks like."""

_GRAPHLESS = "weights alone are no model: name the folder that holds them and config.json, or export the model to ONNX"

_PROGRAM_MARKS = ("archive_format", "serialized_exported_program.json")
"""What an archive of ``torch.export.save`` holds, by the newer and the older of its formats."""


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
    tokenizer:
        The tokenizer of a model of texts, ``None`` for one of tensors.
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
        An architecture or file that cannot be built, or one that would have to be unpickled.
    ModelCorruptError
        A configuration or weights that are damaged.
    SpecError
        A part of the model has to be named, or is not there.
    DependencyError
        ``hf://`` without the package huggingface_hub.
    """
    path = locate(model.from_, home, pickles=model.allow_pickle)
    if model.task == "null":
        return _null_origin(model, path)
    if not path.is_dir():
        return _file_origin(model, path)
    if (path / SAVED_MODEL).is_file():
        return _saved_origin(model, path)
    return _folder_origin(model, path)


def artifact_of(given: Origin, model: Model) -> Artifact:
    """Return the given model as the first artifact; raises ``ModelKindError`` for texts without a tokenizer."""
    if given.tokenizer is None and model.task != "tensors":
        raise ModelKindError(
            "a model without a tokenizer takes no text", where=given.source, hint="say `task: tensors`"
        )  # fmt: skip
    assert given.kind != "null"
    is_folder = given.kind in FOLDERS
    folder = given.path if is_folder else given.path.parent
    inner = given.kind == "saved-model"  # whose weights lie in a folder of their own
    files = [path for path in given.files if path.parent == folder or (inner and path.is_relative_to(folder))]
    names = tuple(path.relative_to(folder).as_posix() for path in files)
    first = "config.json" if given.kind == "transformer" else names[0] if is_folder else given.path.name
    how = [given.digest, model.task, given.part, given.pooling, given.normalize, given.max_tokens]
    source = PREFIX + hashlib.sha256(msgspec.json.encode(how)).hexdigest()  # all that what is made of it depends on
    return Artifact(
        form=given.kind, folder=folder, file=first, files=names, source=source, part=given.part, task=model.task,
        tokenizer=given.tokenizer, pooling=given.pooling, normalize=given.normalize, max_tokens=given.max_tokens,
    )  # fmt: skip


def _folder_origin(model: Model, folder: Path) -> Origin:
    told = read_architecture(folder)
    part = told.chosen(model.part, folder / CONFIG)
    takes_text = model.task != "tensors"
    if takes_text and part not in told.texts:
        raise ModelKindError(
            f"this model ({told.family}) takes no text", where=str(folder / CONFIG),
            expected="a text encoder", hint="`task: tensors` takes what the model itself takes",
        )  # fmt: skip
    weights = find_weights(folder, pickles=model.allow_pickle)
    tokenizer = _tokenizer(folder, folder) if takes_text else None
    notes = _notes(folder) if takes_text else [folder / CONFIG]
    files = (*weights, *((tokenizer,) if tokenizer else ()), *notes)
    # A tower gives one vector for a text, and a classifier one row of scores.
    is_pooled = model.task == "classification" or part not in {"", "encoder"}
    return Origin(
        source=model.from_, kind="transformer", path=folder, part=part, files=files, digest=_digest(folder, files),
        tokenizer=tokenizer, architecture=told.family, max_tokens=_most_tokens(model, folder, told, part),
        pooling="none" if is_pooled else _pooling(folder),
        normalize=model.task != "classification" and _normalizes(folder),
    )  # fmt: skip


def _notes(folder: Path) -> list[Path]:
    """Return the files that tell how texts become vectors."""
    found = [folder / name for name in (CONFIG, "modules.json", "1_Pooling/config.json")]
    found.append(next((path for path in _limits(folder) if path.exists()), _limits(folder)[0]))
    return [path for path in found if path.exists()]


def _limits(folder: Path) -> tuple[Path, Path]:
    """Return the files that may tell the longest text; the first that is there counts."""
    return folder / "sentence_bert_config.json", folder / "tokenizer_config.json"


def _file_origin(model: Model, path: Path) -> Origin:
    kind = _kind_of_file(path)
    if kind == "torch-program" and not model.allow_pickle:
        raise refused_pickle(path, "a torch.export program may hold pickles")
    if kind in {"keras", "torch-program"}:
        return _tensors_origin(model, kind, path, (path,))
    if model.part is not None:
        raise SpecError("a file is one graph and has no parts", where=str(path), expected="no `part`")
    outside = tuple(sorted(path.parent.glob(f"{path.name}[._]data*")))
    if model.task == "tensors":
        return _tensors_origin(model, kind, path, (path, *outside))
    folders = (path.parent, path.parent.parent) if path.parent.name == "onnx" else (path.parent,)
    home = next((folder for folder in folders if (folder / TOKENIZER).is_file()), folders[0])
    tokenizer = _tokenizer(home, path.parent)
    files = (path, *outside, tokenizer, *(note for note in (home / "1_Pooling/config.json",) if note.exists()))
    classifies = model.task == "classification"
    return Origin(
        source=model.from_, kind=kind, path=path, files=files, digest=_digest(home, files), tokenizer=tokenizer,
        max_tokens=min(model.max_tokens, _trained_tokens(home, _MANY_TOKENS)),
        pooling="none" if classifies else _pooling(home), normalize=not classifies and _normalizes(home),
    )  # fmt: skip


def _saved_origin(model: Model, folder: Path) -> Origin:
    variables = sorted(path for name in ("variables", "assets") for path in (folder / name).glob("*"))
    return _tensors_origin(model, "saved-model", folder, (folder / SAVED_MODEL, *variables), base=folder)


def _tensors_origin(
    model: Model, kind: Kind, path: Path, files: tuple[Path, ...], *, base: Path | None = None
) -> Origin:
    """Return a model that takes arrays; raises ``ModelKindError`` where it was said to take text."""
    if model.task != "tensors":
        raise ModelKindError(
            f"this model ({kind}) is taken as one of tensors", where=str(path), expected="`task: tensors`",
            hint="for a text encoder, name its folder of weights, or an ONNX or LiteRT file beside tokenizer.json",
        )  # fmt: skip
    return Origin(
        source=model.from_, kind=kind, path=path, part=model.part or "", files=files,
        digest=_digest(base or path.parent, files), max_tokens=model.max_tokens, pooling="none", normalize=False,
    )  # fmt: skip


def _null_origin(model: Model, path: Path) -> Origin:
    files = tuple(sorted(path.glob("*.null.json"))) if path.is_dir() else (path,)
    if not files:
        raise ModelMissingError("the folder holds no null model", where=str(path), expected="*.null.json")
    return Origin(
        source=model.from_, kind="null", path=path, files=files, digest=_digest(path, files),
        max_tokens=model.max_tokens,
    )  # fmt: skip


def _kind_of_file(path: Path) -> Kind:
    """Return what a file is taken for; one whose bytes say nothing is taken for ONNX, whose reader judges it."""
    try:
        kind = kind_of(path)
    except OSError as error:
        raise ModelError(f"the model cannot be read: {error.strerror or error}", where=str(path)) from error
    if kind is LFS_POINTER:
        raise ModelMissingError("this is only a Git LFS pointer", where=str(path), hint=kind.advice)
    if kind is None:
        return "onnx"
    if kind in {TORCH, ZIP} and _is_program(path):
        return "torch-program"
    if kind not in _TAKEN:
        raise ModelKindError(
            f"this looks like {kind.what}", where=str(path), expected="an ONNX model or a model's folder",
            hint=_GRAPHLESS if kind in {TORCH, SAFETENSORS} else kind.advice,
        )  # fmt: skip
    return _TAKEN[kind]


def _is_program(path: Path) -> bool:
    """Tell whether an archive is of ``torch.export.save``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        names = []  # cut short: the list of names stands at its end
    return path.suffix == ".pt2" or any(name.endswith(_PROGRAM_MARKS) for name in names)


def _tokenizer(folder: Path, asked: Path) -> Path:
    path = folder / TOKENIZER
    if not path.is_file():
        raise ModelMissingError(
            f"the model has no {TOKENIZER}",
            where=str(asked),
            hint="write one with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER);"
            " `task: tensors` needs none",
        )
    return path


def _most_tokens(model: Model, folder: Path, told: Architecture, part: str) -> int:
    """Return the least of what the user asks for, what the model was trained with and what it can take."""
    positions = told.positions.get(part) or _MANY_TOKENS
    return min(model.max_tokens, _trained_tokens(folder, positions), positions)


def _trained_tokens(folder: Path, positions: int) -> int:
    for path, key in zip(_limits(folder), ("max_seq_length", "model_max_length"), strict=True):
        if path.exists():
            told = read_json(path).get(key)
            # Tokenizers without a limit write a number of thirty digits.
            return told if isinstance(told, int) and 0 < told < _MANY_TOKENS else positions
    return positions


def _pooling(folder: Path) -> Pooling:
    """Read ``1_Pooling/config.json``; without one, the mean over tokens is taken, as sentence-transformers does."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    config = read_json(path)
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


def _digest(base: Path, files: tuple[Path, ...]) -> str:
    """Return one digest over the names and contents of files."""
    parts = {os.path.relpath(path, base): file_digest(path) for path in files}
    return PREFIX + hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
