"""TensorRT: runs engines (``.plan``, ``.engine``) on an NVIDIA GPU through the library's Python API.

An engine is built for one kind of GPU and one version of TensorRT, and is refused on any other; so it is built on the
device that runs it. Its dynamic axes have limits, its optimization profile, which :meth:`TensorRtSession.run` holds.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from skerry.runtimes.modelfile import require_kind
from skerry.runtimes.options import read_options, require_threads
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

_DTYPES = {
    "BOOL": "bool", "FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "INT8": "int8",
    "UINT8": "uint8",
}  # fmt: skip
"""TensorRT's data types that numpy has a dtype for."""

_FOREIGN = ("version", "platform", "compute capability", "different device", "incompatible")
"""Words with which TensorRT refuses an engine that is whole, but was built for another device or version."""

_HINT = "pip install 'skerry[tensorrt]' on a machine with an NVIDIA GPU and its driver"

Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The least, the best and the largest shape of an input."""


class TensorRtOptions(Options, frozen=True, kw_only=True):
    """What can be set for one session: the optimization ``profile``, counted from 0."""

    profile: int = 0


class TensorRtRuntime:
    """Loads TensorRT engines."""

    name: ClassVar[str] = "tensorrt"
    suffixes: ClassVar[tuple[str, ...]] = (".plan", ".engine")

    @classmethod
    def availability(cls) -> Availability:
        """Tell the version and the GPU, or what is missing."""
        for module in ("tensorrt", "cuda"):
            if find_spec(module) is None:
                return Availability(usable=False, reason=f"the package {module} is not installed", hint=_HINT)
        try:
            library, cuda = import_tensorrt()
            count = _checked(cuda, cuda.cudaGetDeviceCount())
        except (DependencyError, ModelError) as error:
            return Availability(usable=False, reason=error.message, hint=error.hint or _HINT)
        if not count:
            return Availability(usable=False, reason="there is no NVIDIA GPU here", hint=_HINT)
        return Availability(usable=True, version=str(library.__version__), devices=("cuda",))

    def load(
        self, path: Path, *, threads: int = 1, device: str = "cuda", options: Mapping[str, Any] | None = None
    ) -> TensorRtSession:
        """Load an engine.

        Parameters
        ----------
        path:
            The engine.
        threads:
            Only noted: the work is the GPU's.
        device:
            ``cuda``, or ``cuda:1`` for the second GPU.
        options:
            See :class:`TensorRtOptions`.

        Raises
        ------
        ModelMissingError, ModelCorruptError
            There is no such file, or it is damaged.
        ModelKindError
            The file is another runtime's, or an engine for another GPU or version of TensorRT.
        RuntimeUnavailableError
            There is no such GPU.
        DependencyError
            A package is not installed.
        SpecError
            An option is unknown or wrong, or ``threads`` is below 1.
        """
        require_threads(threads)
        chosen = read_options(self.name, TensorRtOptions, options)
        require_kind(path, self.name)
        library, cuda = import_tensorrt()
        number = _device_number(cuda, device)
        _checked(cuda, cuda.cudaSetDevice(number))
        engine = _engine(library, path)
        return TensorRtSession(library, cuda, engine, path, number, threads, device, chosen.profile)


class TensorRtSession:
    """A loaded engine; ``run`` may be called from several threads, which take turns on one stream."""

    def __init__(
        self, library: ModuleType, cuda: ModuleType, engine: Any, path: Path, number: int, threads: int, device: str,
        profile: int,
    ) -> None:  # fmt: skip
        if not 0 <= profile < engine.num_optimization_profiles:
            raise SpecError(
                f"the engine has no profile {profile}", expected=f"below {engine.num_optimization_profiles}"
            )
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT]
        self._cuda = cuda
        self._number = number
        self._lock = threading.Lock()
        self._limits: dict[str, Range] = {name: _limits(engine, name, profile) for name in given}
        inputs = tuple(_spec(engine, name, path) for name in given)
        outputs = tuple(_spec(engine, name, path) for name in names if name not in given)
        self._info = SessionInfo(
            runtime=TensorRtRuntime.name, version=str(library.__version__), path=str(path), inputs=inputs,
            outputs=outputs, threads=threads, device=device,
            memory_bytes=path.stat().st_size + int(engine.device_memory_size_v2),
        )  # fmt: skip
        self._check = InputCheck(inputs, str(path))
        self._engine: Any | None = engine
        self._context: Any | None = engine.create_execution_context()
        if self._context is None:
            raise ModelError("the GPU has no memory left for the engine", where=str(path))
        self._stream = _checked(cuda, cuda.cudaStreamCreate())
        self._context.set_optimization_profile_async(profile, int(self._stream))
        self._buffers: dict[str, tuple[int, int]] = {}

    def describe(self) -> SessionInfo:
        """Return what the engine is and takes; axis 0 is ``batch`` where it is dynamic, others bear their number."""
        return self._info

    def warm_up(self) -> None:
        """Run once on zeros of the sizes that the engine is best at."""
        import numpy as np

        self.run({spec.name: np.zeros(self._limits[spec.name][1], spec.dtype) for spec in self._info.inputs})

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of named arrays and return every output by name.

        Raises
        ------
        TensorError
            An input is missing, unknown, or has a wrong dtype or shape, or a size outside of the engine's profile.
        ModelError
            The session was closed, or the GPU failed.
        """
        import numpy as np

        with self._lock:
            context = self._context
            if context is None:
                raise ModelError("the model was closed", where=self._info.path)
            self._check(inputs)
            self._require_within(inputs)
            _checked(self._cuda, self._cuda.cudaSetDevice(self._number))  # the current device is each thread's own
            held = {name: np.ascontiguousarray(inputs[name]) for name in self._limits}
            for name, array in held.items():
                context.set_input_shape(name, array.shape)
                self._copy(self._bind(context, name, array.nbytes), array.ctypes.data, array.nbytes, to_device=True)
            answers = {
                spec.name: np.empty(tuple(context.get_tensor_shape(spec.name)), spec.dtype)
                for spec in self._info.outputs
            }
            places = {name: self._bind(context, name, array.nbytes) for name, array in answers.items()}
            if not context.execute_async_v3(int(self._stream)):
                raise ModelError("the engine failed on the GPU", where=self._info.path)
            for name, array in answers.items():
                self._copy(array.ctypes.data, places[name], array.nbytes, to_device=False)
            _checked(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
            return answers

    def close(self) -> None:
        """Free the engine and its memory once the run under way has ended; safe to call twice."""
        with self._lock:
            if self._context is None:
                return
            self._context = None
            self._engine = None
            _checked(self._cuda, self._cuda.cudaSetDevice(self._number))
            for place, _ in self._buffers.values():
                _checked(self._cuda, self._cuda.cudaFree(place))
            self._buffers.clear()
            _checked(self._cuda, self._cuda.cudaStreamDestroy(self._stream))

    def _require_within(self, inputs: Mapping[str, Array]) -> None:
        for name, (least, _, most) in self._limits.items():
            shape = inputs[name].shape
            if any(not low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
                raise TensorError(
                    f"input {name!r} has a shape that the engine was not built for: {shape}",
                    where=self._info.path,
                    expected=f"from {least} to {most}",
                )

    def _bind(self, context: Any, name: str, size: int) -> int:
        """Give a tensor memory on the GPU, of which there is never less than before, and return its address."""
        place, held = self._buffers.get(name, (0, 0))
        if held < max(size, 1):
            if held:
                del self._buffers[name]
                _checked(self._cuda, self._cuda.cudaFree(place))
            place = int(_checked(self._cuda, self._cuda.cudaMalloc(max(size, 1))))
            self._buffers[name] = (place, max(size, 1))
        context.set_tensor_address(name, place)
        return place

    def _copy(self, target: int, source: int, size: int, *, to_device: bool) -> None:
        kinds = self._cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if to_device else kinds.cudaMemcpyDeviceToHost
        _checked(self._cuda, self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream))


def import_tensorrt() -> tuple[ModuleType, ModuleType]:
    """Import TensorRT and the CUDA runtime's bindings; raises ``DependencyError`` when one cannot be loaded."""
    try:
        return importlib.import_module("tensorrt"), importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise DependencyError(f"the tensorrt runtime needs TensorRT and cuda-python: {error}", hint=_HINT) from error


def _checked(cuda: ModuleType, answer: tuple[Any, ...]) -> Any:
    """Return what a function of CUDA gave beside its status; raises ``ModelError`` for another than success."""
    status, *rest = answer
    if status != cuda.cudaError_t.cudaSuccess:
        raise ModelError(f"CUDA failed: {getattr(status, 'name', status)}")
    return rest[0] if rest else None


def _device_number(cuda: ModuleType, device: str) -> int:
    kind, _, number = device.partition(":")
    count = int(_checked(cuda, cuda.cudaGetDeviceCount()))
    if kind != "cuda" or not (number or "0").isdigit() or int(number or "0") >= count:
        raise RuntimeUnavailableError(
            f"tensorrt has no device {device!r} here",
            expected=", ".join(f"cuda:{place}" for place in range(count)) or "a machine with an NVIDIA GPU",
            hint="engines run on NVIDIA GPUs only; on the cpu, take the ONNX model and the runtime onnxruntime",
        )
    return int(number or "0")


def _engine(library: ModuleType, path: Path) -> Any:
    """Read an engine; what TensorRT says in refusing it tells damage from an engine that is not for this device."""
    said: list[str] = []

    class Ear(library.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR):
                said.append(message)

    ear = Ear()
    runtime = library.Runtime(ear)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is not None:
        return _Kept(engine, runtime, ear)
    text = said[0].strip().splitlines()[0][:400] if said else "no reason was given"
    if any(word in " ".join(said).lower() for word in _FOREIGN):
        raise ModelKindError(
            f"the engine was built for another device: {text}", where=str(path), hint="build it on this device"
        )
    raise ModelCorruptError(f"the engine is damaged: {text}", where=str(path), hint="build it again on this device")


class _Kept:
    """An engine together with what must outlive it: the library holds its logger and runtime by bare pointers."""

    def __init__(self, engine: Any, runtime: Any, logger: Any) -> None:
        self._engine, self._held = engine, (runtime, logger)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _limits(engine: Any, name: str, profile: int) -> Range:
    shape = tuple(engine.get_tensor_shape(name))
    if -1 not in shape:
        return shape, shape, shape
    least, best, most = engine.get_tensor_profile_shape(name, profile)
    return tuple(least), tuple(best), tuple(most)


def _spec(engine: Any, name: str, path: Path) -> TensorSpec:
    """Describe a tensor; dynamic axes in the same place share a name, as engines do not keep those of the model."""
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise ModelKindError(f"the tensor {name} has TensorRT's type {kind}, which numpy lacks", where=str(path))
    sizes = (
        size if size != -1 else ("batch" if place == 0 else f"axis_{place}")
        for place, size in enumerate(engine.get_tensor_shape(name))
    )
    return TensorSpec(name, _DTYPES[kind], tuple(sizes))
