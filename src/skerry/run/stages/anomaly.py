"""Anomaly: how unusual the numbers of a record are, against what the stream has been like."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from skerry.run.keyed import MAX_KEYS, Keyed, key_of
from skerry.run.moments import Moments, weight_of_half_life
from skerry.run.reading import number
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class AnomalyOptions(Options, frozen=True, kw_only=True):
    """What is scored, and how it is learned.

    Parameters
    ----------
    fields:
        Numeric fields, at most 64 (the covariance is a square of them).
    method:
        ``zscore``: the greatest distance of one field from its mean, in standard deviations.
        ``mahalanobis``: the distance of all fields together, which sees an unusual combination of usual values,
        divided by the square root of their number, so that about 1 is usual.
    half_life:
        After how many records a value counts half; 500 follows the slow change of a day at one record in two minutes
        or of a few minutes at one per second. ``null`` weighs all records alike.
    warm_up:
        How many records are learned before the first score; until then the score is 0.
    learn_below:
        Records that score this or more are not learned, so that a long fault does not become the usual; after
        ``relearn`` such records in a row the change is taken for the new usual. ``null`` learns all.
    relearn:
        See ``learn_below``.
    score, field:
        The fields that take the score and, for ``zscore``, the name of the most unusual field.
    key:
        A field that keeps streams apart, such as the name of a sensor.
    max_keys:
        How many of them; the one used longest ago is forgotten and warms up again.
    """

    shorthand: ClassVar[str] = "fields"

    fields: list[str]
    method: Literal["zscore", "mahalanobis"] = "zscore"
    half_life: float | None = 500.0
    warm_up: int = 30
    learn_below: float | None = None
    relearn: int = 100
    score: str = "anomaly"
    field: str = "anomaly_field"
    key: str | None = None
    max_keys: int = MAX_KEYS

    def __post_init__(self) -> None:
        if not 1 <= len(self.fields) <= 64:
            raise ValueError("1 to 64 fields")
        if self.half_life is not None and not self.half_life > 0:
            raise ValueError("a half_life of more than 0 records")
        if self.warm_up < 2:
            raise ValueError("a warm_up of at least 2 records")


class _Axes:
    """One running mean and variance per field: the z-score."""

    def __init__(self, names: list[str], floor: float) -> None:
        self._names = names
        self._moments = [Moments(floor) for _ in names]
        self.strange = 0

    @property
    def count(self) -> int:
        return self._moments[0].count

    def score(self, values: list[float]) -> tuple[float, str | None]:
        scores = [abs(moments.score(value)) for moments, value in zip(self._moments, values, strict=True)]
        worst = max(range(len(scores)), key=scores.__getitem__)
        return scores[worst], self._names[worst]

    def learn(self, values: list[float]) -> None:
        for moments, value in zip(self._moments, values, strict=True):
            moments.update(value)


class _Cloud:
    """A running mean and covariance of all fields: the Mahalanobis distance (P. C. Mahalanobis, 1936).

    The update is that of :class:`Moments` with an outer product. For the inverse, a thousandth of the mean variance is
    added to the diagonal, so that fields which move together do not make it singular.
    """

    def __init__(self, names: list[str], floor: float) -> None:
        import numpy

        self._numpy = numpy
        self._floor = floor
        self._mean: Any = numpy.zeros(len(names))
        self._covariance: Any = numpy.zeros((len(names), len(names)))
        self.count = 0
        self.strange = 0

    def score(self, values: list[float]) -> tuple[float, str | None]:
        numpy = self._numpy
        scale = numpy.sqrt(numpy.maximum(self._covariance.diagonal(), 1e-24 + numpy.square(self._mean * 1e-9)))
        difference = (numpy.asarray(values) - self._mean) / scale
        correlation = self._covariance / numpy.outer(scale, scale)
        ridge = correlation + 1e-3 * numpy.eye(len(values))
        squared = float(difference @ numpy.linalg.solve(ridge, difference))
        return math.sqrt(max(squared, 0.0) / len(values)), None

    def learn(self, values: list[float]) -> None:
        self.count += 1
        weight = max(1.0 / self.count, self._floor)
        difference = self._numpy.asarray(values) - self._mean
        self._mean += weight * difference
        outer = self._numpy.outer(difference, difference)
        self._covariance = (1.0 - weight) * (self._covariance + weight * outer)


class AnomalyStage:
    """Score each record against the stream before it, then learn it. The state has a fixed size per key.

    A record with a NaN or infinite value among its fields scores infinity and is not learned: it is unusual.
    """

    Options: ClassVar[type[AnomalyOptions]] = AnomalyOptions
    remembers: str = "what is usual for each key"

    def __init__(self, options: AnomalyOptions) -> None:
        self._options = options
        floor = weight_of_half_life(options.half_life)
        kind = _Axes if options.method == "zscore" else _Cloud
        self._streams: Keyed[_Axes | _Cloud] = Keyed(lambda: kind(options.fields, floor), options.max_keys)

    def open(self, context: Context) -> None:
        """Forget every stream."""
        self._streams.clear()

    def process(self, record: Record) -> Outcome:
        """Set the score in place; raises ``StageError`` where a field is no number."""
        options, fields = self._options, record.fields
        values = [float(number(fields, name)) for name in options.fields]
        stream = self._streams.get(key_of(fields, options.key))
        score, strangest = self._score(stream, values)
        fields[options.score] = score
        if options.method == "zscore":
            fields[options.field] = strangest
        return record

    def close(self) -> None:
        """Nothing to give back."""

    def _score(self, stream: _Axes | _Cloud, values: list[float]) -> tuple[float, str | None]:
        options = self._options
        for name, value in zip(options.fields, values, strict=True):
            if not math.isfinite(value):
                return math.inf, name
        if stream.count < options.warm_up:
            stream.learn(values)
            return 0.0, None
        score, strangest = stream.score(values)
        strange = options.learn_below is not None and score >= options.learn_below
        stream.strange = stream.strange + 1 if strange else 0
        if not strange or stream.strange > options.relearn:
            stream.learn(values)
        return score, strangest
