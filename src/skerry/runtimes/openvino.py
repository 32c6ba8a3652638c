"""OpenVINO: runs its own models (IR) and ONNX ones on Intel's processors, graphics and NPUs, and on other CPUs.

The official wheel brings a package that reports its import over the network; :func:`import_openvino` is the one place
that imports OpenVINO, without that package.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import msgspec

from skerry.runtimes.memory import give_back_free_memory, resident_bytes
from skerry.runtimes.modelfile import ONNX, require_kind
from skerry.runtimes.options import read_options, require_threads
from skerry.runtimes.tensors import TEXT, InputCheck, run_on_made_up
from skerry.spec.errors import (
    DependencyError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    ModelMissingError,
    RuntimeUnavailableError,
    SpecError,
    TensorError,
)
from skerry.spec.ports import Array, Availability, Options, SessionInfo, TensorSpec
from skerry.spec.words import did_you_mean

log = logging.getLogger(__name__)

TELEMETRY_PACKAGE = "openvino_telemetry"
"""What reports the use of OpenVINO; where it cannot be imported, OpenVINO takes an empty class of its own instead."""
CONVERTER_MODULE = "openvino.tools.ovc"
"""The converter, imported with OpenVINO only to have it at hand: 40 ms and 8 MB that running a model does not need."""

_DTYPES = {
    "boolean": "bool", "f16": "float16", "f32": "float32", "f64": "float64", "i8": "int8", "i16": "int16",
    "i32": "int32", "i64": "int64", "string": TEXT, "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
}  # fmt: skip

_OTHER_VERSION = re.compile(
    r"does not support|not supported|unsupported|not implemented|no conversion rule|cannot create \w+ layer|opset",
    re.IGNORECASE,
)
_EXTERNAL_DATA = re.compile(r"externally stored data in file \(([^,]+),")
_PROPERTY_REFUSED = re.compile(r"property|wrong value|could not read|create directory", re.IGNORECASE)
_SIZES_REFUSED = re.compile(r"shape|dimension|incompatible|broadcast|size", re.IGNORECASE)
_MESSAGE_LIMIT = 400
"""Characters kept of the library's messages, some of which quote a whole node."""

_readying = threading.Lock()
_is_ready = False


class OpenVinoOptions(Options, frozen=True, kw_only=True):
    """What can be set for one session.

    Attributes
    ----------
    precision:
        In which precision floating point operations are carried out. ``f32`` has the same answers on every device;
        ``auto`` lets OpenVINO take bfloat16 or float16 where the processor has them, which is faster and coarser.
    pinning:
        Whether threads are bound to cores. Off: two processes on a shared device would be bound to the same ones.
    cache:
        A folder for compiled models, from which the next load is faster; empty for none.
    properties:
        Further properties of the device as OpenVINO names them, such as ``{DYNAMIC_QUANTIZATION_GROUP_SIZE: "0"}``.
    """

    precision: Literal["f32", "bf16", "f16", "auto"] = "f32"
    pinning: bool = False
    cache: str = ""
    properties: dict[str, str] = msgspec.field(default_factory=dict)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, and return it.

    Its telemetry stays out of this process for good. The converter is left out until somebody calls
    ``openvino.convert_model``.

    Raises
    ------
    DependencyError
        The package is not installed, or its library cannot be loaded here.
    """
    if "openvino" not in sys.modules:
        # None makes an import of the package fail, which OpenVINO takes for "not installed".
        sys.modules[TELEMETRY_PACKAGE] = None  # type: ignore[assignment]
    elif sys.modules.get(TELEMETRY_PACKAGE) is not None:
        log.warning("openvino was imported before Skerry could turn its telemetry off: run opt_in_out --opt_out")
    try:
        with _left_out(CONVERTER_MODULE):
            import openvino
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"the openvino runtime needs the package openvino: {error}", hint="pip install 'skerry[openvino]'"
        ) from error
    if not hasattr(openvino, "convert_model"):
        openvino.convert_model = _convert_model
    _make_ready(openvino)
    return openvino  # type: ignore[no-any-return]


class OpenVinoRuntime:
    """Loads OpenVINO's own models, and ONNX ones."""

    name: ClassVar[str] = "openvino"
    suffixes: ClassVar[tuple[str, ...]] = (".xml", ".onnx")

    @classmethod
    def availability(cls) -> Availability:
        """Tell the version and the devices, or why there is none."""
        if not _is_installed():
            return Availability(
                usable=False, reason="the package openvino is not installed", hint="pip install 'skerry[openvino]'"
            )
        try:
            library = import_openvino()
            devices = _devices()
        except DependencyError as error:
            return Availability(usable=False, reason=error.message, hint=error.hint)
        return Availability(usable=True, version=_version(library), devices=devices)

    def load(
        self, path: Path, *, threads: int = 1, device: str = "cpu", options: Mapping[str, Any] | None = None
    ) -> OpenVinoSession:
        """Load a model.

        Parameters
        ----------
        path:
            An ``.xml`` with its ``.bin`` beside it, or an ONNX model.
        threads:
            Threads that work on one run on the CPU. One is the caller's; with more, the caller waits for them.
        device:
            ``cpu``, or what :meth:`availability` names beside it, such as ``gpu`` or ``npu``.
        options:
            See :class:`OpenVinoOptions`.

        Raises
        ------
        ModelMissingError
            There is no such file, or its weights are missing.
        ModelCorruptError
            The bytes are no valid model. Damage within weights cannot be seen here; a bundle's digests show it.
        ModelKindError
            The file is another runtime's, has operations that OpenVINO lacks, or takes what numpy cannot hold.
        RuntimeUnavailableError
            This machine lacks ``device``.
        DependencyError
            The package is not installed.
        SpecError
            An option is unknown or wrong, or ``threads`` is below 1.
        """
        require_threads(threads)
        chosen = read_options(self.name, OpenVinoOptions, options)
        require_kind(path, self.name, also=(ONNX,))
        library = import_openvino()
        _require_device(library, device)
        before = resident_bytes()
        model = _read(path)
        inputs, outputs = _tensors(model.inputs, model.outputs, path)
        compiled = _compile(model, path, device, _properties(chosen, threads, device))
        del model
        give_back_free_memory()
        info = SessionInfo(
            runtime=self.name, version=_version(library), path=str(path), inputs=inputs, outputs=outputs,
            threads=threads, device=device, memory_bytes=max(0, resident_bytes() - before),
        )  # fmt: skip
        return OpenVinoSession(compiled, info)


