"""Items: what a model is asked one by one, texts or named arrays, with the right answers where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from skerry.spec.ports import Array

Row = Mapping[str, Array]
"""The arrays of one item by the names of a model's inputs, without the axis that runs over items."""

Item = str | Row
"""A text, or a row of arrays."""


class Items(Protocol):
    """Items of one kind, in order: :class:`skerry.build.texts.Texts` or :class:`skerry.build.rows.Rows`."""

    @property
    def origin(self) -> str:
        """Where they are from."""

    @property
    def items(self) -> Sequence[Item]:
        """The items themselves."""

    @property
    def called(self) -> str:
        """What they are called, in the plural."""

    @property
    def labelled(self) -> bool:
        """Whether right answers came along."""

    @property
    def digest(self) -> str:
        """The digest of the items and the right answers."""

    def identities(self) -> Sequence[tuple[str, str]]:
        """Return for each item what it shares with those that are nearly the same, and what is its own."""

    def relatives(self, place: int) -> Sequence[int]:
        """Return the places of items that must come into the same split as this one."""

    def taken(self, places: Sequence[int], origin: str) -> Any:
        """Return the items at these places, of the same kind."""

    def truth(self, metric: str) -> Sequence[Any] | None:
        """Return the right answers that a metric takes, ``None`` where they are not known."""


I = TypeVar("I", bound=Items)  # noqa: E741 - one letter, as type variables have
