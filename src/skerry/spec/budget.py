"""A budget: what a model must reach, and what it may cost on the device."""

from __future__ import annotations

import msgspec

from skerry.spec.units import Duration, Energy, Size

LOWER_IS_BETTER = frozenset({"perplexity", "wer"})
"""The metrics that count mistakes: their limit is a ``max``."""


class Quality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The worst quality that will do, by a metric such as ``agreement@10``.

    ``min`` for a metric of which more is better, ``max`` for ``perplexity`` and ``wer``, of which less is; for a
    function of one's own, whichever is given tells. ``output`` names the output of a model of tensors that is judged.

    Raises ``ValueError`` where neither, both, or the wrong one is given.
    """

    metric: str = "agreement@10"
    min: float | None = None
    max: float | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if (self.min is None) == (self.max is None):
            raise ValueError(f"quality takes one limit, `{self._fitting}` for the metric {self.metric!r}")
        if ":" not in self.metric and self.lower_is_better != (self._fitting == "max"):
            way = "less" if self._fitting == "max" else "more"
            raise ValueError(
                f"of {self.metric} {way} is better: give `{self._fitting}` in the place of `{self._given}`"
            )

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the metric is better."""
        return self.max is not None

    @property
    def limit(self) -> float:
        """The value that just holds."""
        found = self.min if self.max is None else self.max
        assert found is not None
        return found

    @property
    def _fitting(self) -> str:
        return "max" if self.metric.partition("@")[0] in LOWER_IS_BETTER else "min"

    @property
    def _given(self) -> str:
        return "min" if self.max is None else "max"


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits; what is not named is not limited.

    ``latency_*`` is per item with batch 1, ``memory`` the peak of the whole process, ``size`` the files on disk,
    ``energy`` per item, ``link_per_day`` what may be sent in 24 hours.
    """

    quality: Quality | None = None
    latency_p50: Duration | None = None
    latency_p99: Duration | None = None
    memory: Size | None = None
    size: Size | None = None
    energy: Energy | None = None
    link_per_day: Size | None = None

    def lower_is_better(self, metric: str) -> bool:
        """Return whether less of a metric is better: as its limit says, else as is known of it by its name."""
        if self.quality is not None and self.quality.metric == metric:
            return self.quality.lower_is_better
        return metric.partition("@")[0] in LOWER_IS_BETTER
