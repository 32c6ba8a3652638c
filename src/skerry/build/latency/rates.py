"""Rates: how long a runtime takes for each kind of work in one precision, fitted to measured encoders. Pure.

The time of a run is taken as a sum over what is computed, as the roofline model without overlap has it (Williams,
Waterman, Patterson, 2009), with a share for each kernel that is started and for weights that the last cache does
not keep. The factors are those with the least relative error, none of them negative (Lawson, Hanson: Solving
Least Squares Problems, 1974, chapter 23).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from skerry.build.latency.way import BYTES, Way
from skerry.build.latency.workload import Dense, Work
from skerry.spec.ports import Array

COMMON = ("runs", "kernels", "pairs", "heavy", "light")
"""Work that does not depend on the precision of the weights: fields of a :class:`Work`, and the run itself."""

LAYERS = ("products", "weights", "rows", "far_bytes")
"""Work of dense layers: multiply-adds, numbers of the weights, numbers that go in and out, and bytes of weights beyond
what the cache keeps."""

COMPUTING = ("pairs", "heavy", "light", "products", "rows")
MOVING = ("weights", "far_bytes")
"""What grows with the rate of matrix products, and with the bandwidth of memory; the rest is overhead."""


CACHED_SHARE = 0.25
"""Of the last cache: others use it too. Of 0.25 to 0.75 of 32 MB the one with the least errors on nine encoders."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds for each unit of work, by its name in :data:`COMMON` and :data:`LAYERS`.

    ``error`` is the largest relative error, either way, of nine in ten of the points that it was fitted to.
    """

    each_ms: dict[str, float]
    points: int = 0
    error: float = 0.0


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """A time in milliseconds by what it goes into: integers, floating point, moving weights, and overhead."""

    integers: float = 0.0
    floats: float = 0.0
    moving: float = 0.0
    overhead: float = 0.0

    @property
    def total(self) -> float:
        """The whole time."""
        return self.integers + self.floats + self.moving + self.overhead

    def scaled(self, factor: float) -> Parts:
        """Return every part times a factor."""
        return Parts(**{name: getattr(self, name) * factor for name in self.__struct_fields__})


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A measured time in milliseconds of some work done in one way."""

    work: Work
    ms: float


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of a machine, by :attr:`Way.key`.

    Parameters
    ----------
    machine:
        In words.
    cached_bytes:
        Weights that stay in the last cache from one run to the next: :data:`CACHED_SHARE` of it.
    origin:
        Where the rates come from: measured on this machine, or scaled from another.
    """

    machine: str
    cached_bytes: float
    rates: dict[str, Rates]
    origin: str = ""

    def parts(self, work: Work, way: Way) -> Parts | None:
        """Return how long some work takes; ``None`` where no rates are known for the way."""
        main = self.rates.get(way.key)
        spared = [layer for layer in work.dense if layer.name in way.spared]
        other = self.rates.get(f"{way.runtime}/{way.spared_precision}") if spared else main
        if main is None or other is None:
            return None
        plain = [layer for layer in work.dense if layer.name not in way.spared]
        counted = {"runs": 1.0, **{name: float(getattr(work, name)) for name in COMMON[1:]}}
        beyond = _beyond(_bytes(plain, way.precision) + _bytes(spared, way.spared_precision), self.cached_bytes)
        return total(
            _timed(main, counted, integers=False),
            _timed(main, _layers(plain, way.precision, beyond), integers=is_integer(way.precision)),
            _timed(other, _layers(spared, way.spared_precision, beyond), integers=is_integer(way.spared_precision)),
        )


def total(*parts: Parts) -> Parts:
    """Return the sum of parts, each by itself."""
    return Parts(**{name: sum(getattr(each, name) for each in parts) for name in Parts.__struct_fields__})


def is_integer(precision: str) -> bool:
    """Tell whether a precision's products are of integers: all but the floating-point ones, on the runtimes known."""
    return not precision.startswith("fp")


def fit(samples: Sequence[Sample], precision: str, cached_bytes: float) -> Rates:
    """Return the rates that fit measured samples of one way best; there are at least as many as kinds of work."""
    import numpy as np

    names = (*COMMON, *LAYERS)
    counts = np.array([_counts(sample.work, precision, cached_bytes) for sample in samples])
    measured = np.array([sample.ms for sample in samples])
    scale = counts.max(axis=0) + 1e-30
    each = least_squares(counts / scale / measured[:, None], np.ones(len(samples))) / scale
    errors = np.abs(counts @ each / measured - 1)
    told = {name: float(value) for name, value in zip(names, each, strict=True)}
    return Rates(each_ms=told, points=len(samples), error=float(np.quantile(errors, 0.9)))


def least_squares(factors: Array, values: Array) -> Array:
    """Return the non-negative ``x`` with the least ``|factors @ x - values|``, by the method of Lawson and Hanson.

    ``factors`` is float64 of shape (points, kinds), ``values`` of shape (points,).
    """
    import numpy as np

    kinds = factors.shape[1]
    found, free = np.zeros(kinds), np.zeros(kinds, dtype=bool)
    for _ in range(10 * kinds):
        gain = factors.T @ (values - factors @ found)
        if free.all() or gain[~free].max() <= 1e-9:
            break
        free[np.argmax(np.where(free, -np.inf, gain))] = True
        while True:
            step = np.zeros(kinds)
            step[free] = np.linalg.lstsq(factors[:, free], values, rcond=None)[0]
            if (step[free] > 0).all():
                found = step
                break
            down = free & (step <= 0)
            reach = np.min(found[down] / (found[down] - step[down]))
            found = found + reach * (step - found)
            free &= found > 1e-14
            found[~free] = 0.0
    return found


def _counts(work: Work, precision: str, cached_bytes: float) -> list[float]:
    beyond = _beyond(_bytes(work.dense, precision), cached_bytes)
    layers = _layers(work.dense, precision, beyond)
    return [1.0, *(float(getattr(work, name)) for name in COMMON[1:]), *(layers[name] for name in LAYERS)]


def _layers(dense: Sequence[Dense], precision: str, beyond: float) -> dict[str, float]:
    """Count the work of dense layers; ``beyond`` is the share of their bytes that the cache does not keep."""
    return {
        "products": sum(layer.rows * layer.weights for layer in dense),
        "weights": float(sum(layer.weights for layer in dense)),
        "rows": sum(layer.rows * (layer.inputs + layer.outputs) for layer in dense),
        "far_bytes": _bytes(dense, precision) * beyond,
    }


def _bytes(dense: Sequence[Dense], precision: str) -> float:
    return BYTES[precision] * sum(layer.weights for layer in dense)


def _beyond(held: float, cached_bytes: float) -> float:
    return max(0.0, 1.0 - cached_bytes / held) if held else 0.0


def _timed(rates: Rates, counts: Mapping[str, float], *, integers: bool) -> Parts:
    times = {name: rates.each_ms.get(name, 0.0) * count for name, count in counts.items()}
    computing = sum(times.get(name, 0.0) for name in COMPUTING)
    moving = sum(times.get(name, 0.0) for name in MOVING)
    overhead = sum(times.values()) - computing - moving
    if integers:
        return Parts(integers=computing, moving=moving, overhead=overhead)
    return Parts(floats=computing, moving=moving, overhead=overhead)
