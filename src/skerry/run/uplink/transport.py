"""Transports: what carries a batch to the hub and its answer back."""

from __future__ import annotations

from typing import Protocol

import msgspec

RECEIPT = "application/vnd.skerry.receipt"
BATCH = "application/vnd.skerry.batch"
_LONGEST_EXCERPT = 200  # characters


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back.

    Parameters
    ----------
    status:
        As in HTTP: 200 with a receipt, 413, 429, …
    body:
        The receipt, or what is told of a refusal.
    is_hub:
        Whether a hub answered; where it did not, nothing of the answer counts.
    kind:
        The media type of the body.
    retry_after_s:
        For how long the hub wants to be left alone; ``None`` when it does not say.
    headers:
        The other headers, their names in lower case.
    """

    status: int
    body: bytes = b""
    is_hub: bool = False
    kind: str = ""
    retry_after_s: float | None = None
    headers: dict[str, str] = {}

    def excerpt(self) -> str:
        """Return the beginning of the body as one line of text, for a message: of a problem (RFC 9457) its detail."""
        try:
            text = msgspec.json.decode(self.body, type=_Problem).detail
        except msgspec.MsgspecError:
            text = self.body[:_LONGEST_EXCERPT].decode("utf-8", "replace")
        return " ".join(text.split())[:_LONGEST_EXCERPT]


class _Problem(msgspec.Struct, frozen=True):
    """A refusal of a hub."""

    detail: str


class Lane(Protocol):
    """A way to the hub for one batch at a time; used by one thread."""

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Send a batch and return the answer; raises ``OSError`` when there is none within the time."""

    def traffic(self) -> int:
        """Return the bytes that went over the wire, both ways, since this was last asked."""

    def cancel(self) -> None:
        """End the exchange that is under way, from another thread."""

    def close(self) -> None:
        """Give everything back; safe to call twice."""


class Transport(Protocol):
    """Makes lanes."""

    name: str
    """The hub as a user knows it, for messages."""
    overhead: int
    """Bytes on the wire that an exchange costs beyond its batch, about."""
    opening: int
    """Bytes on the wire that it takes to connect, about."""

    def lane(self) -> Lane:
        """Return a new lane; it connects when it is first used."""

    def renewed(self) -> None:
        """Take note that the identity has a new certificate: connections made from now on use it."""

    def close(self) -> None:
        """Give back what the lanes share; safe to call twice."""
