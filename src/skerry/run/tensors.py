"""A model of tensors: a loaded variant that takes the named arrays of items, and answers with its raw outputs.

An item's array has all the axes of its input but the first, which runs over items; or all of them, for an input that
has no such axis. Items of one shape share a run where the model takes any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from skerry.run.digest import require_digest
from skerry.spec.errors import ModelError, ModelKindError, TensorError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import Array, Session, TensorSpec


def load_tensor_model(
    folder: Path, manifest: ModelManifest, variant: Variant, *, threads: int | None = None
) -> TensorModel:
    """Load a variant of a model of tensors; its file is checked against its digest first.

    Parameters
    ----------
    folder:
        Where the build is: the variant's file name starts here.
    threads:
        Instead of what the build noted.

    Raises
    ------
    ModelMissingError, ModelCorruptError, ModelKindError
        The file is missing, is not what was built, or is one that the runtime does not take.
    DependencyError
        The runtime is not installed.
    """
    path = folder / variant.file
    for file, digest in variant.files().items():
        require_digest(folder / file, digest)
    runtime = load_plugin("skerry.runtimes", variant.runtime, where=str(folder))()
    return TensorModel(runtime.load(path, threads=threads or variant.threads))


class TensorModel:
    """A model over one session; safe to call from several threads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        info = session.describe()
        self.inputs: tuple[TensorSpec, ...] = info.inputs
        self.outputs: tuple[TensorSpec, ...] = info.outputs
        self._where = info.path
        self._takes_many = all(
            spec.shape and isinstance(spec.shape[0], str) for spec in (*info.inputs, *info.outputs)
        )  # fmt: skip

    @property
    def dimension(self) -> int:
        """0: outputs are of any shape."""
        return 0

    @property
    def generation(self) -> int:
        """0: it is one model, for good."""
        return 0

    def embed(self, texts: Sequence[str]) -> Array:
        """Raise ``ModelKindError``: there is no vector of a text."""
        raise ModelKindError("this model takes arrays, not text", where=self._where, expected=_said(self.inputs))

    def infer(self, items: Sequence[Mapping[str, Array]]) -> dict[str, list[Array]]:
        """Return the raw outputs by name, a list with one array per item, without the axis that runs over items.

        Arrays whose names are not those of the inputs, as another form of the model may have them, are taken in their
        order. Raises ``TensorError`` for what the model does not take, ``ModelError`` when it fails.
        """
        rows = [self._named(item) for item in items]
        answers: dict[str, list[Array]] = {spec.name: [] for spec in self.outputs}
        places: list[int] = []
        for group in self._groups(rows):
            for name, found in self._answered([rows[place] for place in group]).items():
                answers[name] += found
            places += group
        order = sorted(range(len(places)), key=places.__getitem__)
        return {name: [found[place] for place in order] for name, found in answers.items()}

    def warm_up(self) -> None:
        """Run once on made-up input; a model with sizes that only its user knows may refuse that, and does no harm."""
        try:
            self._session.warm_up()
        except ModelError:
            if not any(isinstance(size, str) for spec in self.inputs for size in spec.shape[1:]):
                raise

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._session.close()

    def _named(self, item: Mapping[str, Array]) -> Mapping[str, Array]:
        names = [spec.name for spec in self.inputs]
        if len(item) != len(names) or item.keys() == set(names):
            return item  # a wrong number of them is told by the session's own check
        return dict(zip(names, item.values(), strict=True))

    def _groups(self, rows: Sequence[Mapping[str, Array]]) -> Iterator[list[int]]:
        """Yield the places of items that can share a run: those of one shape, or each alone."""
        if not self._takes_many:
            yield from ([place] for place in range(len(rows)))
            return
        found: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for place, row in enumerate(rows):
            found.setdefault(tuple(array.shape for array in row.values()), []).append(place)
        for group in found.values():
            if self._lacks_axis(rows[group[0]]):
                yield group
            else:
                yield from ([place] for place in group)

    def _lacks_axis(self, row: Mapping[str, Array]) -> bool:
        """Tell whether an item's arrays come without the axis that runs over items."""
        return all(spec.name in row and row[spec.name].ndim == len(spec.shape) - 1 for spec in self.inputs)

    def _answered(self, rows: Sequence[Mapping[str, Array]]) -> dict[str, list[Array]]:
        import numpy as np

        if len(rows) > 1:
            raw = self._session.run({name: np.stack([row[name] for row in rows]) for name in rows[0]})
        else:
            ranks = {spec.name: len(spec.shape) for spec in self.inputs}
            raw = self._session.run(
                {
                    name: array[None] if array.ndim == ranks.get(name, 0) - 1 else array
                    for name, array in rows[0].items()
                }
            )
        return {name: self._split(name, array, rows) for name, array in raw.items()}

    def _split(self, name: str, array: Array, rows: Sequence[Mapping[str, Array]]) -> list[Array]:
        if len(rows) == 1:
            return [array[0] if array.ndim and len(array) == 1 and self._lacks_axis(rows[0]) else array]
        if not array.ndim or len(array) != len(rows):
            raise TensorError(
                f"the output {name!r} has the shape {array.shape} for {len(rows)} items", where=self._where,
                expected="a first axis that runs over items", hint="set `batch: 1` for the stage",
            )  # fmt: skip
        return [each.copy() for each in array]


def alone(specs: Sequence[TensorSpec], item: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of one item as a session takes them, with the axis that runs over items where there is one."""
    ranks = {spec.name: len(spec.shape) for spec in specs}
    return {name: array[None] if array.ndim == ranks.get(name, 0) - 1 else array for name, array in item.items()}


def fits(spec: TensorSpec, shape: Sequence[int]) -> bool:
    """Tell whether an item's array is one that an input takes: without its first axis, or with all of its axes."""
    for axes in (spec.shape[1:], spec.shape):
        if len(axes) == len(shape) and all(not isinstance(a, int) or a == b for a, b in zip(axes, shape, strict=True)):
            return bool(spec.shape) or not shape
    return False


def said(spec: TensorSpec) -> str:
    """Return what an item gives for an input, in words: ``pixel_values: float32 (3, 224, 224)``."""
    return f"{spec.name}: {spec.dtype} ({', '.join(map(str, spec.shape[1:]))})"


def _said(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(said, specs))
