"""A servable: a model with a name, as the doors of a server see it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

from skerry.spec.ports import Array, TensorSpec

Inputs = Mapping[str, Array]
Outputs = dict[str, Array]
TOKENS = "tokens"
"""What a text model can be asked for beside its outputs: how many tokens it read of each text."""


class Servable(Protocol):
    """A model that answers batches of requests.

    ``run`` is called by one thread at a time, everything else by the server's own.
    """

    name: str
    platform: str
    """What runs it, such as ``onnxruntime``."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    takes_text: bool
    """Whether it turns ``text`` into ``embedding``, so that the door of embeddings is open."""

    def admit(self, inputs: Inputs) -> int:
        """Check one request's arrays and return its rows; raises ``TensorError`` or ``Refusal``."""

    def group(self, inputs: Inputs) -> Hashable:
        """Return what two requests must have in common to share a run; ``None`` for one that runs alone."""

    def run(self, requests: Sequence[Inputs], wanted: frozenset[str]) -> list[Outputs]:
        """Answer requests that were admitted and share a group; ``wanted`` are the outputs that anybody asked for."""

    def close(self) -> None:
        """Free the model; safe to call twice."""


def rows_of(array: Array) -> int:
    """Return the size of an array's first axis; 1 for one without axes."""
    return int(array.shape[0]) if array.ndim else 1
