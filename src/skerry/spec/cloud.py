"""The cloud of a stage: where else its answers may come from, what may be sent there, and what that may cost."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from skerry.spec.units import Duration, Share, Size, Temperature

Protocol = Literal["auto", "oip", "embeddings", "chat", "json"]
Redacted = Literal["email", "iban", "card", "ip", "phone"]


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What asking costs, in whatever money ``money_per_day`` counts."""

    request: float = 0.0
    """For each text that is asked for; those that travel in one exchange count each."""
    megabyte: float = 0.0
    """For each 10^6 bytes sent and received."""


class Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a cloud that fails is left alone, and for how long.

    After ``failures`` in a row nothing is asked for ``pause``; then one record tries, and each time that it fails the
    pause doubles, up to ``longest``.
    """

    failures: int = 3
    pause: Duration = Duration(5.0)
    longest: Duration = Duration(300.0)


class Cloud(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the answers of a stage may come from when the device's own is not sure enough.

    The threshold of "sure enough" stands in no file that a person writes: ``skerry calibrate`` measures it.

    Parameters
    ----------
    url:
        ``https://host/v2/models/NAME`` (Open Inference Protocol), ``…/v1/embeddings`` or ``…/v1/chat/completions``
        (OpenAI's form), or any URL that takes and gives JSON.
    protocol:
        Which of these; ``auto`` tells by the end of the URL.
    model:
        The name to ask for, where the URL does not tell it.
    head:
        For ``classify`` with a head, the head that goes with the cloud's vectors.
    token_env:
        The environment variable with the bearer token.
    redact:
        What is taken out of personal fields before they leave.
    consent:
        The field that is ``true`` where somebody allowed that personal fields leave as they are.
    max_quality_loss, certainty:
        What the local answers may lose against always asking the cloud, and how sure that must be.
    data:
        The texts to calibrate on; by default the model's ``data.calibrate``.
    rank:
        What tells how sure a local answer is: ``margin`` (the best label's probability less the second's) or ``score``.
    offline:
        ``local``: the local answer stands. ``queue``: it goes out now, and a better one follows when the cloud answers.
    keep, keep_for:
        How much may wait for a better answer, and for how long.
    timeout:
        For one exchange; less where the record's deadline is nearer.
    deadline_certainty:
        The share of exchanges that the predicted time must cover.
    bytes_per_day, money_per_day:
        What may be sent and received, and spent, in a day (UTC).
    battery, temperature:
        Below this charge (when not on mains) and above this heat (°C) nothing is asked.
    cache:
        How many answers are kept by what was asked; 0 for none.
    hedge:
        After this time without an answer the same is asked once more; never by default, as it costs twice.
    by_to:
        The field that tells who answered: ``local``, ``cloud`` or ``cache``.
    """

    url: str
    protocol: Protocol = "auto"
    model: str = ""
    head: str | None = None
    token_env: str | None = None
    headers: dict[str, str] = {}
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    redact: list[Redacted] = []
    consent: str | None = None
    max_quality_loss: Share = Share(0.02)
    certainty: Share = Share(0.9)
    data: str | None = None
    rank: Literal["margin", "score"] = "margin"
    offline: Literal["local", "queue"] = "local"
    keep: Size = Size(20e6)
    keep_for: Duration = Duration(7 * 86400.0)
    timeout: Duration = Duration(2.0)
    deadline_certainty: Share = Share(0.95)
    bytes_per_day: Size | None = None
    money_per_day: float | None = None
    cost: Cost = Cost()
    battery: Share = Share(0.2)
    temperature: Temperature = Temperature(80.0)
    breaker: Breaker = Breaker()
    cache: int = 0
    hedge: Duration | None = None
    by_to: str = "answered_by"

    def __post_init__(self) -> None:
        if not (0 < self.max_quality_loss < 1 and 0 < self.certainty < 1):
            raise ValueError("`max_quality_loss` and `certainty` are above 0 and below 1")
        if not 0 < self.deadline_certainty < 1:
            raise ValueError("`deadline_certainty` is above 0 and below 1")
        if self.timeout <= 0 or self.breaker.failures < 1 or self.cache < 0:
            raise ValueError("`timeout` and `breaker.failures` are above 0, `cache` is not negative")
        amounts = (self.money_per_day or 0.0, self.cost.request, self.cost.megabyte, float(self.bytes_per_day or 0))
        if not all(map(math.isfinite, amounts)):  # nothing is ever more than a NaN
            raise ValueError("money and bytes are finite numbers")
        if (self.money_per_day or 0) < 0 or self.cost.request < 0 or self.cost.megabyte < 0:
            raise ValueError("money is not negative")
        if self.money_per_day is not None and not (self.cost.request or self.cost.megabyte):
            raise ValueError("`money_per_day` needs `cost`: what a request or a megabyte costs")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")

    @property
    def spoken(self) -> Protocol:
        """The protocol, told by the URL where the file does not tell it."""
        if self.protocol != "auto":
            return self.protocol
        path = self.url.partition("?")[0].rstrip("/")
        if path.endswith("/embeddings"):
            return "embeddings"
        if path.endswith("/chat/completions"):
            return "chat"
        return "oip" if "/v2/models/" in path else "json"
