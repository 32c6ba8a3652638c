"""LiteRT (once TensorFlow Lite): runs ``.tflite`` models on the CPU through XNNPACK.

A file with several signatures, each for another length, is one model that takes any length up to the largest.
"""

from __future__ import annotations

import fnmatch
import logging
import queue
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

from skerry.runtimes.litert_engines import (
    Compiled,
    Engine,
    Interpreted,
    import_litert,
    keeps_files_in_memory,
    listening,
    prepare,
)
from skerry.runtimes.memory import give_back_free_memory, resident_bytes, unmap_file_pages
from skerry.runtimes.modelfile import require_kind
from skerry.runtimes.options import read_options, require_threads
from skerry.runtimes.signatures import Signature, Signatures
from skerry.runtimes.tensors import InputCheck
from skerry.spec.errors import (
    DependencyError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    RuntimeUnavailableError,
    SpecError,
    TensorError,
)
from skerry.spec.ports import Array, Availability, Options, SessionInfo, TensorSpec

log = logging.getLogger(__name__)

_OTHER_VERSION = re.compile(r"find op|custom op|unresolved|not supported|unsupported|flex", re.IGNORECASE)
_FAILURES = (RuntimeError, ValueError, TypeError)
"""What the library raises for a file that it cannot take: ``TypeError`` for a tensor's number that is out of range."""
_MESSAGE_LIMIT = 400
"""Characters kept of the library's messages."""


class LiteRtOptions(Options, frozen=True, kw_only=True):
    """What can be set for one session.

    Attributes
    ----------
    signature:
        Which of the file's signatures to take, where ``*`` stands for anything; those taken have to be sizes of one
        graph, such as ``encode_*`` with the lengths 16 and 32.
    engine:
        ``interpreter``, ``compiled``, or ``auto``: the compiled model where a file has several signatures and the
        system can keep files in memory, else the interpreter.
    copies:
        How many runs may go on at the same time. Each beyond the first takes the memory of the model once more.
    """

    signature: str = "*"
    engine: Literal["auto", "interpreter", "compiled"] = "auto"
    copies: int = 1


class LiteRtRuntime:
    """Loads LiteRT models."""

    name: ClassVar[str] = "litert"
    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)

    @classmethod
    def availability(cls) -> Availability:
        """Tell the version, or why there is none."""
        if find_spec("ai_edge_litert") is None:
            return Availability(
                usable=False, reason="the package ai-edge-litert is not installed", hint="pip install 'skerry[litert]'"
            )
        try:
            import_litert()
        except DependencyError as error:
            return Availability(usable=False, reason=error.message, hint=error.hint)
        return Availability(usable=True, version=_version(), devices=("cpu",))

    def load(
        self, path: Path, *, threads: int = 1, device: str = "cpu", options: Mapping[str, Any] | None = None
    ) -> LiteRtSession:
        """Load a LiteRT model.

        Parameters
        ----------
        path:
            The ``.tflite`` file.
        threads:
            Threads that work on one run, the caller's included.
        device:
            ``cpu``.
        options:
            See :class:`LiteRtOptions`.

        Raises
        ------
        ModelMissingError
            There is no such file.
        ModelCorruptError
            The bytes are no valid model. Damage within weights cannot be seen here; a bundle's digests show it.
        ModelKindError
            The file is another runtime's, has operators that this LiteRT lacks, takes what numpy cannot hold, or has
            signatures that are no sizes of one graph.
        RuntimeUnavailableError
            ``device`` is not ``cpu``.
        DependencyError
            The package is not installed.
        SpecError
            An option is unknown or wrong, or ``threads`` is below 1.
        """
        require_threads(threads)
        chosen = _options(options)
        if device != "cpu":
            raise RuntimeUnavailableError(f"the litert runtime has no device {device!r}", expected="cpu")
        require_kind(path, self.name)
        # What importing and looking around takes is not to add to the peak of loading.
        unmap_file_pages()
        library = import_litert()
        signatures = _signatures(library, path, chosen.signature)
        together = Signatures(signatures, str(path))
        kind = _engine(chosen, signatures, path)
        with listening([]):
            prepare(kind)
        give_back_free_memory()
        unmap_file_pages()
        before = resident_bytes()
        engines = [_open(kind, library, path, threads) for _ in range(chosen.copies)]
        give_back_free_memory()
        grown = max(0, resident_bytes() - before)
        unmap_file_pages()
        info = SessionInfo(
            runtime=self.name, version=_version(), path=str(path), inputs=together.inputs, outputs=together.outputs,
            threads=threads, device=device, memory_bytes=grown,
        )  # fmt: skip
        return LiteRtSession(engines, together, signatures, info)


