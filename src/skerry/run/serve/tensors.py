"""Models of tensors: what goes in and comes out is the model's own, and requests share a run where that is proven.

Whether rows can share a run cannot be read off a graph: a first axis without a fixed size may be a batch, or a length
over which the model sums. So it is tried once when the model is loaded: two rows together must give what each of them
gives alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from skerry.run.serve.servable import Inputs, Outputs, rows_of
from skerry.runtimes.tensors import TEXT, InputCheck, made_up_inputs
from skerry.spec.errors import ModelError, SkerryError
from skerry.spec.ports import Array, Session, TensorSpec, TrustingSession

_TOLERANCE = 1e-3
"""By how much two rows may differ from one, relative to the largest number: what the order of summing changes, while
scales that are worked out for a whole batch change more."""


class TensorServable:
    """A session under a name.

    Parameters
    ----------
    name:
        The name that clients ask for.
    session:
        The loaded model; it is closed with this.
    """

    takes_text = False

    def __init__(self, name: str, session: Session) -> None:
        info = session.describe()
        self.name = name
        self.platform = info.runtime
        self.inputs = info.inputs
        self.outputs = info.outputs
        self._session = session
        self._check = InputCheck(info.inputs, name)
        self._first = info.inputs[0].name if info.inputs else ""
        self._run = session.run_trusted if isinstance(session, TrustingSession) else session.run
        _warm_up(session)
        self.shares_runs = has_independent_rows(session)
        """Whether requests share a run."""

    def admit(self, inputs: Inputs) -> int:
        """Check one request's arrays and return its rows; raises ``TensorError``."""
        self._check(inputs)
        return rows_of(inputs[self._first]) if self.shares_runs else 1

    def group(self, inputs: Inputs) -> Hashable:
        """Return the sizes beyond the first axis: arrays that have them in common can be joined along it."""
        if not self.shares_runs:
            return None
        return tuple([inputs[spec.name].shape[1:] for spec in self.inputs])

    def run(self, requests: Sequence[Inputs], wanted: frozenset[str]) -> list[Outputs]:
        """Answer requests, several by one run; raises ``ModelError``."""
        if len(requests) == 1:
            return [self._run(requests[0])]
        import numpy as np

        joined = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
        answers = self._run(joined)
        ends = np.cumsum([rows_of(request[self._first]) for request in requests]).tolist()
        if any(rows_of(array) != ends[-1] for array in answers.values()):
            raise ModelError("the model answered with another number of rows than it was asked for")
        starts = [0, *ends[:-1]]
        return [
            {name: array[start:end] for name, array in answers.items()} for start, end in zip(starts, ends, strict=True)
        ]

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._session.close()


def has_independent_rows(session: Session) -> bool:
    """Tell whether two rows in one run give what each of them gives alone; tried with made-up rows."""
    info = session.describe()
    specs = (*info.inputs, *info.outputs)
    if not all(spec.shape and isinstance(spec.shape[0], str) and spec.dtype != TEXT for spec in specs):
        return False
    for made_up in made_up_inputs(info.inputs):
        try:
            return _is_independent(session, made_up, info.outputs)
        except (SkerryError, ValueError):
            continue  # sizes that the model does not take
    return False


def _is_independent(session: Session, made_up: Inputs, outputs: Sequence[TensorSpec]) -> bool:
    import numpy as np

    chance = np.random.default_rng(1)
    pair = [{name: _row(chance, array, place) for name, array in made_up.items()} for place in (0, 1)]
    alone = [session.run(row) for row in pair]
    together = session.run({name: np.concatenate([row[name] for row in pair]) for name in made_up})
    for spec in outputs:
        first, second, both = alone[0][spec.name], alone[1][spec.name], together[spec.name]
        if both.shape[:1] != (2,) or first.shape[:1] != (1,) or not _is_close(both[:1], first):
            return False
        if not _is_close(both[1:], second):
            return False
    return True


def _row(chance: object, array: Array, place: int) -> Array:
    """Return an array like a made-up one: any numbers, or for integers 0 and 1, which every table has."""
    import numpy as np

    if array.dtype.kind == "f":
        assert isinstance(chance, np.random.Generator)
        return chance.standard_normal(array.shape).astype(array.dtype)
    return np.full_like(array, place)


def _is_close(one: Array, other: Array) -> bool:
    import numpy as np

    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    largest = float(np.max(np.abs(other), initial=0.0))
    return bool(np.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * largest, equal_nan=True))


def _warm_up(session: Session) -> None:
    """Run once on made-up input; a model with sizes that only its user knows may refuse that."""
    try:
        session.warm_up()
    except ModelError:
        if not any(isinstance(size, str) for spec in session.describe().inputs for size in spec.shape[1:]):
            raise
