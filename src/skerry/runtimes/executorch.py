"""ExecuTorch: runs programs (``.pte``) on the CPU, with XNNPACK where the program was lowered to it.

A program has neither names for its tensors nor says which axes are dynamic. One that Skerry has made tells both in a
constant method, :data:`TENSORS`; of any other one the tensors are called ``input_0``, ``output_0`` and so on, and have
the fixed sizes that it was exported with.

The package's Python door loads PyTorch, which costs some 150 MB: it is for workstations and for measuring. All
sessions of a process share one pool of threads, so that runs take turns.
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import msgspec

from skerry.runtimes.memory import give_back_free_memory, resident_bytes
from skerry.runtimes.modelfile import EXECUTORCH, Kind, require_kind
from skerry.runtimes.options import read_options, require_threads
from skerry.runtimes.tensors import InputCheck, run_on_made_up
from skerry.spec.errors import (
    DependencyError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    RuntimeUnavailableError,
    TensorError,
)
from skerry.spec.ports import Array, Availability, Options, SessionInfo, TensorSpec

log = logging.getLogger(__name__)

TENSORS = "skerry_tensors"
"""The constant method of a program whose text is JSON: ``{"inputs": […], "outputs": […]}`` of ``TensorSpec``."""

_BACKEND = "XnnpackBackend"

_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
}  # fmt: skip
"""The numbers of PyTorch's ``ScalarType`` that numpy has a dtype for."""

_pool = threading.RLock()
"""Held by whoever loads or runs: programs share one pool of threads, and a method is no more than one run at a time."""

_open_sessions: set[int] = set()
"""Sessions that hold on to the pool: while there are any, it cannot be replaced."""


class ExecuTorchOptions(Options, frozen=True, kw_only=True):
    """What can be set for one session: the ``method`` of the program that is run."""

    method: str = "forward"


class _Tensors(msgspec.Struct, frozen=True):
    """What :data:`TENSORS` tells."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def import_executorch() -> ModuleType:
    """Import the bindings of ExecuTorch, and PyTorch with them, and return them.

    Raises ``DependencyError`` when a package is not installed, or was built for another PyTorch.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("executorch.extension.pybindings.portable_lib")
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"the executorch runtime needs the package executorch and the PyTorch that it was built for: {error}",
            hint="pip install 'skerry[executorch]'",
        ) from error


class ExecuTorchRuntime:
    """Loads ExecuTorch programs."""

    name: ClassVar[str] = "executorch"
    suffixes: ClassVar[tuple[str, ...]] = (".pte",)

    @classmethod
    def availability(cls) -> Availability:
        """Tell the version, or why there is none."""
        if find_spec("executorch") is None:
            return Availability(
                usable=False, reason="the package executorch is not installed", hint="pip install 'skerry[executorch]'"
            )
        try:
            import_executorch()
        except DependencyError as error:
            return Availability(usable=False, reason=error.message, hint=error.hint)
        return Availability(usable=True, version=_version(), devices=("cpu",))

    def load(
        self, path: Path, *, threads: int = 1, device: str = "cpu", options: Mapping[str, Any] | None = None
    ) -> ExecuTorchSession:
        """Load a program.

        Parameters
        ----------
        path:
            The program.
        threads:
            Threads of the pool, the caller's included. The pool is the process's: while another session is open it
            stays as it is, which ``describe`` tells.
        device:
            ``cpu``: what a program was lowered to is settled when it is exported.
        options:
            See :class:`ExecuTorchOptions`.

        Raises
        ------
        ModelMissingError, ModelCorruptError
            There is no such file, or it is damaged or cut short.
        ModelKindError
            The file is another runtime's, lacks the method, or needs a backend or operator that is not built in.
        RuntimeUnavailableError
            Another device than ``cpu``.
        DependencyError
            The package is not installed.
        SpecError
            An option is unknown or wrong, or ``threads`` is below 1.
        """
        require_threads(threads)
        chosen = read_options(self.name, ExecuTorchOptions, options)
        kind = require_kind(path, self.name)
        if device != "cpu":
            raise RuntimeUnavailableError(f"executorch has no device {device!r} here", expected="cpu")
        _require_whole(path, kind)
        bindings = import_executorch()
        before = resident_bytes()
        with _pool:
            _set_threads(bindings, threads)
            program, method = _open(bindings, path, chosen.method)
            tensors = _tensors(program, chosen.method, path)
            actual = int(bindings._threadpool_get_thread_count())
            info = SessionInfo(
                runtime=self.name, version=_version(), path=str(path), inputs=tensors.inputs, outputs=tensors.outputs,
                threads=actual, device=device,
                # Weights that XNNPACK does not repack stay in the mapped file, and come into memory when first used.
                memory_bytes=max(resident_bytes() - before, path.stat().st_size),
            )  # fmt: skip
            return ExecuTorchSession(program, method, info, _most(program, chosen.method))