class OpenVinoSession:
    """A loaded model; ``run`` may be called from several threads at once, each of which gets a request of its own."""

    def __init__(self, compiled: Any, info: SessionInfo) -> None:
        self._compiled: Any | None = compiled
        self._idle: list[Any] = []
        self._info = info
        self._check = InputCheck(info.inputs, info.path)
        self._outputs = [spec.name for spec in info.outputs]

    def describe(self) -> SessionInfo:
        """Return what the model is and takes.

        OpenVINO drops the names of dynamic axes: the first axis is called ``batch`` where it is dynamic in all inputs,
        every other one after its tensor and place.
        """
        return self._info

    def warm_up(self) -> None:
        """Run once on zeros, so that kernels are chosen and memory is taken.

        Raises ``ModelError`` when the model refuses every size that was tried for its dynamic axes.
        """
        run_on_made_up(self, lambda: self._compiled is None)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of named arrays and return every output by name.

        An index beyond a table is no error for OpenVINO on the CPU: it looks up zeros.

        Raises
        ------
        TensorError
            An input is missing, unknown, or has a wrong dtype or shape, or the graph refuses the sizes.
        ModelError
            The session was closed, or the graph failed.
        """
        # The local name keeps the model alive until this run ends, whoever closes the session meanwhile.
        compiled = self._compiled
        if compiled is None:
            raise ModelError("the model was closed", where=self._info.path)
        self._check(inputs)
        request = self._request(compiled)
        try:
            answers = request.infer([inputs[spec.name] for spec in self._info.inputs])
        except RuntimeError as error:
            # The request is dropped: after a failure its tensors may have any size.
            text = _plain(error)
            kind = TensorError if _SIZES_REFUSED.search(text) else ModelError
            raise kind(f"the model failed: {text}", where=self._info.path) from error
        named = dict(zip(self._outputs, answers.to_tuple(), strict=True))
        self._give_back(request)
        return named

    def close(self) -> None:
        """Free the model once the runs under way have ended; safe to call twice."""
        if self._compiled is not None:
            self._compiled = None
            self._idle.clear()
            give_back_free_memory()

    def _request(self, compiled: Any) -> Any:
        """Take an idle request, or make one: there are as many as there ever were runs at the same time."""
        try:
            return self._idle.pop()
        except IndexError:
            return compiled.create_infer_request()

    def _give_back(self, request: Any) -> None:
        self._idle.append(request)
        if self._compiled is None:  # closed meanwhile
            self._idle.clear()


@contextmanager
def _left_out(module: str) -> Iterator[None]:
    """Let an import of a module fail that was not imported before, for as long as the block lasts."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def _make_ready(library: ModuleType) -> None:
    """Read a tensor once, in one thread alone.

    The first reading builds a table in native code. Where two threads come to it at once, each waits for the other for
    good: one holds Python's lock and wants the table's, the other has it the other way round (seen with 2026.4.1).
    """
    import numpy as np

    global _is_ready  # noqa: PLW0603 - it belongs to the process, as the library's table does
    with _readying:
        if not _is_ready:
            _is_ready = library.Tensor(np.zeros(1)).data is not None


def _convert_model(*arguments: Any, **options: Any) -> Any:
    """Stand in for ``openvino.convert_model`` until it is called."""
    from openvino.tools.ovc import convert_model

    return convert_model(*arguments, **options)


def _is_installed() -> bool:
    try:
        return find_spec("openvino") is not None
    except ValueError:  # imported from a place without a specification
        return "openvino" in sys.modules


def _version(library: ModuleType) -> str:
    """Return the version without the build's number and branch."""
    return str(library.__version__).partition("-")[0]


@functools.cache
def _core() -> Any:
    """Return the one core of this process: plugins are loaded once, and never given back by the library anyway."""
    return import_openvino().Core()


