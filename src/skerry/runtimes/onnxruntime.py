"""ONNX Runtime: runs ONNX models on the CPU and on whatever else the installed wheel was built for.

The official wheels report usage over the network by default; :func:`import_onnxruntime` is the one place that
imports the package, with that turned off.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import msgspec

from skerry.runtimes.memory import give_back_free_memory, resident_bytes
from skerry.runtimes.modelfile import require_kind
from skerry.runtimes.options import read_options, require_threads
from skerry.runtimes.tensors import TEXT, InputCheck, run_on_made_up
from skerry.spec.errors import (
    DependencyError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    ModelMissingError,
    RuntimeUnavailableError,
    TensorError,
)
from skerry.spec.ports import Array, Availability, Options, SessionInfo, TensorSpec
from skerry.spec.words import did_you_mean

log = logging.getLogger(__name__)

TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Set to 1 before the package is imported, it keeps the uploader from being created at all."""

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "acl": "ACLExecutionProvider",
    "armnn": "ArmNNExecutionProvider",
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rknpu": "RknpuExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "vsinpu": "VSINPUExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Device names and the execution providers behind them. The Azure provider is left out: it calls a cloud service."""

_BUILD = "in no ready-made wheel; build ONNX Runtime with it"
_WHEELS: dict[str, str] = {
    "coreml": "in the wheels for macOS",
    "cuda": "in the package onnxruntime-gpu, for NVIDIA GPUs",
    "directml": "in the package onnxruntime-directml, for Windows",
    "migraphx": "in the package onnxruntime-migraphx, for AMD GPUs",
    "nnapi": "in the packages for Android",
    "openvino": "in the package onnxruntime-openvino; the runtime openvino does the same",
    "qnn": "in the package onnxruntime-qnn, for Qualcomm's NPUs",
    "rocm": "in the package onnxruntime-rocm, for AMD GPUs, until ONNX Runtime 1.22",
    "tensorrt": "in the package onnxruntime-gpu, with NVIDIA's TensorRT installed",
    "webgpu": "in the package onnxruntime-webgpu",
    "xnnpack": "in the packages for Android and iOS; elsewhere build ONNX Runtime with it",
}
"""Where a provider comes from. Packages that bring a provider replace the package onnxruntime."""

_DTYPES = {
    "bool": "bool", "double": "float64", "float": "float32", "float16": "float16", "int16": "int16", "int32": "int32",
    "int64": "int64", "int8": "int8", "string": TEXT, "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "uint8": "uint8",
}  # fmt: skip

_OTHER_VERSION = re.compile(
    r"not a registered function|unsupported model ir version|is under development|no op registered|not implemented"
    r"|could not find an implementation|opset",
    re.IGNORECASE,
)
_MESSAGE_LIMIT = 400
"""Characters kept of the library's messages, some of which quote a whole node with all of its tensors."""

_EXTERNAL_DATA = re.compile(r"external (?:data|initializer|tensor)", re.IGNORECASE)


