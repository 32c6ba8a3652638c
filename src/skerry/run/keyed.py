"""State by key, bounded: when there are too many keys, the one that was used longest ago leaves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from skerry.spec.errors import StageError

T = TypeVar("T")

MAX_KEYS = 1024
"""How many keys a stage keeps apart unless told otherwise: a fleet of sensors fits, unique ids stay flat."""


class Keyed(Generic[T]):
    """A mapping from key to state that holds at most ``max_keys`` of them.

    Parameters
    ----------
    make:
        Returns the state of a new key.
    max_keys:
        How many keys are held.
    """

    __slots__ = ("_make", "_states", "max_keys")

    def __init__(self, make: Callable[[], T], max_keys: int = MAX_KEYS) -> None:
        self._make = make
        self._states: OrderedDict[Hashable, T] = OrderedDict()
        self.max_keys = max_keys

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: Hashable) -> T:
        """Return the state of ``key``, made if it is new; the oldest key is forgotten when there is no room."""
        state, _ = self.get_or_evict(key)
        return state

    def get_or_evict(self, key: Hashable) -> tuple[T, T | None]:
        """Return the state of ``key``, and the state of the key that had to leave for it, if one had to."""
        states = self._states
        state = states.get(key)
        if state is not None:
            if len(states) > 1:
                states.move_to_end(key)
            return state, None
        evicted = states.popitem(last=False)[1] if len(states) >= self.max_keys else None
        state = states[key] = self._make()
        return state, evicted

    def values(self) -> Iterator[T]:
        """Yield every state, the least recently used first."""
        yield from self._states.values()

    def clear(self) -> None:
        """Forget every key."""
        self._states.clear()


def key_of(fields: Mapping[str, Any], name: str | None) -> Hashable:
    """Return the value of the key field, ``None`` for stages that keep no keys apart.

    Raises ``StageError`` where the field is missing or cannot be a key, as a list cannot.
    """
    if name is None:
        return None
    try:
        key: Hashable = fields[name]
        hash(key)
    except KeyError:
        raise StageError(f"the record has no field {name!r} to be the key") from None
    except TypeError:
        kind = type(fields[name]).__name__
        raise StageError(f"field {name!r} is a {kind} and cannot be a key", expected="text or a number") from None
    return key
