"""Material: what a model is searched with: its items in three splits, the right answers, and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build import classes, quality
from skerry.build.evaluation import evaluation_set
from skerry.build.images import CONFIG, read_images, read_preparation
from skerry.build.items import Items
from skerry.build.rows import Rows, read_rows
from skerry.build.signature import Signature, judged_output
from skerry.build.splits import Splits, split
from skerry.build.texts import Texts, own_texts, read_texts
from skerry.spec.errors import SpecError, SpecMissingError
from skerry.spec.pipeline import Model, Task

MOST_ITEMS = 2000
"""Items read of a user's file: half of them to calibrate on, which is plenty for ranges and enough for a start at
distilling."""

_DEFAULT: dict[Task, str] = {"embedding": "agreement@10", "classification": "exact", "tensors": "cosine"}
_BESIDE: dict[Task, tuple[str, ...]] = {
    "embedding": ("agreement@10", "cosine"), "classification": ("exact",), "tensors": ("cosine",),
}  # fmt: skip
"""What is measured too, for the report."""


class Material(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a model is searched with.

    Parameters
    ----------
    splits:
        Of texts or rows.
    metric, metrics:
        The one that the search goes by, and all that are measured.
    numbers:
        The numbers of the model's classes by name.
    output:
        For a model of tensors, the place of the output that is judged.
    """

    splits: Splits[Any]
    metric: str
    metrics: tuple[str, ...]
    numbers: Mapping[str, int] = {}
    output: int = 0

    def truth(self, items: Items) -> dict[str, Sequence[Any] | None]:
        """Return the right answers to items by metric; raises ``SpecError`` for labels that are no classes."""
        return {name: right_answers(name, items, self.numbers) for name in self.metrics}

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to calibrate on; none for a model of tensors."""
        return self.splits.calibrate.lines if isinstance(self.splits.calibrate, Texts) else ()

    @property
    def rows(self) -> tuple[Any, ...]:
        """The rows to calibrate on; none for a model of texts."""
        return self.splits.calibrate.items if isinstance(self.splits.calibrate, Rows) else ()

    @property
    def held_out(self) -> tuple[str, ...]:
        """The texts to select by and to report on; none for a model of tensors."""
        parts = (self.splits.select, self.splits.report)
        return tuple(line for part in parts if isinstance(part, Texts) for line in part.lines)


def default_metric(model: Model) -> str:
    """Return the metric that a model's budget names, else the one of its task."""
    return model.budget.quality.metric if model.budget.quality else _DEFAULT.get(model.task, "agreement@10")


def text_material(model: Model, home: Path, folders: Sequence[Path]) -> Material:
    """Read the texts of a model, or take those that every machine has.

    Parameters
    ----------
    home:
        The folder of the pipeline file.
    folders:
        Where the model's ``config.json`` may lie, which tells the numbers of its classes.

    Raises ``SpecError`` for texts that are missing, too few, or lack what the metric needs.
    """
    if model.budget.quality is not None and model.budget.quality.output is not None:
        raise SpecError("a model of texts has one answer", where="quality.output", expected="no `output`")
    named = model.data.calibrate or model.data.evaluate
    splits = (
        split(own_texts(most=MOST_ITEMS), evaluation_set().texts) if named is None
        else _split(model, home, lambda path: read_texts(path, most=MOST_ITEMS))
    )  # fmt: skip
    return _required(model, splits, classes.class_numbers(folders), 0)


def tensor_material(name: str, model: Model, home: Path, folders: Sequence[Path], signature: Signature) -> Material:
    """Read the rows of a model of tensors; see :func:`text_material`."""
    if model.data.calibrate is None and model.data.evaluate is None:
        raise SpecError(
            "a model that takes arrays needs data to be searched with", where=f"models.{name}.data",
            expected=f"`data: {{calibrate: FILE.npz}}` with {signature.said()}",
            hint="docs/measuring.md tells how such a file is written",
        )  # fmt: skip
    output = judged_output(signature.outputs, model.budget.quality.output if model.budget.quality else None)
    numbers = classes.class_numbers(folders)

    def read(path: Path) -> Rows:
        if path.is_dir():
            preparation = read_preparation(_preparation_file(path, folders))
            return read_images(path, signature.inputs, preparation, numbers, MOST_ITEMS)
        if path.suffix != ".npz" and path.exists():
            raise SpecError(
                "these are no arrays", where=str(path), expected=f"an .npz file with {signature.said()}",
                hint="or a folder of images, for a model with preprocessor_config.json beside it",
            )  # fmt: skip
        return read_rows(path, signature.inputs, MOST_ITEMS)

    return _required(model, _split(model, home, read), numbers, output)


def right_answers(metric: str, items: Items, numbers: Mapping[str, int]) -> Sequence[Any] | None:
    """Return the right answers to items as a metric takes them, ``None`` where they are not known."""
    truth = items.truth(metric)
    if truth is None or metric not in classes.METRICS:
        return truth
    return classes.numbered(truth, numbers, items.origin)


def _required(model: Model, splits: Splits[Any], numbers: Mapping[str, int], output: int) -> Material:
    """Return the material once it is known that the metric can be computed of every split."""
    metric = default_metric(model)
    for part in (splits.select, splits.report):
        quality.require_metric_for(metric, model.task, truth=right_answers(metric, part, numbers))
    beside = () if metric == "perplexity" else _BESIDE.get(model.task, ())
    labelled = bool(splits.select.labelled and splits.report.labelled)
    if model.task == "classification" and labelled:
        beside = (*beside, "accuracy")
    metrics = tuple(dict.fromkeys((metric, *beside)))
    return Material(splits=splits, metric=metric, metrics=metrics, numbers=numbers, output=output)


def _split(model: Model, home: Path, read: Callable[[Path], Any]) -> Splits[Any]:
    data = model.data
    both = data.calibrate is not None and data.evaluate is not None
    calibrate = read(home / Path(str(data.calibrate or data.evaluate)).expanduser())
    return split(calibrate, read(home / Path(str(data.evaluate)).expanduser()) if both else None)


def _preparation_file(path: Path, folders: Sequence[Path]) -> Path:
    found = next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)
    if found is None:
        raise SpecMissingError(
            f"there is no {CONFIG} beside the model, which tells how images are prepared", where=str(path),
            expected=str(folders[0] / CONFIG), hint="or prepare them yourself and give the arrays as .npz",
        )  # fmt: skip
    return found
