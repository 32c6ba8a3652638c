"""The catalogue of models: small models for edge devices as data, each fact with where it comes from.

One file per kind of task, ``<kind>.toml``: ``[sources]`` has addresses, ``[languages]`` has lists by name, and
``[models.NAME]`` has a ``ModelEntry``. ``tasks.toml`` says by which metric the models of a task are compared.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from skerry.spec.errors import ModelMissingError, UsageError
from skerry.spec.words import did_you_mean

HOWS = ("measured", "published", "estimate")
How = Literal["measured", "published", "estimate"]
TokenizerKind = Literal["wordpiece", "bpe", "unigram"]
WorkKind = Literal["static", "encoder", "image", "speech", "decoder"]
PERMISSIVE = frozenset({"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0"})
"""Licences that ask for no more than a notice: SPDX identifiers."""
_TASKS = "tasks.toml"


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the catalogue: immutable, by keyword, with no unknown fields."""


class Figure(Part, frozen=True, kw_only=True):
    """A number with its origin.

    Attributes
    ----------
    value:
        In the unit that the field says.
    how:
        ``measured`` (counted from the architecture, or run), ``published`` by ``source``, or an ``estimate``.
    source:
        A key of the file's ``[sources]``, perhaps with ``: words`` after it, or words only.
    confirmed:
        Whether the source was read when the entry was written; if not, it is from memory and wants checking.
    """

    value: float
    how: How
    source: str
    confirmed: bool = True


class Quality(Figure, frozen=True, kw_only=True):
    """A published quality figure; ``metric`` is a key of ``tasks.toml``'s ``[metrics]``."""

    metric: str


class Licence(Part, frozen=True, kw_only=True):
    """The terms of the weights.

    Attributes
    ----------
    id:
        The SPDX identifier, or ``LicenseRef-<name>`` for terms that have none.
    commercial:
        Whether commercial use is allowed: ``yes``, ``conditions`` (read them), ``no``.
    source:
        As for a ``Figure``.
    confirmed:
        As for a ``Figure``.
    """

    id: str
    commercial: Literal["yes", "conditions", "no"]
    source: str
    confirmed: bool = True

    @property
    def permissive(self) -> bool:
        """Whether it asks for no more than a notice."""
        return self.id in PERMISSIVE


class Shape(Part, frozen=True, kw_only=True):
    """The architecture, as far as it decides memory and time; ``None`` where it does not apply.

    Attributes
    ----------
    hidden, layers, heads, feed_forward:
        Width, depth, attention heads and inner width of the transformer (of the encoder, where there are two).
    vocabulary, tokenizer:
        Words the tokenizer knows, and its kind.
    context:
        The longest input, in tokens.
    key_value:
        Width of the keys of one layer, which is less than ``hidden`` where query heads share them.
    image:
        Side of the square input, in pixels.
    frames:
        Positions of the audio encoder for the stated item.
    """

    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    feed_forward: int | None = None
    vocabulary: int | None = None
    tokenizer: TokenizerKind | None = None
    context: int | None = None
    key_value: int | None = None
    image: int | None = None
    frames: int | None = None


class Work(Part, frozen=True, kw_only=True):
    """What one inference does.

    Attributes
    ----------
    kind:
        ``static`` looks words up; ``encoder`` reads a text once; ``image`` and ``speech`` have their ``macs`` stated;
        ``decoder`` writes one token.
    macs:
        Multiply-adds of one item, for ``image`` and ``speech``.
    item:
        What one item is, in words, for ``image`` and ``speech``.
    active:
        Parameters that one item reads, when that is not all of them: CLIP's image tower.
    steps, step_parameters:
        How many times per item ``step_parameters`` parameters are read again: a decoder's steps.
    """

    kind: WorkKind
    macs: Figure | None = None
    item: str = ""
    active: int | None = None
    steps: int = 0
    step_parameters: int = 0


