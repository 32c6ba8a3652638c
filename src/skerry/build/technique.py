"""The door of techniques: what prunes, distils, quantizes or converts a model is one class in one file.

Entry point group ``skerry.techniques``; the built-in ones lie in :mod:`skerry.build.techniques`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.items import Row
from skerry.build.progress import Progress
from skerry.spec.errors import ModelError

Kind = Literal["prune", "distill", "convert", "quantize"]
"""In the order in which they are composed: each kind comes at most once on the way to a candidate."""


class LateError(ModelError):
    """A step was broken off, since it took longer than the search that it is a part of."""


class Workbench(msgspec.Struct, frozen=True, kw_only=True):
    """What a technique may use.

    Parameters
    ----------
    texts:
        Texts to calibrate, tune and distil on; the search never reports on them.
    samples, output:
        For a model of tensors, rows of arrays in the place of texts, and the place of the output that is judged.
    seed:
        Decides everything that is random.
    threads:
        How many threads the work may take.
    deadline:
        ``time.monotonic()`` at which all forms have to be made; ``None`` for no limit.
    progress:
        Told of long work.
    embed:
        The teacher: the vectors of texts by the model that was given, float32 of shape (texts, dimension), or a
        classifier's logits of shape (texts, classes).
    teacher:
        The model that was given itself, for techniques that look into it; ``None`` where only its vectors are known.
    students:
        Smaller models that may be taught in the place of the given one, by the sources that the pipeline names.
    forbidden:
        Keys (:func:`skerry.build.splits.key`) of the texts that the search selects by and reports on: nothing may learn
        from them.
    toolchain:
        Runs a converter in an isolated environment: name of the toolchain, name of the script, request; see
        :mod:`skerry.build.toolchain`. ``None`` where toolchains are not to be used.
    """

    texts: tuple[str, ...]
    samples: tuple[Row, ...] = ()
    output: int = 0
    seed: int = 0
    threads: int = 1
    deadline: float | None = None
    progress: Progress
    embed: Callable[[Sequence[str]], Any] | None = None
    teacher: Artifact | None = None
    students: Mapping[str, Artifact] = {}
    forbidden: frozenset[str] = frozenset()
    toolchain: Callable[[str, str, dict[str, Any]], dict[str, Any]] | None = None


class Technique(Protocol):
    """One way of making a model smaller or faster.

    The search also looks at three class variables that a technique need not have: ``makes``, the form of what it makes
    (:data:`skerry.build.artifact.Form`), so that nothing is made that no runtime here runs; ``late``, true where it
    takes minutes or promises little, so that it comes after all others; and ``doubtful``, true where it may gain
    nothing, so that its candidates bear a note of what they gained over the same form without it.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    version: ClassVar[int]
    """Counts changes that change the result, so that cached results of older code are not used."""
    summary: ClassVar[str]
    """One line for people."""
    toolchain: ClassVar[str | None]
    """The isolated environment that it needs, if any."""

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied to this artifact, or an empty text; looks at no weights."""

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return the settings worth trying on this artifact, the most promising first; plain JSON values.

        It may measure, for instance which layers are sensitive, and must give the same answer for the same seed.
        """

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Make the new form in the empty folder ``target`` and return it, with its step added.

        Raises ``ModelKindError`` when it turns out not to work on this model, ``DependencyError`` for what is missing.
        """


def techniques() -> dict[str, type[Any]]:
    """Return every technique by name, sorted; one that cannot be imported is left out."""
    found = {}
    for entry in sorted(entry_points(group="skerry.techniques")):
        try:
            found[entry.name] = entry.load()
        except ImportError:
            continue
    return found