class ExecuTorchSession:
    """A loaded program; ``run`` may be called from several threads, which take turns."""

    def __init__(self, program: Any, method: Any, info: SessionInfo, most: list[tuple[int, ...]]) -> None:
        self._program: Any | None = program
        self._method: Any | None = method
        self._info = info
        self._check = InputCheck(info.inputs, info.path)
        self._most = {spec.name: sizes for spec, sizes in zip(info.inputs, most, strict=True)}
        self._outputs = [spec.name for spec in info.outputs]
        _open_sessions.add(id(self))

    def describe(self) -> SessionInfo:
        """Return what the program is and takes."""
        return self._info

    def warm_up(self) -> None:
        """Run once on zeros. Raises ``ModelError`` when the program refuses every size that was tried."""
        run_on_made_up(self, lambda: self._method is None)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of named arrays and return every output by name.

        Raises
        ------
        TensorError
            An input is missing, unknown, or has a wrong dtype or shape, or is larger than the program allows.
        ModelError
            The session was closed, or the program failed.
        """
        import torch

        with _pool:
            if self._method is None:
                raise ModelError("the model was closed", where=self._info.path)
            self._check(inputs)
            for name, most in self._most.items():
                if any(size > limit for size, limit in zip(inputs[name].shape, most, strict=True)):
                    raise TensorError(
                        f"input {name!r} is larger than the program allows: {inputs[name].shape}",
                        where=self._info.path,
                        expected=f"at most {most}",
                    )
            given = [torch.from_numpy(_plain(inputs[name])) for name in self._most]
            try:
                # The program's own memory is used again by the next run: outputs are copied out of it.
                answers = self._method(given, clone_outputs=True)
            except RuntimeError as error:
                raise ModelError(f"the program failed: {_first_line(error)}", where=self._info.path) from error
            return {name: answer.numpy() for name, answer in zip(self._outputs, answers, strict=True)}

    def close(self) -> None:
        """Free the program once the run under way has ended; safe to call twice."""
        with _pool:
            if self._method is None:
                return
            self._method = None
            self._program = None
            _open_sessions.discard(id(self))
        give_back_free_memory()


def _version() -> str:
    try:
        return version("executorch")
    except PackageNotFoundError:
        return "unknown"


def _require_whole(path: Path, kind: Kind | None) -> None:
    """Raise ``ModelCorruptError`` for a file that does not begin as a program, or is shorter than its header says.

    The extended header (schema/extended_header.cpp of ExecuTorch) stands at offset 8: ``eh00``, its length, the size of
    the program, where the segments with weights begin and, in longer ones, how much they hold. Weights are mapped, so
    that without this look a file cut short would end the process when they are first read; so would bytes that are no
    program at all.
    """
    if kind is not EXECUTORCH:
        raise ModelCorruptError("the file is no program", where=str(path), hint="fetch or build it again")
    with path.open("rb") as file:
        head = file.read(40)
    if head[8:12] != b"eh00":
        return
    length = int.from_bytes(head[12:16], "little")
    program, base = (int.from_bytes(head[place : place + 8], "little") for place in (16, 24))
    segments = int.from_bytes(head[32:40], "little") if length >= 32 else 0
    expected = base + segments if base else program
    if path.stat().st_size < expected:
        raise ModelCorruptError(
            f"the program is cut short: {path.stat().st_size} bytes",
            where=str(path),
            expected=f"at least {expected} bytes",
            hint="fetch or build it again",
        )


def _set_threads(bindings: ModuleType, threads: int) -> None:
    """Make the pool as large as asked, unless a program holds on to it: XNNPACK would wait for the old one forever."""
    if bindings._threadpool_get_thread_count() == threads:
        return
    if _open_sessions:
        log.warning("executorch keeps its pool of threads while another program is loaded: close that one first")
        return
    bindings._unsafe_reset_threadpool(threads)


def _open(bindings: ModuleType, path: Path, method: str) -> tuple[Any, Any]:
    try:
        program = bindings._load_program(str(path), program_verification=bindings.Verification.InternalConsistency)
    except RuntimeError as error:
        raise ModelCorruptError(
            f"the program is damaged: {_first_line(error)}", where=str(path), hint="fetch or build it again"
        ) from error
    names = [program.get_method_name(place) for place in range(program.num_methods())]
    if method not in names:
        raise ModelKindError(
            f"the program has no method {method!r}", where=str(path), expected=f"one of {', '.join(names)}"
        )
    try:
        return program, program.load_method(method)
    except RuntimeError as error:
        raise ModelKindError(
            f"this ExecuTorch cannot run the program: {_first_line(error)}",
            where=str(path),
            hint=f"it may need a backend or operator that is not built in: export it for {_BACKEND}",
        ) from error


def _tensors(program: Any, method: str, path: Path) -> _Tensors:
    """Return what the program says of its tensors, else what its exported sizes tell."""
    names = [program.get_method_name(place) for place in range(program.num_methods())]
    meta = program.method_meta(method)
    plain = _Tensors(
        inputs=tuple(_spec(f"input_{at}", meta.input_tensor_meta(at), path) for at in range(meta.num_inputs())),
        outputs=tuple(_spec(f"output_{at}", meta.output_tensor_meta(at), path) for at in range(meta.num_outputs())),
    )
    if TENSORS not in names:
        return plain
    try:
        told = msgspec.json.decode(str(program.load_method(TENSORS)([])[0]), type=_Tensors)
    except (msgspec.DecodeError, RuntimeError, IndexError) as error:
        raise ModelCorruptError(
            f"what the program tells of its tensors is damaged: {error}", where=str(path)
        ) from error
    if (len(told.inputs), len(told.outputs)) != (len(plain.inputs), len(plain.outputs)):
        raise ModelCorruptError("the program tells of other tensors than it has", where=str(path))
    return told


def _most(program: Any, method: str) -> list[tuple[int, ...]]:
    """Return the sizes that every input was exported with: the largest ones, for which memory is planned."""
    meta = program.method_meta(method)
    return [tuple(int(size) for size in meta.input_tensor_meta(at).sizes()) for at in range(meta.num_inputs())]


def _spec(name: str, info: Any, path: Path) -> TensorSpec:
    number = int(info.dtype())
    if number not in _DTYPES:
        raise ModelKindError(f"the tensor {name} has the PyTorch type {number}, which numpy lacks", where=str(path))
    return TensorSpec(name, _DTYPES[number], tuple(int(size) for size in info.sizes()))


def _plain(array: Array) -> Array:
    """Return the array as one writable block in C order, which is all that PyTorch wraps without a complaint."""
    import numpy as np

    return np.require(array, requirements=("C", "W")) if math.prod(array.shape) else np.array(array)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:400]
