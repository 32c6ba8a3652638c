"""A head: a linear classifier over embeddings, trained in place with nothing but numpy."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from skerry.run.pooling import normalized
from skerry.spec.errors import LabelsError, ModelCorruptError, ModelKindError, ModelMissingError, TensorError
from skerry.spec.ports import Array

Floats = npt.NDArray[np.float64]


class Head(msgspec.Struct, frozen=True):
    """A trained linear head: logits = normalized(x) @ weights.T + bias, scores = softmax(logits / temperature).

    Parameters
    ----------
    labels:
        The label of each row.
    weights:
        float32 of shape (labels, dimension).
    bias:
        float32 of shape (labels,).
    temperature:
        What logits are divided by; 1 as trained, something else after :func:`calibrated`.
    """

    labels: tuple[str, ...]
    weights: Array
    bias: Array
    temperature: float = 1.0

    @property
    def dimension(self) -> int:
        """How many numbers an embedding must have."""
        return int(self.weights.shape[1])

    def logits(self, embeddings: Array) -> Array:
        """Return float32 of shape (n, labels) for embeddings of shape (n, dimension), before the temperature.

        Raises ``TensorError`` for embeddings of another dimension.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dimension:
            raise TensorError(f"embeddings of shape {embeddings.shape}", expected=f"(n, {self.dimension})")
        return np.asarray(normalized(embeddings) @ self.weights.T + self.bias)

    def scores(self, embeddings: Array) -> Array:
        """Return probabilities of shape (n, labels)."""
        return softmax(self.logits(embeddings) / self.temperature)


def softmax(logits: Array) -> Array:
    """Return probabilities along the last axis; large logits do not overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def fit_head(
    embeddings: Array, labels: Sequence[str], *, l2: float = 1e-3, tolerance: float = 1e-6, max_steps: int = 100
) -> Head:
    """Train a head by multinomial logistic regression.

    Minimises the mean cross entropy plus ``l2 / 2`` times the squared weights (not the bias) by Newton's method, each
    step solved by conjugate gradients and shortened until it improves enough (Nocedal, Wright: Numerical
    Optimization, 2nd ed., algorithms 7.1 and 3.1). The problem is strictly convex in the weights, so the answer does
    not depend on a start or on chance.

    Parameters
    ----------
    embeddings:
        Numbers of shape (n, dimension); each is brought to length 1 first.
    labels:
        n names, at least two different ones. The labels of the head are sorted.
    l2:
        How much large weights cost; larger for few examples.
    tolerance:
        The length of the gradient at which it is done.
    max_steps:
        Newton steps at the most; ten are usual.

    Raises
    ------
    LabelsError
        There are fewer than two different labels, or not as many as embeddings.
    TensorError
        The embeddings are not finite numbers of shape (n, dimension).
    """
    names = tuple(sorted(set(labels)))
    if len(names) < 2 or len(labels) != len(embeddings):
        raise LabelsError(
            f"{len(labels)} labels of {len(names)} kinds for {len(embeddings)} embeddings",
            expected="one label for each embedding, of at least two kinds",
        )
    if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise TensorError(f"embeddings of shape {embeddings.shape}", expected="finite numbers of shape (n, dimension)")
    if l2 <= 0:
        raise TensorError(f"l2 is {l2}", expected="a number above 0: without it the weights may grow for ever")
    inputs = normalized(embeddings.astype(np.float64))
    inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
    place = {name: index for index, name in enumerate(names)}
    truth = np.eye(len(names))[[place[label] for label in labels]]
    solved = _newton(_Objective(inputs, truth, l2), tolerance, max_steps)
    return Head(names, solved[:, :-1].astype(np.float32), solved[:, -1].astype(np.float32))


class _Objective:
    """Cross entropy of a softmax with an L2 term, for weights of shape (labels, dimension + 1), the bias last."""

    def __init__(self, inputs: Floats, truth: Floats, l2: float) -> None:
        self._inputs, self._truth = inputs, truth
        # The bias is held by a millionth only: softmax does not change when all of them shift.
        self._l2 = np.full((1, inputs.shape[1]), l2)
        self._l2[0, -1] = l2 * 1e-6
        self.shape = (truth.shape[1], inputs.shape[1])

    def value(self, weights: Floats) -> float:
        logits = self._inputs @ weights.T
        top = logits.max(axis=1, keepdims=True)
        normalizer = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        loss = normalizer - (logits * self._truth).sum(axis=1)
        return float(loss.mean() + 0.5 * (self._l2 * weights**2).sum())

    def gradient(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the gradient and the probabilities that it was made of."""
        chances = softmax(self._inputs @ weights.T)
        return (chances - self._truth).T @ self._inputs / len(self._inputs) + self._l2 * weights, chances

    def curvature(self, chances: Floats, direction: Floats) -> Floats:
        """Return the Hessian times ``direction``, without ever making the Hessian."""
        along = self._inputs @ direction.T
        inner = chances * (along - (chances * along).sum(axis=1, keepdims=True))
        return np.asarray(inner.T @ self._inputs / len(self._inputs) + self._l2 * direction)


def _newton(objective: _Objective, tolerance: float, max_steps: int) -> Floats:
    weights = np.zeros(objective.shape)
    for _ in range(max_steps):
        gradient, chances = objective.gradient(weights)
        length = float(np.sqrt((gradient**2).sum()))
        if length <= tolerance:
            break
        step = _conjugate_gradients(
            lambda direction, chances=chances: objective.curvature(chances, direction),  # type: ignore[misc]
            -gradient,
            min(0.5, length**0.5) * length,
        )
        shortened = _shortened(objective, weights, step, float((gradient * step).sum()))
        if shortened is None:
            break  # no step improves any more: the limit of float64
        weights = shortened
    return weights


