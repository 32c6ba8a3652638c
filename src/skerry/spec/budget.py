"""A budget: what a model must reach, and what it may cost on the device."""

from __future__ import annotations

import msgspec

from skerry.spec.units import Duration, Energy, Size


class Quality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least quality, by a metric such as ``agreement@10``, against the model that was given."""

    metric: str = "agreement@10"
    min: float


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
