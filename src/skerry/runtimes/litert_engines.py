"""The engines of LiteRT, each as one loaded copy of a model that one thread at a time may use.

The interpreter releases Python's lock while it runs and takes any shape that the graph allows. The compiled model
prepares weights once for all signatures of a file, where the interpreter prepares them once for each.
``docs/runtimes.md`` has the measured cost of either.
"""

from __future__ import annotations

import atexit
import functools
import logging
import math
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from skerry.spec.errors import DependencyError
from skerry.spec.ports import Array

log = logging.getLogger(__name__)

IN_MEMORY = ":memory"
"""XNNPACK's name for a store of prepared weights that is a file in memory (``memfd_create``), not on a disk."""

_NOISE = re.compile(rb"(?:INFO|WARNING|VERBOSE): ")
"""How lines begin that the library writes to the terminal, with no switch to turn them off."""

_terminal = threading.Lock()


class Engine(Protocol):
    """One loaded copy of a model, for one thread at a time."""

    def run(self, key: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a signature on arrays of its very shapes; the answers are arrays of their own."""


def import_litert() -> ModuleType:
    """Import LiteRT's interpreter and return its module; nothing in it reports usage.

    Raises
    ------
    DependencyError
        The package is not installed, or its library cannot be loaded here.
    """
    try:
        from ai_edge_litert import interpreter
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"the litert runtime needs the package ai-edge-litert: {error}", hint="pip install 'skerry[litert]'"
        ) from error
    return interpreter  # type: ignore[no-any-return]


def prepare(kind: str) -> None:
    """Import what an engine needs besides, and look for accelerators; both take memory that running does not."""
    if kind == "compiled":
        import ai_edge_litert.compiled_model  # noqa: F401 - imported again where it is used

        _environment()


class Interpreted:
    """A copy run by the interpreter."""

    def __init__(self, library: ModuleType, path: Path, threads: int) -> None:
        self._interpreter = library.Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._runners = {
            key: self._interpreter.get_signature_runner(key) for key in self._interpreter.get_signature_list()
        }

    def run(self, key: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a signature; the runner gives its inputs the arrays' shapes and copies the answers."""
        if key:
            answers: dict[str, Array] = self._runners[key](**inputs)
            return answers
        interpreter = self._interpreter
        places = {details["name"]: details["index"] for details in interpreter.get_input_details()}
        for name, array in inputs.items():
            interpreter.resize_tensor_input(places[name], array.shape)
        interpreter.allocate_tensors()
        for name, array in inputs.items():
            interpreter.set_tensor(places[name], array)
        interpreter.invoke()
        return {
            details["name"]: interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()
        }


class Compiled:
    """A copy run by the compiled model, which has prepared weights once for all signatures.

    Its buffers take only some dtypes by name, but any bytes as ``uint8``.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import numpy as np
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import CpuOptions
        from ai_edge_litert.options import Options as ModelOptions

        store = IN_MEMORY if keeps_files_in_memory() else ""
        self._model = CompiledModel.from_file(
            str(path),
            environment=_environment(),
            options=ModelOptions(
                hardware_accelerators=HardwareAccelerator.CPU,
                cpu_options=CpuOptions(num_threads=threads, xnnpack_weight_cache_path=store),
            ),
        )
        self._buffers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        for key, names in self._model.get_signature_list().items():
            self._answers[key] = self._model.get_output_tensor_details(key)
            taken = {name: self._model.create_input_buffer_by_name(key, name) for name in names["inputs"]}
            given = {name: self._model.create_output_buffer_by_name(key, name) for name in names["outputs"]}
            self._buffers[key] = taken, given
            # The library does things, and writes about them to the terminal, when a buffer is first written.
            for name, details in self._model.get_input_tensor_details(key).items():
                taken[name].write(np.zeros(_bytes(details), dtype=np.uint8))

    def run(self, key: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a signature; arrays are copied in and out."""
        import numpy as np

        taken, given = self._buffers[key]
        for name, array in inputs.items():
            taken[name].write(array.reshape(-1).view(np.uint8))
        self._model.run_by_name(key, taken, given)
        return {
            name: given[name].read(_bytes(details), np.uint8).view(details["dtype"]).reshape(details["shape"])
            for name, details in self._answers[key].items()
        }


def _bytes(details: Mapping[str, Any]) -> int:
    """Return the size of a tensor in bytes."""
    import numpy as np

    size: int = np.dtype(details["dtype"]).itemsize * math.prod(details["shape"])
    return size


@functools.cache
def _environment() -> Any:
    """Return the one environment of this process; making it looks for accelerators."""
    import ai_edge_litert
    from ai_edge_litert.environment import Environment, EnvironmentOptions

    # Left to the end of the process, it would write to the terminal; so does one that the library makes for itself.
    atexit.register(_close_the_terminal)
    atexit.register(_forget_environment)
    return Environment.create(options=EnvironmentOptions(runtime_path=str(Path(ai_edge_litert.__file__).parent)))


def _forget_environment() -> None:
    with listening([]):
        _environment.cache_clear()


def _close_the_terminal() -> None:
    """Let what libraries say while the process is taken down go nowhere: Python has said all by then."""
    try:
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
    except (OSError, AttributeError, ValueError):  # a service without a terminal
        return


def keeps_files_in_memory() -> bool:
    """Tell whether this system has files in memory, in which prepared weights can be shared."""
    return hasattr(os, "memfd_create")


@contextmanager
def listening(said: list[str]) -> Iterator[None]:
    """Catch what the library writes to the terminal while it loads, and log it instead.

    Its lines of errors are appended to ``said``. What others write meanwhile comes out afterwards.
    """
    with _terminal, tempfile.TemporaryFile() as caught:
        try:
            sys.stderr.flush()
            terminal = os.dup(2)
        except (OSError, AttributeError, ValueError):  # a service without a terminal
            yield
            return
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            caught.seek(0)
            foreign = b"".join(line for line in caught if not _is_the_librarys(line, said))
            os.write(terminal, foreign) if foreign else None
            os.close(terminal)


def _is_the_librarys(line: bytes, said: list[str]) -> bool:
    if _NOISE.match(line) or line.startswith("└".encode()):
        log.debug("%s", line.decode(errors="replace").rstrip())
        return True
    if line.startswith(b"ERROR: "):
        said.append(line.decode(errors="replace").removeprefix("ERROR: ").strip())
        return True
    return False