class ModelEntry(Part, frozen=True, kw_only=True):
    """A model of the catalogue.

    Attributes
    ----------
    title, hub:
        Its name, and where it is: a Hugging Face id, or an address.
    year:
        Of publication.
    tasks:
        Keys of ``tasks.toml``'s ``[tasks]``.
    input:
        ``text``, ``image``, ``audio``.
    languages:
        Codes of ISO 639; ``@name`` is a list of the file's ``[languages]``; empty where language does not matter.
    licence:
        The terms of the weights.
    parameters:
        All weights.
    embedding_parameters:
        Those of them that are a table of words, of which an inference reads only a few rows.
    shape, work:
        What predictions are made from.
    quality:
        Published figures; sources as addresses.
    unconfirmed:
        Plain facts above that were written from memory.
    note:
        What else one must know.
    """

    title: str
    hub: str
    year: int
    tasks: tuple[str, ...]
    input: tuple[Literal["text", "image", "audio"], ...]
    licence: Licence
    parameters: Figure
    shape: Shape
    work: Work
    languages: tuple[str, ...] = ()
    embedding_parameters: int = 0
    quality: tuple[Quality, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    note: str = ""
    name: str = ""

    def speaks(self, language: str) -> bool:
        """Tell whether the model takes a language, or takes no language at all."""
        return not self.languages or language in self.languages


class Metric(Part, frozen=True, kw_only=True):
    """A measure of quality: its title, its unit, and which way is better."""

    title: str
    unit: str
    better: Literal["higher", "lower"] = "higher"


class Task(Part, frozen=True, kw_only=True):
    """A task: what it is, and the metric by which its models are compared."""

    title: str
    metric: str


class Tasks(Part, frozen=True, kw_only=True):
    """The file ``tasks.toml``."""

    tasks: dict[str, Task]
    metrics: dict[str, Metric]


@cache
def tasks() -> Tasks:
    """The tasks and metrics of the catalogue."""
    return msgspec.convert(_read(_TASKS), Tasks)


@cache
def catalogue() -> Mapping[str, ModelEntry]:
    """Every model by its name, in the order of tasks and then of names.

    >>> "all-minilm-l6-v2" in catalogue()
    True
    """
    found: dict[str, ModelEntry] = {}
    for file in sorted(item.name for item in files(__package__).iterdir() if item.name.endswith(".toml")):
        if file != _TASKS:
            found |= entries(_read(file))
    order = list(tasks().tasks)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[1].tasks[0]), item[0])))


def entries(document: dict[str, Any]) -> dict[str, ModelEntry]:
    """The models of one file, with addresses for the keys of sources and codes for the names of languages.

    Raises
    ------
    msgspec.ValidationError
        A model has an unknown field, or a value of the wrong kind.
    """
    sources, groups = document.get("sources", {}), document.get("languages", {})
    return {
        name: msgspec.convert({"name": name, **_resolved(contents, sources, groups)}, ModelEntry)
        for name, contents in document["models"].items()
    }


def load_model(name: str) -> ModelEntry:
    """The entry of a model; takes the hub's id as well.

    Raises
    ------
    ModelMissingError
        There is no such model; the hint has the nearest name.
    """
    models = catalogue()
    if name in models:
        return models[name]
    by_hub = {entry.hub.lower(): entry for entry in models.values()}
    address = name.lower().removeprefix("hf://")
    if address in by_hub:
        return by_hub[address]
    spelled = address.rpartition("/")[2].replace("_", "-").replace(" ", "-")
    hint = did_you_mean(spelled, models) or "list them with: skerry models list"
    raise ModelMissingError(f"no model {name!r} in the catalogue", expected="a name of the catalogue", hint=hint)


def check_task(name: str) -> str:
    """Return the name of a task.

    Raises
    ------
    UsageError
        There is no such task; the hint has the nearest name.
    """
    known = tasks().tasks
    if name not in known:
        raise UsageError(
            f"there is no task {name!r}", where="--task", expected=", ".join(known), hint=did_you_mean(name, known)
        )
    return name


def _read(file: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / file).read_text("utf-8"))


def _resolved(contents: dict[str, Any], sources: dict[str, str], groups: dict[str, list[str]]) -> dict[str, Any]:
    """Put addresses for the keys of sources, and codes for the names of lists of languages, at every depth."""
    out: dict[str, Any] = {}
    for key, value in contents.items():
        if isinstance(value, dict):
            out[key] = _resolved(value, sources, groups)
        elif key == "quality":
            out[key] = [_resolved(figure, sources, groups) for figure in value]
        elif key == "source":
            first, colon, rest = value.partition(":")
            out[key] = f"{sources[first]}{colon}{rest}" if first in sources else value
        elif key == "languages":
            lists = (groups[code[1:]] if code.startswith("@") else [code] for code in value)
            out[key] = [code for found in lists for code in found]
        else:
            out[key] = value
    return out
