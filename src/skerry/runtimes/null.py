"""The null runtime: a model that is a small JSON file, whose answers depend on nothing but the input.

It exercises everything around a model without one::

    {"skerry_null": 1, "delay": "2ms", "dimension": 8}

is a text encoder that takes ``input_ids`` and ``attention_mask`` and answers after 2 ms with 8 numbers per token.
Any other tensors are declared instead of ``dimension`` with ``inputs`` and ``outputs``: lists of ``name``, ``dtype``
and ``shape``, in which a text is a dynamic axis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from skerry import __version__
from skerry.runtimes.memory import resident_bytes
from skerry.runtimes.modelfile import require_kind
from skerry.runtimes.tensors import InputCheck, made_up_inputs
from skerry.spec.errors import ModelCorruptError, ModelError, RuntimeUnavailableError, SpecError
from skerry.spec.ports import Array, Availability, Options, SessionInfo, TensorSpec
from skerry.spec.units import Duration, decode_unit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15
"""The step of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""


class NullModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file of a null model says: its tensors, or the dimension of a text encoder, and seconds per run."""

    skerry_null: Literal[1] = 1
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    dimension: int | None = None
    delay: Duration = Duration(0.0)


class NullOptions(Options, frozen=True, kw_only=True):
    """What can be asked of one session: another ``delay`` per run than the file's, in seconds."""

    delay: Duration | None = None


class NullRuntime:
    """Loads null models."""

    name: ClassVar[str] = "null"
    suffixes: ClassVar[tuple[str, ...]] = (".null.json",)

    @classmethod
    def availability(cls) -> Availability:
        """Tell that it works: it needs nothing but numpy."""
        return Availability(usable=True, version=__version__, devices=("cpu",))

    def load(
        self, path: Path, *, threads: int = 1, device: str = "cpu", options: Mapping[str, Any] | None = None
    ) -> NullSession:
        """Load a null model; ``threads`` is only noted, since a run stays in the caller's thread.

        Raises
        ------
        ModelMissingError, ModelCorruptError, ModelKindError
            The file is missing, damaged or none of a null model.
        RuntimeUnavailableError
            ``device`` is not ``cpu``.
        SpecError
            An option is unknown or wrong, or ``threads`` is below 1.
        """
        if device != "cpu":
            raise RuntimeUnavailableError(f"the null runtime has no device {device!r}", expected="cpu")
        if threads < 1:
            raise SpecError(f"{threads} threads cannot run a model", expected="1 or more")
        try:
            chosen = msgspec.convert(dict(options or {}), NullOptions, dec_hook=decode_unit)
        except msgspec.ValidationError as error:
            raise SpecError(f"options of the null runtime: {error}", expected="delay, such as 2ms") from error
        before = resident_bytes()
        model = _read(path)
        delay = model.delay if chosen.delay is None else chosen.delay
        return NullSession(model, path, threads=threads, delay_s=float(delay), before=before)


class NullSession:
    """A loaded null model."""

    def __init__(self, model: NullModel, path: Path, *, threads: int, delay_s: float, before: int) -> None:
        self._model = model
        self._delay_s = delay_s
        self._check = InputCheck(model.inputs, str(path))
        self._closed = False
        self._info = SessionInfo(
            runtime=NullRuntime.name, version=__version__, path=str(path), inputs=model.inputs, outputs=model.outputs,
            threads=threads, device="cpu", memory_bytes=max(0, resident_bytes() - before),
        )  # fmt: skip

    def describe(self) -> SessionInfo:
        """Return what the model is and takes."""
        return self._info

    def warm_up(self) -> None:
        """Run once on zeros."""
        self.run(next(iter(made_up_inputs(self._model.inputs))))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Sleep for the delay and return every output by name.

        An output is a hash of the first input alone. Where the leading axes of both are the same, each element (a
        token) has its own values; what remains of the input is summed up, zeros left out, so that neither the other
        rows of a batch nor zero padding change an answer.

        Raises
        ------
        TensorError
            An input is missing, unknown, or has a wrong dtype or shape.
        ModelError
            The session was closed.
        """
        if self._closed:
            raise ModelError("the model was closed", where=self._info.path)
        sizes = self._check(inputs)
        if self._delay_s:
            time.sleep(self._delay_s)
        first = self._model.inputs[0]
        return {spec.name: _answer(inputs[first.name], first, spec, sizes) for spec in self._model.outputs}

    def close(self) -> None:
        """Forget the model; safe to call twice."""
        self._closed = True


def write_null_model(path: Path, model: NullModel) -> Path:
    """Write a null model's file and return its path."""
    body = {
        "skerry_null": 1, "delay": str(model.delay), "dimension": model.dimension,
        "inputs": model.inputs, "outputs": model.outputs,
    }  # fmt: skip
    path.write_bytes(msgspec.json.encode({key: value for key, value in body.items() if value not in (None, ())}))
    return path


