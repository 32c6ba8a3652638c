"""An artifact: one form of a model on its way through a build, and the steps that led to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.run.digest import PREFIX
from skerry.run.pooling import Pooling
from skerry.spec.errors import ModelKindError
from skerry.spec.pipeline import Task

Form = Literal[
    "transformer", "saved-model", "keras", "torch-program", "onnx", "litert", "openvino", "executorch", "tensorrt"
]
"""``transformer`` is a folder with weights as Hugging Face writes it, ``saved-model`` a folder of TensorFlow, ``keras``
a file of Keras, ``torch-program`` what ``torch.export.save`` writes; the others are files for one runtime."""

RUNTIMES: dict[Form, str] = {
    "onnx": "onnxruntime",
    "litert": "litert",
    "openvino": "openvino",
    "executorch": "executorch",
    "tensorrt": "tensorrt",
}
"""The runtime that runs a form; those that are not here have to be exported first."""

FOLDERS: frozenset[Form] = frozenset({"transformer", "saved-model"})
"""The forms whose folder is what is read, and not one file in it."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One technique with its settings.

    Parameters
    ----------
    version:
        Counts changes of the technique's code.
    circumstances:
        Digest of what else decided the result: of a conversion, the packages of its toolchain; of a training, the time
        that it had and the texts that it might not see. Empty for all others.
    """

    technique: str
    version: int
    settings: dict[str, Any] = {}
    circumstances: str = ""

    def label(self) -> str:
        """Return the step in words, as ``onnx-dynamic(exclude=2)``."""
        shown = ", ".join(f"{name}={_short(value)}" for name, value in sorted(self.settings.items()))
        return f"{self.technique}({shown})" if shown else self.technique


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A form of a model.

    Parameters
    ----------
    form:
        What kind of file or folder it is.
    folder, file:
        Where it lies: ``folder / file`` is what a runtime loads (for the forms of :data:`FOLDERS`, the folder itself is
        meant).
    files:
        All the files of ``folder`` that belong to it, ``file`` included.
    source:
        The digest of the model that was given and of how it is to be used: pooling, longest text, task, part.
    steps:
        What was done to it since, in order; with ``source`` they decide the content.
    part:
        Which graph of the model is meant where it has several, such as ``vision`` of CLIP.
    tokenizer:
        The tokenizer that goes with it; ``None`` for a model of tensors. Trimming the vocabulary makes a new one.
    """

    form: Form
    folder: Path
    file: str
    files: tuple[str, ...]
    source: str
    steps: tuple[Step, ...] = ()
    part: str = ""
    task: Task = "embedding"
    tokenizer: Path | None = None
    pooling: Pooling = "mean"
    normalize: bool = True
    max_tokens: int = 256
    dimension: int = 0

    @property
    def path(self) -> Path:
        """What a runtime loads, or a converter reads."""
        return self.folder if self.form in FOLDERS else self.folder / self.file

    @property
    def vocabulary(self) -> Path:
        """The tokenizer of a model of texts; raises ``ModelKindError`` for one of tensors."""
        if self.tokenizer is None:
            raise ModelKindError("this model takes no text", where=str(self.path))
        return self.tokenizer

    @property
    def size(self) -> int:
        """Bytes on disk of all its files."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    @property
    def size_with_tokenizer(self) -> int:
        """Bytes on disk, the tokenizer included once."""
        if self.tokenizer is None:
            return self.size
        inside = {(self.folder / name).resolve() for name in self.files}
        apart = self.tokenizer.is_file() and self.tokenizer.resolve() not in inside
        return self.size + (self.tokenizer.stat().st_size if apart else 0)

    @property
    def key(self) -> dict[str, Any]:
        """What decides the content, for the cache."""
        part = {"part": self.part} if self.part else {}
        return {"source": self.source, **part, "steps": msgspec.to_builtins(self.steps)}

    @property
    def digest(self) -> str:
        """The digest of :attr:`key`: two equal ones have equal content."""
        return PREFIX + hashlib.sha256(msgspec.json.encode(self.key, order="deterministic")).hexdigest()

    def noted(self) -> dict[str, Any]:
        """Return what a cache notes of it beside its key, so that :meth:`found` can give it again."""
        own = self.tokenizer is not None and self.tokenizer.parent == self.folder
        return {
            "form": self.form, "file": self.file, "files": list(self.files), "pooling": self.pooling,
            "normalize": self.normalize, "max_tokens": self.max_tokens, "dimension": self.dimension,
            "tokenizer": self.tokenizer.name if own and self.tokenizer is not None else "",
        }  # fmt: skip

    def found(self, folder: Path, noted: Mapping[str, Any]) -> Artifact:
        """Return this planned artifact as it was made in a folder; its tokenizer stays, where none was made."""
        own = noted["tokenizer"]
        facts = {
            **noted, "files": tuple(noted["files"]), "folder": folder,
            "tokenizer": folder / own if own else self.tokenizer,
        }  # fmt: skip
        return msgspec.structs.replace(self, **facts)

    def name(self) -> str:
        """Return the steps in words."""
        return " → ".join(step.label() for step in self.steps) or "original"


def _short(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return str(len(value))
    return str(value)
