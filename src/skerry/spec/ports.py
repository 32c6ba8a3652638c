"""The doors: what a source, stage, sink, runtime or action has to offer to take part.

Each plugin is one class in one file, found through an entry point of the group named beside its protocol.
``Options`` is always a frozen ``msgspec.Struct``: the keys that the pipeline file may give it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import msgspec

from skerry.spec.record import Emission, Outcome, Record

Fields = dict[str, Any]
Log = logging.Logger
if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = Any  # numpy is loaded by whoever has an array, not by whoever names one


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every plugin's options; a plugin without options uses it as it is."""

    shorthand: ClassVar[str] = ""
    """The option that a plain value stands for: with ``expression``, ``- filter: "a > 1"`` is allowed."""


class Stop(Protocol):
    """A request to end, which can be waited for (``threading.Event`` is one)."""

    def is_set(self) -> bool:
        """Tell whether to end now."""

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until the request comes or ``timeout`` seconds are over; tell whether it came."""


class Address(msgspec.Struct, frozen=True):
    """A URI of a source or sink, taken apart.

    ``mqtt://host:1883/a/b?qos=1`` has the scheme ``mqtt``, the host ``host``, the port 1883 and the path ``/a/b``;
    the query has become options. ``tail:///var/log/x`` has the path ``/var/log/x``, ``tail://x`` the path ``x``.
    """

    text: str
    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    username: str = ""
    password: str = ""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What every plugin gets when it is opened.

    Parameters
    ----------
    name:
        Its name in the pipeline, unique there.
    home:
        The folder of the pipeline file; relative paths start here.
    state:
        A folder of its own for what must survive a restart; it exists.
    stop:
        Set when the run ends; anything that waits, waits on it.
    log:
        Where to say things in plain words.
    insecure:
        Whether plain-text transport beyond loopback was allowed in the pipeline file.
    models:
        Finds a model by its name in the pipeline file.
    release:
        The digest of the release that runs, ``sha256:…``; empty where nothing was built.
    """

    name: str
    home: Path
    state: Path
    stop: Stop
    log: Log
    insecure: bool = False
    models: Callable[[str], TextModel] | None = None
    release: str = ""


class Emit(Protocol):
    """How a source hands over an item; safe to call from any thread."""

    def __call__(self, fields: Fields, /, *, size: int = 0, position: Any = None, wait: bool = True) -> bool:
        """Hand over one item.

        ``size`` is in bytes; ``position`` is handed to :meth:`Source.commit` once this and every earlier item is
        settled. With ``wait=False`` an item that a full queue would make wait is refused. Returns ``False`` when
        the item was refused, because the queue is full or the run ends: it was not counted and may be offered again.
        """


class Source(Protocol):
    """Where data come from. Entry point group ``skerry.sources``; the name is the URI's scheme."""

    Options: ClassVar[type[Options]]
    live: ClassVar[bool]
    """Whether it waits for the outside world and so needs a thread of its own; others are pulled inline."""

    def __init__(self, address: Address, options: Any) -> None: ...

    def open(self, context: Context, position: Any | None) -> None:
        """Get ready, resuming at ``position`` (made of plain JSON values) where one was committed.

        Raises ``SourceUnavailableError`` when it cannot come up; the engine tries again with a growing pause.
        """

    def run(self, emit: Emit, stop: Stop) -> None:
        """Emit items until there are no more (return) or ``stop`` is set; raises ``SourceError`` when it breaks."""

    def commit(self, position: Any) -> None:
        """Note that everything up to ``position`` is settled, for sources that must tell somebody (MQTT acks)."""

    def close(self) -> None:
        """Give everything back; safe to call twice, and after a failed ``open``."""


class Stage(Protocol):
    """What is done with a record. Entry point group ``skerry.stages``."""

    Options: ClassVar[type[Options]]

    def __init__(self, options: Any) -> None: ...

    def open(self, context: Context) -> None:
        """Load what is needed; raises the error that tells the user what is wrong."""

    def process(self, record: Record) -> Outcome:
        """Answer for one record; an exception is handled by the stage's ``on_error`` policy."""

    def close(self) -> None:
        """Give everything back; safe to call twice."""


@runtime_checkable
class BatchStage(Protocol):
    """A stage that is faster on several records at once."""

    max_batch: int
    """How many records it takes at the most; a batch is what is queued, it is never waited for."""

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Answer for every record, in their order; a record's own failure is an exception in its place."""