class LiteRtSession:
    """A loaded LiteRT model; ``run`` may be called from several threads, and waits for a copy that is idle."""

    def __init__(
        self, engines: list[Engine], together: Signatures, signatures: list[Signature], info: SessionInfo
    ) -> None:
        # None goes round once the session is closed, to tell those who wait.
        self._idle: queue.SimpleQueue[Engine | None] = queue.SimpleQueue()
        for engine in engines:
            self._idle.put(engine)
        self._copies = len(engines)
        self._closed = False
        self._info = info
        self._check = InputCheck(info.inputs, info.path)
        self._together = together
        self._signatures = signatures

    def describe(self) -> SessionInfo:
        """Return what the model is and takes.

        The axis in which signatures differ is called ``length``; the leading axis of rows ``batch``, also where the
        file takes one row only.
        """
        return self._info

    def warm_up(self) -> None:
        """Run every signature of every copy once on zeros, so that memory is taken and weights are at hand.

        Raises ``ModelError`` when the session was closed, or the graph fails on zeros.
        """
        import numpy as np

        for _ in range(self._copies):
            for signature in self._signatures:
                shapes = {
                    spec.name: tuple(s if isinstance(s, int) else 1 for s in spec.shape) for spec in signature.inputs
                }
                zeros = {spec.name: np.zeros(shapes[spec.name], dtype=spec.dtype) for spec in signature.inputs}
                self._run(signature.key, zeros)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of named arrays and return every output by name.

        Rows are run one after the other where the file takes one at a time. Where it has several lengths, inputs are
        padded with zeros to the smallest that holds them, and outputs are cut back along the same axis. So the model
        has to take zeros for padding: by a mask that is 0 there, or else by itself.

        Raises
        ------
        TensorError
            An input is missing, unknown, has a wrong dtype or shape, or is longer than the largest signature.
        ModelError
            The session was closed, or the graph failed.
        """
        if self._closed:
            raise ModelError("the model was closed", where=self._info.path)
        sizes = self._check(inputs)
        pieces = self._together.pieces(sizes)
        answers = [
            self._together.trimmed(piece, self._run(piece.signature.key, self._together.padded(piece, inputs)), sizes)
            for piece in pieces
        ]
        return answers[0] if len(answers) == 1 else _joined(answers)

    def close(self) -> None:
        """Free the model once the runs under way have ended; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._drain()
            give_back_free_memory()

    def _run(self, key: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one signature on an idle copy."""
        engine = self._idle.get()
        if engine is None:
            self._idle.put(None)
            raise ModelError("the model was closed", where=self._info.path)
        try:
            return engine.run(key, inputs)
        except (RuntimeError, ValueError) as error:
            text = _plain(str(error))
            kind = TensorError if "out of bounds" in text or "resize" in text.lower() else ModelError
            raise kind(f"the model failed: {text}", where=self._info.path) from error
        finally:
            self._idle.put(engine)
            del engine
            if self._closed:
                self._drain()

    def _drain(self) -> None:
        """Drop the copies that are idle, and tell those who wait for one."""
        while True:
            try:
                self._idle.get_nowait()
            except queue.Empty:
                break
        self._idle.put(None)


def _version() -> str:
    from ai_edge_litert import __version__

    return str(__version__)


def _options(options: Mapping[str, Any] | None) -> LiteRtOptions:
    chosen = read_options("litert", LiteRtOptions, options)
    if chosen.copies < 1:
        raise SpecError(f"{chosen.copies} copies of a model cannot run", expected="1 or more")
    return chosen


def _engine(chosen: LiteRtOptions, signatures: list[Signature], path: Path) -> str:
    """Choose the engine."""
    fixed = bool(signatures[0].key) and all(signature.is_fixed for signature in signatures)
    if chosen.engine == "compiled" and not fixed:
        raise ModelKindError(
            "the compiled engine takes signatures with fixed shapes only",
            where=str(path),
            hint="leave the option engine out",
        )
    if chosen.engine != "auto":
        return chosen.engine
    return "compiled" if fixed and len(signatures) > 1 and keeps_files_in_memory() else "interpreter"


def _open(kind: str, library: ModuleType, path: Path, threads: int) -> Engine:
    """Load one copy, and say what is wrong with the file when that fails."""
    said: list[str] = []
    try:
        with listening(said):
            return Compiled(path, threads) if kind == "compiled" else Interpreted(library, path, threads)
    except _FAILURES as error:
        raise _load_error(error, said, path) from error


def _signatures(library: ModuleType, path: Path, wanted: str) -> list[Signature]:
    """Check the file's structure, which the interpreter does and the compiled model does not, and describe it.

    Raises
    ------
    ModelCorruptError, ModelKindError
        The file is damaged, or is none that can be run here.
    SpecError
        There is no such signature.
    """
    said: list[str] = []
    try:
        with listening(said):
            interpreter = library.Interpreter(model_path=str(path))
            keys = list(interpreter.get_signature_list())
            taken = [key for key in keys if fnmatch.fnmatchcase(key, wanted)]
            if keys and not taken:
                raise SpecError(
                    f"the model has no signature {wanted!r}", where=str(path), expected=f"one of {', '.join(keys)}"
                )
            return [_signature(interpreter, key, path) for key in taken or [""]]
    except _FAILURES as error:
        raise _load_error(error, said, path) from error


def _signature(interpreter: Any, key: str, path: Path) -> Signature:
    if key:
        runner = interpreter.get_signature_runner(key)
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
    else:
        inputs = {details["name"]: details for details in interpreter.get_input_details()}
        outputs = {details["name"]: details for details in interpreter.get_output_details()}
    # The library sorts by name; the graph's own order is that of the tensors' numbers.
    order = sorted(inputs, key=lambda name: int(inputs[name]["index"]))
    return Signature(
        key,
        tuple(_tensor(name, inputs[name], path) for name in order),
        tuple(_tensor(name, details, path) for name, details in outputs.items()),
    )


def _tensor(name: str, details: Mapping[str, Any], path: Path) -> TensorSpec:
    import numpy as np

    dtype = np.dtype(details["dtype"])
    if dtype.kind not in "biufc":
        raise ModelKindError(f"{name!r} is a tensor of {dtype}", where=str(path), expected="a tensor of numbers")
    declared = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    shape = tuple(int(size) if size >= 0 else f"{name}.{axis}" for axis, size in enumerate(declared))
    return TensorSpec(name, dtype.name, shape)


def _load_error(error: Exception, said: list[str], path: Path) -> ModelError:
    # The compiled model says in its error that it failed, and on the terminal why.
    text, where = _plain("; ".join(dict.fromkeys([*said, str(error)]))), str(path)
    if _OTHER_VERSION.search(text):
        hint = "convert it without custom operators, or install a newer ai-edge-litert"
        return ModelKindError(f"this LiteRT cannot run the model: {text}", where=where, hint=hint)
    if "alloc" in text.lower() and "memory" in text.lower():
        return ModelError(f"the model does not fit into memory: {text}", where=where)
    return ModelCorruptError(f"the model is damaged: {text}", where=where, hint="fetch or build it again")


def _plain(said: str) -> str:
    text = " ".join(said.split())
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + " …"


def _joined(answers: list[dict[str, Array]]) -> dict[str, Array]:
    """Put the rows of several runs together again."""
    import numpy as np

    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
