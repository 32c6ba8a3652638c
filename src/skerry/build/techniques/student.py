"""``student``: another, smaller model in the place of the given one, to be taught by it.

Edge-specific models (TinyBERT, MiniLM, MobileBERT, …) begin with weights of their own, and so learn faster than what
pruning leaves of a model of another shape. The pipeline file names them as ``students:`` of the model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from skerry.build.artifact import Artifact
from skerry.build.importing import TOKENIZER
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.transformer import refuses_transformer
from skerry.spec.errors import ModelKindError

_TAKEN = (".json", ".safetensors", ".bin")
"""Endings of what is taken: configuration, weights, tokenizer."""


class StudentSettings(Settings, frozen=True, kw_only=True):
    """Which student: the ``source`` that the pipeline names and the ``digest`` of its files; else the first one."""

    source: str = ""
    digest: str = ""


class Student:
    """A model that the user names, with its own tokenizer; it pools as its teacher does."""

    name: ClassVar[str] = "student"
    kind: ClassVar[Kind] = "prune"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "a smaller model that the pipeline names (students:), to be taught by the given one"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return the students that the pipeline names, in its order."""
        require_accepted(self.refuses(artifact), self.name)
        return [
            plain(StudentSettings(source=source, digest=student.source))
            for source, student in workbench.students.items()
        ]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Copy the student and its tokenizer.

        Raises ``ModelKindError`` for one that the workbench does not have, is no transformer, or has its graph
        elsewhere than its teacher.
        """
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(StudentSettings, settings, self.name)
        source = told.source or next(iter(workbench.students), "")
        student = workbench.students.get(source)
        if student is None or told.digest not in {"", student.source}:
            raise ModelKindError("this student is not among those of the pipeline", where=source)
        reason = refuses_transformer(student)
        if not reason and student.part != artifact.part:
            reason = f"of its model it is the part {student.part!r}, and its teacher of its own {artifact.part!r}"
        if reason:
            raise ModelKindError(f"it cannot be a student: {reason}", where=source)
        files = tuple(name for name in student.files if name.endswith(_TAKEN) and name != TOKENIZER)
        for name in files:
            shutil.copyfile(student.folder / name, target / name)
        shutil.copyfile(student.vocabulary, target / TOKENIZER)
        return forged(
            artifact, self, settings, target, (*files, TOKENIZER), tokenizer=target / TOKENIZER,
            max_tokens=min(artifact.max_tokens, student.max_tokens),
        )  # fmt: skip