def _shortened(objective: _Objective, weights: Floats, step: Floats, slope: float) -> Floats | None:
    """Return the weights after the longest half, quarter … of ``step`` that improves as much as its slope promises."""
    before, share = objective.value(weights), 1.0
    for _ in range(30):
        after = weights + share * step
        if objective.value(after) <= before + 1e-4 * share * slope:
            return after
        share /= 2
    return None


def _conjugate_gradients(curvature: Callable[[Floats], Floats], right: Floats, tolerance: float) -> Floats:
    """Solve curvature(x) = right roughly; the curvature is positive definite."""
    solution = np.zeros_like(right)
    rest = right.copy()
    direction = rest.copy()
    squared = float((rest**2).sum())
    for _ in range(200):
        if squared**0.5 <= tolerance:
            break
        bent = curvature(direction)
        share = squared / float((direction * bent).sum())
        solution += share * direction
        rest -= share * bent
        squared, previous = float((rest**2).sum()), squared
        direction = rest + (squared / previous) * direction
    return solution


def fit_temperature(logits: Array, truth: Sequence[int]) -> float:
    """Return the temperature that makes softmax(logits / temperature) tell its own hit rate best.

    Minimises the cross entropy over texts that were **not** trained on, by golden section over the logarithm between
    0.001 and 100 (Guo et al.: On Calibration of Modern Neural Networks, 2017).

    Parameters
    ----------
    logits:
        Numbers of shape (n, labels).
    truth:
        n indexes of the right label.
    """
    rows, right = np.arange(len(truth)), np.asarray(truth)
    wide = logits.astype(np.float64)

    def loss(power: float) -> float:
        scaled = wide / 10.0**power
        top = scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0] - scaled[rows, right]).mean())

    low, high, golden = -3.0, 2.0, (5**0.5 - 1) / 2
    for _ in range(60):
        left, upper = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(upper):
            high = upper
        else:
            low = left
    return float(10.0 ** ((low + high) / 2))


def calibrated(head: Head, embeddings: Array, labels: Sequence[str]) -> Head:
    """Return the head with the temperature that suits texts it was not trained on.

    Raises ``LabelsError`` for a label that the head does not know, or when there is none.
    """
    place = {name: index for index, name in enumerate(head.labels)}
    unknown = [label for label in labels if label not in place]
    if unknown or not labels or len(labels) != len(embeddings):
        raise LabelsError(
            f"{len(labels)} labels for {len(embeddings)} embeddings, unknown: {unknown[:3]}",
            expected=f"one of {', '.join(head.labels)} for each embedding",
        )
    temperature = fit_temperature(head.logits(embeddings), [place[label] for label in labels])
    return msgspec.structs.replace(head, temperature=temperature)


def write_head(head: Head, path: Path) -> None:
    """Write a head as ``.npz`` or ``.json``, whole or not at all.

    Raises ``ModelKindError`` for another ending.
    """
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(
            buffer,
            labels=np.array(head.labels, dtype=np.str_),
            weights=head.weights.astype(np.float32),
            bias=head.bias.astype(np.float32),
            temperature=np.float64(head.temperature),
        )
        content = buffer.getvalue()
    elif path.suffix == ".json":
        content = msgspec.json.encode(
            {
                "labels": head.labels,
                "weights": head.weights.tolist(),
                "bias": head.bias.tolist(),
                "temperature": head.temperature,
            }
        )
    else:
        raise ModelKindError(f"a head is not written as {path.name}", expected="a name that ends in .npz or .json")
    half = path.with_name(path.name + ".half")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


class _HeadFile(msgspec.Struct):
    labels: list[str]
    weights: list[list[float]]
    bias: list[float]
    temperature: float = 1.0


def read_head(path: Path) -> Head:
    """Read a head that :func:`write_head` wrote, or one of the same form from elsewhere.

    Raises
    ------
    ModelMissingError
        There is no such file.
    ModelKindError
        It ends in neither ``.npz`` nor ``.json``.
    ModelCorruptError
        It is damaged, or its shapes do not go together.
    """
    if path.suffix not in {".npz", ".json"}:
        raise ModelKindError(f"{path.name} is no head", where=str(path), expected="a file that ends in .npz or .json")
    if not path.is_file():
        raise ModelMissingError(f"there is no head {path}")
    try:
        head = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
    except (OSError, ValueError, KeyError, EOFError, msgspec.MsgspecError) as error:
        raise ModelCorruptError(f"the head cannot be read: {error}", where=str(path)) from error
    fits = head.weights.ndim == 2 and head.bias.shape == head.weights.shape[:1] == (len(head.labels),)
    if not fits or not len(set(head.labels)) == len(head.labels) >= 2 or head.dimension < 1:
        raise ModelCorruptError(
            f"{len(head.labels)} labels, weights {head.weights.shape}, bias {head.bias.shape}",
            where=str(path),
            expected="different labels (n), weights (n, dimension), bias (n)",
        )
    if not (np.isfinite(head.weights).all() and np.isfinite(head.bias).all() and 0 < head.temperature < np.inf):
        raise ModelCorruptError("the head has numbers that are not finite", where=str(path))
    return head


def _read_npz(path: Path) -> Head:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            temperature = float(arrays["temperature"]) if "temperature" in arrays else 1.0
            labels = tuple(str(label) for label in arrays["labels"])
            return Head(labels, arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32), temperature)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def _read_json(path: Path) -> Head:
    found = msgspec.json.decode(path.read_bytes(), type=_HeadFile)
    return Head(
        tuple(found.labels),
        np.array(found.weights, dtype=np.float32),
        np.array(found.bias, dtype=np.float32),
        found.temperature,
    )
