"""An exchange: what a trial asks its child process, what that answers, and how both travel through a pipe.

A message is a frame: four bytes of length, little-endian, and as many bytes of MessagePack. Requests and answers take
turns; the child ends when the pipe does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from skerry.build.items import Item, Row
from skerry.build.limits import Confinement
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.ports import Array

FailureKind = Literal["crash", "out-of-memory", "timeout", "error"]
"""Ended by a signal; ended for want of memory; gave no answer in time; said itself what is wrong."""

_HEAD = struct.Struct("<I")
_LONGEST_FRAME = 1 << 30
"""Bytes: beyond all answers of a trial; a longer one is no frame, but something that a library wrote into the pipe."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An array as it travels: its name, dtype, shape, and bytes in C order and this machine's order of bytes."""

    name: str = ""
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: Array, name: str = "") -> Tensor:
        """Return an array to send."""
        return cls(name=name, dtype=array.dtype.name, shape=array.shape, data=array.tobytes())

    def array(self) -> Array:
        """Return the array that came, which may be written to, as some runtimes want it."""
        import numpy as np

        return np.frombuffer(bytearray(self.data), dtype=self.dtype).reshape(self.shape)


Asked = str | tuple[Tensor, ...]
"""An item as it travels: a text, or the arrays of a row."""


def asked(item: Item) -> Asked:
    """Return an item to send."""
    return item if isinstance(item, str) else tuple(Tensor.of(array, name) for name, array in item.items())


def row_of(sent: tuple[Tensor, ...]) -> Row:
    """Return the row that came."""
    return {tensor.name: tensor.array() for tensor in sent}


class Load(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Confine yourself, load this variant and answer ``item``.

    ``output`` is the place, among the model's outputs, of the one that is judged; only models of tensors have several.
    """

    confinement: Confinement
    folder: str
    manifest: ModelManifest
    variant: Variant
    item: Asked
    output: int = 0


class Turn(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Answer ``lead`` to get warm, then each of ``items`` alone, and tell how long each of these took."""

    lead: Sequence[Asked]
    items: Sequence[Asked]


class Answer(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Answer each of ``items`` alone and hand over the answers."""

    items: Sequence[Asked]


class Batch(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Answer ``items`` all at once and tell how long that took."""

    items: Sequence[Asked]


Request = Load | Turn | Answer | Batch


class Loaded(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The variant is ready; ``load_ms`` is the time from the request to the first answer, imports included."""

    load_ms: float


class Times(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Milliseconds of each item (or of the batch); with the lead, processor time of all threads and preemptions.

    ``preempted`` counts how often another process took a core away (involuntary context switches).
    """

    milliseconds: list[float]
    cpu_ms: float
    preempted: int = 0


class Answers(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The answers, an array for each item, and the peak of the process so far in bytes."""

    arrays: list[Tensor]
    peak_bytes: int


class Broken(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """It went wrong in a way that the child survived."""

    kind: FailureKind
    reason: str


Reply = Loaded | Times | Answers | Broken

requests = msgspec.msgpack.Decoder(Request)
replies = msgspec.msgpack.Decoder(Reply)


def frame(message: Request | Reply) -> bytes:
    """Return a message as it travels."""
    body = msgspec.msgpack.encode(message)
    return _HEAD.pack(len(body)) + body


def read_frame(read: Callable[[int], bytes]) -> bytes:
    """Return the body of the next frame; ``read`` returns up to as many bytes as it is asked for, none at the end.

    Raises
    ------
    EOFError
        The pipe ended.
    ValueError
        What came is no frame.
    """
    (length,) = _HEAD.unpack(_exactly(read, _HEAD.size))
    if length > _LONGEST_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    return _exactly(read, length)


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = read(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