def _devices() -> tuple[str, ...]:
    return tuple(str(name).lower() for name in _core().available_devices)


def _require_device(library: ModuleType, device: str) -> None:
    # The CPU is always there; asking for all devices loads the drivers of each.
    if device != "cpu" and device not in (present := _devices()):
        raise RuntimeUnavailableError(
            f"openvino {_version(library)} has no device {device!r} here",
            expected=f"one of {', '.join(present)}",
            hint=did_you_mean(device, present) or "its driver or a library is missing",
        )


def _properties(chosen: OpenVinoOptions, threads: int, device: str) -> dict[str, Any]:
    """Return the device's properties.

    Without a stream (``NUM_STREAMS`` 0) the caller's own thread does the work; more than one thread needs a stream,
    whose threads work while the caller waits.
    """
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":
        properties["INFERENCE_NUM_THREADS"] = threads
        properties["NUM_STREAMS"] = 0 if threads == 1 else 1
        properties["ENABLE_CPU_PINNING"] = chosen.pinning
    if chosen.precision != "auto":
        properties["INFERENCE_PRECISION_HINT"] = chosen.precision
    if chosen.cache:
        properties["CACHE_DIR"] = chosen.cache
    return properties | chosen.properties


def _read(path: Path) -> Any:
    """Read the graph, and say what is wrong with the file when that fails."""
    try:
        return _core().read_model(path)
    except (RuntimeError, ValueError) as error:
        raise _read_error(error, path) from error


def _read_error(error: Exception, path: Path) -> ModelError:
    text, where = _plain(error), str(path)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and "weights" in text.lower() and not weights.exists():
        return ModelMissingError("the model's weights are missing", where=where, expected=weights.name)
    external = _EXTERNAL_DATA.search(text)
    if external:
        if (path.parent / external[1]).exists():
            return ModelCorruptError(f"the model's external weights are damaged: {text}", where=where)
        return ModelMissingError("the model's external weights are missing", where=where, expected=external[1])
    if _OTHER_VERSION.search(text):
        return ModelKindError(f"this OpenVINO cannot run the model: {text}", where=where)
    if "allocate" in text:
        return ModelError(f"the model does not fit into memory: {text}", where=where)
    return ModelCorruptError(f"the model is damaged: {text}", where=where, hint="fetch or build it again")


def _compile(model: Any, path: Path, device: str, properties: Mapping[str, Any]) -> Any:
    """Compile the graph for a device; a wrong property, a lacking operation and a dead driver each get their error."""
    try:
        return _core().compile_model(model, device.upper(), dict(properties))
    except (RuntimeError, ValueError) as error:
        text = _plain(error)
        if _PROPERTY_REFUSED.search(text):
            raise SpecError(f"OpenVINO refuses an option: {text}", where=str(path)) from error
        if _OTHER_VERSION.search(text):
            raise ModelKindError(f"this OpenVINO cannot run the model: {text}", where=str(path)) from error
        if device != "cpu":
            raise RuntimeUnavailableError(f"the device did not start: {text}", where=str(path)) from error
        raise ModelError(f"the model cannot be compiled: {text}", where=str(path)) from error


def _plain(error: Exception) -> str:
    """Return the library's message in one line, without its source positions."""
    text = " ".join(str(error).split())
    text = re.sub(r"Exception from \S+:\d+:? ?", "", text)
    text = re.sub(r"(?:Check '.*?' failed )?at \S+\.\w+:\d+:? ?", "", text)
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + " …"


def _tensors(
    inputs: Iterable[Any], outputs: Iterable[Any], path: Path
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Describe all inputs and outputs; each must have a dtype that numpy knows and a rank."""
    taken = [_shape(port, path) for port in inputs]
    batched = bool(taken) and all(shape and shape[0] is None for _, _, shape in taken)
    given = [_shape(port, path) for port in outputs]
    return tuple(_named(*found, batched) for found in taken), tuple(_named(*found, batched) for found in given)


def _shape(port: Any, path: Path) -> tuple[str, str, tuple[int | None, ...]]:
    """Return name, dtype and sizes of a port, ``None`` for a dynamic size."""
    name = port.get_any_name() if port.names else port.get_node().get_friendly_name()
    dtype = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    if dtype not in _DTYPES or shape.rank.is_dynamic:
        what = dtype if dtype not in _DTYPES else "tensor of any number of axes"
        raise ModelKindError(
            f"{name!r} is a {what}", where=str(path), expected=f"a tensor of {', '.join(_DTYPES)} with a known rank"
        )
    return name, _DTYPES[dtype], tuple(None if size.is_dynamic else size.get_length() for size in shape)


def _named(name: str, dtype: str, shape: tuple[int | None, ...], batched: bool) -> TensorSpec:
    """Name the dynamic axes: the first one ``batch`` if it is one, all others after their tensor and place."""
    sizes: list[int | str] = []
    for place, size in enumerate(shape):
        own = "batch" if place == 0 and batched else f"{name}.{place}"
        sizes.append(own if size is None else size)
    return TensorSpec(name, dtype, tuple(sizes))
