"""A ring: slots of shared memory through which records go to a worker process and answers come back."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import msgspec

SLOTS = 4
"""Records on their way at once: one is worked on while the next is written and the last is read."""
AREA = 1 << 20
"""Bytes of a slot in each direction: a 640x480x3 frame fits. 8 MiB for a ring: containers often have only 64."""
_ALIGNMENT = 64  # a cache line, and what vectorised code likes


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """How an object lies in a slot: its pickle, then its buffers, each ``(offset, length)``.

    What does not fit the slot travels in ``whole`` instead, with its buffers ``apart``.
    """

    pickle: tuple[int, int] = (0, 0)
    buffers: tuple[tuple[int, int], ...] = ()
    whole: bytes | None = None
    apart: tuple[bytes, ...] = ()


class Ring:
    """Slots of shared memory, used in turn.

    Every slot has an area for each direction, so that an answer can be written while its question is still in use.
    Large arrays go through it without being pickled (PEP 574); the pipe beside it carries only where they lie.
    """

    def __init__(self, name: str | None = None) -> None:
        self._memory = SharedMemory(name, create=name is None, size=SLOTS * 2 * AREA)
        self._owner = name is None
        self._bytes: memoryview = memoryview(self._memory.buf)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """The name by which the other process finds the memory."""
        return self._memory.name

    def write(self, slot: int, direction: int, thing: Any) -> Parcel:
        """Put an object into a slot (``direction`` 0 to the worker, 1 back)."""
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
        views = [memoryview(body), *(buffer.raw() for buffer in buffers)]
        places, end = _lay_out([view.nbytes for view in views])
        if end > AREA:
            return Parcel(whole=body, apart=tuple(bytes(view) for view in views[1:]))
        start = (slot * 2 + direction) * AREA
        for (offset, length), view in zip(places, views, strict=True):
            self._bytes[start + offset : start + offset + length] = view
        return Parcel(places[0], tuple(places[1:]))

    def read(self, slot: int, direction: int, parcel: Parcel) -> Any:
        """Take an object out of a slot; its arrays are copies, so that whoever keeps one may.

        On their way to the worker arrays are read-only: what a stage leaves as it is does not come back, so that a
        change in place would be forgotten.
        """
        copied = bytearray if direction else bytes
        if parcel.whole is not None:
            return pickle.loads(parcel.whole, buffers=[copied(part) for part in parcel.apart])
        start = (slot * 2 + direction) * AREA
        memory = self._bytes

        def part(place: tuple[int, int]) -> bytes | bytearray:
            return copied(memory[start + place[0] : start + place[0] + place[1]])

        return pickle.loads(part(parcel.pickle), buffers=[part(place) for place in parcel.buffers])

    def close(self) -> None:
        """Let go of the memory; its owner also frees it."""
        self._bytes.release()
        self._memory.close()
        if self._owner:
            self._memory.unlink()


def _lay_out(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """Place parts one after the other, each on a cache line; return the places and the end."""
    places, end = [], 0
    for length in lengths:
        places.append((end, length))
        end += -(-length // _ALIGNMENT) * _ALIGNMENT
    return places, end


_ENCODER = msgspec.msgpack.Encoder()


def send(pipe: Connection, message: Any) -> None:
    """Send a small message beside the ring."""
    pipe.send_bytes(_ENCODER.encode(message))
