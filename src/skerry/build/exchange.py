"""An exchange: what a trial asks its child process, what that answers, and how both travel through a pipe.

A message is a frame: four bytes of length, little-endian, and as many bytes of MessagePack. Requests and answers take
turns; the child ends when the pipe does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

import msgspec

from skerry.build.limits import Confinement
from skerry.spec.manifest import ModelManifest, Variant

FailureKind = Literal["crash", "out-of-memory", "timeout", "error"]
"""Ended by a signal; ended for want of memory; gave no answer in time; said itself what is wrong."""

_HEAD = struct.Struct("<I")
_LONGEST_FRAME = 1 << 30
"""Bytes: beyond all vectors of a trial; a longer one is no frame, but something that a library wrote into the pipe."""


class Load(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Confine yourself, load this variant and answer ``text``."""

    confinement: Confinement
    folder: str
    manifest: ModelManifest
    variant: Variant
    text: str


class Turn(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Answer ``lead`` to get warm, then each of ``texts`` alone, and tell how long each of these took."""

    lead: list[str]
    texts: list[str]


class Answer(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Answer each of ``texts`` alone and hand over the vectors."""

    texts: list[str]


class Batch(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Answer ``texts`` all at once and tell how long that took."""

    texts: list[str]


Request = Load | Turn | Answer | Batch


class Loaded(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The variant is ready; ``load_ms`` is the time from the request to the first answer, imports included."""

    load_ms: float
    dimension: int


class Times(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Milliseconds of each text (or of the batch); with the lead, processor time of all threads and preemptions.

    ``preempted`` counts how often another process took a core away (involuntary context switches).
    """

    milliseconds: list[float]
    cpu_ms: float
    preempted: int = 0


class Vectors(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The vectors, float32 in C order of shape (rows, dimension), and the peak of the process so far in bytes."""

    rows: int
    dimension: int
    data: bytes
    peak_bytes: int


class Broken(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """It went wrong in a way that the child survived."""

    kind: FailureKind
    reason: str


Reply = Loaded | Times | Vectors | Broken

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