class OnnxOptions(Options, frozen=True, kw_only=True):
    """What can be set for one session.

    Attributes
    ----------
    spinning:
        Whether idle threads wait by turning in a loop. Off: on a shared device they take the core from others.
        `docs/runtimes.md` has the measured cost.
    arena:
        Whether memory once used is kept for the next run. Off: less memory, slower runs.
    memory_pattern:
        Whether the layout of memory is remembered per input shape. Off: with dynamic shapes every new shape
        would add a plan that is never freed.
    optimization:
        How far the graph is rewritten at load.
    deterministic:
        Whether kernels that may differ between two runs are avoided, where there is a choice.
    session:
        Further entries of ONNX Runtime's session configuration, as text.
    provider:
        Options of the execution provider, as text, such as ``{device_id: "1"}``.
    """

    spinning: bool = False
    arena: bool = True
    memory_pattern: bool = False
    optimization: Literal["none", "basic", "extended", "all"] = "all"
    deterministic: bool = False
    session: dict[str, str] = msgspec.field(default_factory=dict)
    provider: dict[str, str] = msgspec.field(default_factory=dict)


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off, and return it.

    Raises
    ------
    DependencyError
        The package is not installed, or its library cannot be loaded here.
    """
    if "onnxruntime" in sys.modules and os.environ.get(TELEMETRY_VARIABLE) != "1":
        log.warning("onnxruntime was imported before Skerry could turn its telemetry off: set %s=1", TELEMETRY_VARIABLE)
    os.environ[TELEMETRY_VARIABLE] = "1"
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"the onnxruntime runtime needs the package onnxruntime: {error}", hint="pip install 'skerry[onnxruntime]'"
        ) from error
    # Belt and braces: it also silences a library that was initialised before the variable was set.
    disable = getattr(onnxruntime, "disable_telemetry_events", None)
    if disable is not None:
        disable()
    return onnxruntime  # type: ignore[no-any-return]


class OnnxRuntime:
    """Loads ONNX models (and ``.ort`` ones)."""

    name: ClassVar[str] = "onnxruntime"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".ort")

    @classmethod
    def availability(cls) -> Availability:
        """Tell the version and the devices of the installed wheel, or why there is none."""
        if find_spec("onnxruntime") is None:
            return Availability(
                usable=False, reason="the package onnxruntime is not installed",
                hint="pip install 'skerry[onnxruntime]'",
            )  # fmt: skip
        try:
            library = import_onnxruntime()
        except DependencyError as error:
            return Availability(usable=False, reason=error.message, hint=error.hint)
        devices = _devices(library)
        lacks = {device: _WHEELS.get(device, _BUILD) for device in PROVIDERS if device not in devices}
        return Availability(usable=True, version=library.__version__, devices=devices, lacks=lacks)

    def load(
        self, path: Path, *, threads: int = 1, device: str = "cpu", options: Mapping[str, Any] | None = None
    ) -> OnnxSession:
        """Load an ONNX model.

        Parameters
        ----------
        path:
            The model; weights kept in files beside it are found from there.
        threads:
            Threads that work on one run, the caller's included; operators run one after the other.
        device:
            A name of ``PROVIDERS``; operators that it lacks run on the CPU.
        options:
            See :class:`OnnxOptions`.

        Raises
        ------
        ModelMissingError
            There is no such file, or its external weights are missing.
        ModelCorruptError
            The bytes are no valid model. Damage within weights cannot be seen here; a bundle's digests show it.
        ModelKindError
            The file is another runtime's, or needs a newer ONNX Runtime, or takes what numpy cannot hold.
        RuntimeUnavailableError
            This wheel or machine lacks ``device``.
        DependencyError
            The package is not installed.
        SpecError
            An option is unknown or wrong, or ``threads`` is below 1.
        """
        require_threads(threads)
        chosen = read_options(self.name, OnnxOptions, options)
        require_kind(path, self.name)
        library = import_onnxruntime()
        provider = _provider(library, device)
        before = resident_bytes()
        session = _open(library, path, _session_options(library, chosen, threads), provider, chosen.provider)
        if provider not in session.get_providers():
            raise RuntimeUnavailableError(
                f"the device {device!r} did not start", where=str(path), hint="its driver or a library is missing"
            )
        inputs, outputs = _tensors(session.get_inputs(), path), _tensors(session.get_outputs(), path)
        give_back_free_memory()
        info = SessionInfo(
            runtime=self.name, version=library.__version__, path=str(path), inputs=inputs, outputs=outputs,
            threads=threads, device=device, memory_bytes=max(0, resident_bytes() - before),
        )  # fmt: skip
        return OnnxSession(session, info, _failures(library))


class OnnxSession:
    """A loaded ONNX model; ``run`` may be called from several threads at once."""

    def __init__(self, session: Any, info: SessionInfo, failures: Mapping[str, type[Exception]]) -> None:
        self._session: Any | None = session
        self._info = info
        self._check = InputCheck(info.inputs, info.path)
        self._outputs = [spec.name for spec in info.outputs]
        self._refusal = failures["InvalidArgument"]
        self._failures = tuple(failures.values())

    def describe(self) -> SessionInfo:
        """Return what the model is and takes; unnamed dynamic axes are named after their tensor and place."""
        return self._info

    def warm_up(self) -> None:
        """Run once on zeros, so that kernels are chosen and memory is taken.

        Raises ``ModelError`` when the model refuses every size that was tried for its dynamic axes.
        """
        run_on_made_up(self, lambda: self._session is None)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch of named arrays and return every output by name.

        Raises
        ------
        TensorError
            An input is missing, unknown, or has a wrong dtype or shape, or the graph refuses the sizes.
        ModelError
            The session was closed, or the graph failed.
        """
        if self._session is not None:
            self._check(inputs)
        return self.run_trusted(inputs)

    def run_trusted(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run as ``run`` does, for a caller who made the arrays by ``describe``: they are not looked at again."""
        # The local name keeps the model alive until this run ends, whoever closes the session meanwhile.
        session = self._session
        if session is None:
            raise ModelError("the model was closed", where=self._info.path)
        try:
            answers: Sequence[Array] = session.run(self._outputs, inputs)
        except self._failures as error:
            kind = TensorError if isinstance(error, self._refusal) else ModelError
            raise kind(f"the model failed: {_plain(error)}", where=self._info.path) from error
        return dict(zip(self._outputs, answers, strict=True))

    def close(self) -> None:
        """Free the model once the runs under way have ended; safe to call twice."""
        if self._session is not None:
            self._session = None
            give_back_free_memory()


def _devices(library: ModuleType) -> tuple[str, ...]:
    present = set(library.get_available_providers())
    return tuple(device for device, provider in PROVIDERS.items() if provider in present)


def _provider(library: ModuleType, device: str) -> str:
    present = _devices(library)
    if device not in present:
        raise RuntimeUnavailableError(
            f"onnxruntime {library.__version__} has no device {device!r} here",
            expected=f"one of {', '.join(present)}",
            hint=did_you_mean(device, present)
            or (f"{PROVIDERS[device]}: {_WHEELS.get(device, _BUILD)}" if device in PROVIDERS else ""),
        )
    return PROVIDERS[device]


def _session_options(library: ModuleType, chosen: OnnxOptions, threads: int) -> Any:
    settings = library.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    settings.enable_cpu_mem_arena = chosen.arena
    settings.enable_mem_pattern = chosen.memory_pattern
    settings.use_deterministic_compute = chosen.deterministic
    level = "ORT_DISABLE_ALL" if chosen.optimization == "none" else f"ORT_ENABLE_{chosen.optimization.upper()}"
    settings.graph_optimization_level = getattr(library.GraphOptimizationLevel, level)
    # Whatever goes wrong comes back as an exception; the library need not write it to the terminal as well.
    settings.log_severity_level = 4
    spinning = "1" if chosen.spinning else "0"
    entries = {"session.intra_op.allow_spinning": spinning, "session.inter_op.allow_spinning": spinning}
    for key, value in (entries | chosen.session).items():
        settings.add_session_config_entry(key, value)
    return settings


def _open(library: ModuleType, path: Path, settings: Any, provider: str, provider_options: dict[str, str]) -> Any:
    """Create the library's session, and say what is wrong with the file when it cannot."""
    providers: list[Any] = [(provider, provider_options)]
    if provider != PROVIDERS["cpu"]:
        providers.append(PROVIDERS["cpu"])
    failures = _failures(library)
    anything: tuple[type[Exception], ...] = (*failures.values(), UnicodeDecodeError, ValueError)
    try:
        return library.InferenceSession(str(path), settings, providers=providers)
    except failures["EPFail"] as error:
        raise RuntimeUnavailableError(f"the device did not start: {_plain(error)}", where=str(path)) from error
    except anything as error:
        raise _load_error(error, path) from error


def _load_error(error: Exception, path: Path) -> ModelError:
    text, where = _plain(error), str(path)
    if _EXTERNAL_DATA.search(text):
        missing = "not exist" in text or "No such file" in text or "cannot get file size" in text.lower()
        if missing:
            return ModelMissingError(f"the model's external weights are missing: {text}", where=where)
        return ModelCorruptError(f"the model's external weights are damaged: {text}", where=where)
    if type(error).__name__ == "NotImplemented" or _OTHER_VERSION.search(text):
        hint = "convert it with an older opset, or install a newer onnxruntime"
        return ModelKindError(f"this ONNX Runtime cannot run the model: {text}", where=where, hint=hint)
    if "allocate" in text:
        return ModelError(f"the model does not fit into memory: {text}", where=where)
    return ModelCorruptError(f"the model is damaged: {text}", where=where, hint="fetch or build it again")


def _failures(library: ModuleType) -> dict[str, type[Exception]]:
    """Return the exception classes of the library by name; they share no base but ``Exception``."""
    names = (
        "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoadCanceled",
        "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException",
    )  # fmt: skip
    state = library.capi.onnxruntime_pybind11_state
    return {name: getattr(state, name) for name in names if hasattr(state, name)}


def _plain(error: Exception) -> str:
    """Return the library's message in one line, without its code, the model's path and its source positions."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? (?:failed: ?)?(?=[A-Z])", "", text)
    text = re.sub(r"\S*?\w+\.(?:cc|h):\d+ (?:\w+ )?", "", text)
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + " …"


def _tensors(declared: Sequence[Any], path: Path) -> tuple[TensorSpec, ...]:
    return tuple(_tensor(node, path) for node in declared)


def _tensor(node: Any, path: Path) -> TensorSpec:
    match = re.fullmatch(r"tensor\((\w+)\)", node.type)
    if match is None or match[1] not in _DTYPES:
        raise ModelKindError(
            f"{node.name!r} is a {node.type}",
            where=str(path),
            expected=f"a tensor of {', '.join(_DTYPES)}",
            hint="for a classifier of scikit-learn, convert it with zipmap=False",
        )
    shape = tuple(_axis(size, node.name, place) for place, size in enumerate(node.shape))
    return TensorSpec(node.name, _DTYPES[match[1]], shape)


def _axis(size: object, tensor: str, place: int) -> int | str:
    """Return a fixed size, or the name of a dynamic axis; an unnamed one gets a name that is its own."""
    if isinstance(size, int) and size >= 0:
        return size
    named = isinstance(size, str) and size and not size.startswith("unk__")
    return str(size) if named else f"{tensor}.{place}"