@runtime_checkable
class RememberingStage(Protocol):
    """A stage whose answer depends on the records before: several workers, each with a part of them, would be wrong."""

    remembers: str
    """What it keeps from record to record, in words."""


@runtime_checkable
class TickingStage(Protocol):
    """A stage that sends something on by itself, as a window does when its time is over."""

    tick_s: float
    """Seconds between two calls of ``tick``; 0 for never."""

    def tick(self, now_ns: int) -> Sequence[Emission]:
        """Return what has become due at ``now_ns`` of the monotonic clock."""

    def flush(self) -> Sequence[Emission]:
        """Return all that is still held: the run ends."""


class Sink(Protocol):
    """Where answers go. Entry point group ``skerry.sinks``; the name is the URI's scheme."""

    Options: ClassVar[type[Options]]
    blocking: ClassVar[bool]
    """Whether writing can wait for something slow, so that it needs a queue and a thread of its own.

    A sink without is written inline, and its records are settled when they are written: only for what needs no flush.
    """

    def __init__(self, address: Address, options: Any) -> None: ...

    def open(self, context: Context) -> None:
        """Get ready; raises ``SinkUnavailableError`` when it cannot: the engine tries again."""

    def write(self, records: Sequence[Record]) -> None:
        """Take all of the records or raise ``SinkError`` having taken none of them."""

    def flush(self) -> None:
        """Make durable what was written; only then are the records settled."""

    def close(self) -> None:
        """Give everything back; safe to call twice."""


@runtime_checkable
class CountingSink(Protocol):
    """A sink that counts what happens behind it, as one that sends on later does."""

    def counters(self) -> dict[str, int]:
        """Return its counts by name, from any thread; after ``close`` those at the end."""


class TensorSpec(msgspec.Struct, frozen=True):
    """An input or output of a model: its name, numpy dtype name and shape.

    A size in ``shape`` is a number, or the name of a dynamic axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Availability(msgspec.Struct, frozen=True):
    """Whether a runtime works here: its version and devices, or why not and what to do about it.

    ``lacks`` names the devices that the engine knows and that are not here, each with what it would take.
    """

    usable: bool
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""
    lacks: dict[str, str] = {}


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model is: tensors, threads, device, and memory in bytes added by loading it."""

    runtime: str
    version: str
    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    threads: int
    device: str
    memory_bytes: int


class Session(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    def describe(self) -> SessionInfo:
        """Return what the model is and takes."""

    def warm_up(self) -> None:
        """Run once on made-up input, so that the first real answer is not the slow one."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of named arrays and return every output by name.

        Raises ``TensorError`` for a missing, unknown, wrongly shaped or wrongly typed input.
        """

    def close(self) -> None:
        """Free the model; safe to call twice. ``run`` then raises ``ModelError``."""


@runtime_checkable
class TrustingSession(Protocol):
    """A session that can spare the checks of ``run``: on a small model they cost a share that shows."""

    def run_trusted(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of arrays that were made by ``describe``."""


class Runtime(Protocol):
    """An inference engine. Entry point group ``skerry.runtimes``."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """File name endings of the models it takes."""

    @classmethod
    def availability(cls) -> Availability:
        """Tell whether it works on this machine, without loading a model."""

    def load(self, path: Path, *, threads: int = 1, device: str = "cpu", options: Mapping[str, Any] = ...) -> Session:
        """Load a model file.

        Raises ``ModelMissingError``, ``ModelCorruptError``, ``ModelKindError`` or ``RuntimeUnavailableError``.
        """


class TextModel(Protocol):
    """An encoder as the stages see it: text in, vectors out; it can be swapped between two batches."""

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""

    @property
    def generation(self) -> int:
        """Changes when the model is swapped: what another generation computed does not go with new answers."""

    def embed(self, texts: Sequence[str]) -> Array:
        """Return one pooled vector per text: float32 of shape (len(texts), dimension)."""

    def infer(self, texts: Sequence[str]) -> dict[str, list[Array]]:
        """Return the model's raw outputs by name, a list with one array per text."""


class Signer(Protocol):
    """A private key that vouches for what a device sends; it may live in a chip."""

    @property
    def key_id(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the public key (DER, SubjectPublicKeyInfo)."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes r || s of ECDSA over P-256 and SHA-256 (FIPS 186-5, section 6)."""


class Verify(Protocol):
    """Finds the public key of a ``key_id`` and checks a signature with it."""

    def __call__(self, key_id: bytes, message: bytes, signature: bytes, /) -> bool:
        """Tell whether the key is known and vouches for the message."""