def _read(path: Path) -> NullModel:
    require_kind(path, NullRuntime.name)
    try:
        model = msgspec.json.decode(path.read_bytes(), type=NullModel, dec_hook=decode_unit)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelCorruptError(f"this null model is damaged: {error}", where=str(path)) from error
    if model.dimension is not None:
        model = _text_encoder(model, path)
    _require_sense(model, path)
    return model


def _text_encoder(model: NullModel, path: Path) -> NullModel:
    """Spell out the tensors that ``dimension`` stands for: those of a transformer encoder."""
    if model.inputs or model.outputs or model.dimension is None or model.dimension < 1:
        raise ModelCorruptError(
            "this null model contradicts itself",
            where=str(path),
            expected="a positive dimension, or inputs and outputs",
        )
    tokens = ("batch", "tokens")
    return msgspec.structs.replace(
        model,
        inputs=(TensorSpec("input_ids", "int64", tokens), TensorSpec("attention_mask", "int64", tokens)),
        outputs=(TensorSpec("last_hidden_state", "float32", (*tokens, model.dimension)),),
    )


def _require_sense(model: NullModel, path: Path) -> None:
    """Refuse a model without tensors, with dtypes that are no numbers, or with axes that no input has."""
    import numpy as np

    if not model.inputs or not model.outputs:
        raise ModelCorruptError("this null model lacks tensors", where=str(path), expected="inputs and outputs")
    for spec in (*model.inputs, *model.outputs):
        try:
            number = np.dtype(spec.dtype).kind in "biuf"
        except TypeError:
            number = False
        if not number:
            raise ModelCorruptError(f"{spec.name!r} has no number's dtype: {spec.dtype!r}", where=str(path))
    known = {axis for spec in model.inputs for axis in spec.shape}
    for spec in model.outputs:
        unknown = [axis for axis in spec.shape if isinstance(axis, str) and axis not in known]
        if unknown:
            raise ModelCorruptError(
                f"no input has the axis {unknown[0]!r} of the output {spec.name!r}", where=str(path)
            )


def _answer(array: Array, first: TensorSpec, output: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """Return the values of one output: hashes of the elements of ``array`` along the axes that both share."""
    import numpy as np

    shared = 0
    while shared < min(len(first.shape), len(output.shape)) and first.shape[shared] == output.shape[shared]:
        shared += 1
    seeds = _folded(_bits(array), shared)
    rest = tuple(axis if isinstance(axis, int) else sizes[axis] for axis in output.shape[shared:])
    steps = np.arange(1, math.prod(rest) + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    hashes = _mixed(seeds[..., np.newaxis] + steps).reshape(seeds.shape + rest)
    return _values(hashes, np.dtype(output.dtype))


def _bits(array: Array) -> npt.NDArray[np.uint64]:
    """Return each element as 64 bits; a zero of any dtype is 0."""
    import numpy as np

    wide = np.float64 if array.dtype.kind == "f" else np.int64
    return np.ascontiguousarray(array, dtype=wide).reshape(array.shape).view(np.uint64)


def _folded(bits: npt.NDArray[np.uint64], shared: int) -> npt.NDArray[np.uint64]:
    """Sum up the hashes of all elements beyond the first ``shared`` axes, by their place on the last, without zeros."""
    import numpy as np

    if shared == bits.ndim:
        return _mixed(bits)
    places = np.arange(bits.shape[-1], dtype=np.uint64) * np.uint64(_GOLDEN)
    hashes = np.where(bits == 0, np.uint64(0), _mixed(bits + places))
    return np.asarray(hashes.sum(axis=tuple(range(shared, bits.ndim)), dtype=np.uint64))


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Apply the finaliser of SplitMix64, which spreads every bit over all 64."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _values(hashes: npt.NDArray[np.uint64], dtype: np.dtype[Any]) -> Array:
    """Turn hashes into numbers: floats from -1 to 1, integers from 0 to 127, or truth values."""
    import numpy as np

    if dtype.kind == "f":
        return ((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).astype(dtype)
    top_bits = 1 if dtype.kind == "b" else 7
    return (hashes >> np.uint64(64 - top_bits)).astype(dtype)
