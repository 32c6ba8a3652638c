"""The runtime contract: what every runtime must do, as checks that anybody can run over theirs.

With pytest, one test runs them all::

    import pytest
    from skerry.testing.runtimes import CHECKS, Specimen

    @pytest.fixture
    def specimen(tmp_path):
        return Specimen(runtime=MyRuntime, model=..., inputs=..., wrong_kind=..., folder=tmp_path)

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check, specimen):
        check(specimen)

A check returns when the promise is kept, raises :class:`ContractError` when it is broken, and ``unittest.SkipTest``
(a skip for pytest too) with the reason where it cannot be told.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.errors import (
    ModelCorruptError,
    ModelError,
    ModelKindError,
    ModelMissingError,
    RuntimeUnavailableError,
    SkerryError,
    SpecError,
    TensorError,
)
from skerry.spec.ports import Array, Runtime, Session, TensorSpec
from skerry.testing import network_guard
from skerry.testing.runtime_child import Account, Order

CHILD_TIMEOUT_S = 120.0
"""Seconds after which a child process counts as stuck; loading a specimen takes well under one."""
LEAK_ALLOWANCE_BYTES = 16 * 2**20
"""What memory may still grow by over the later of several loads, for caches of the allocator."""


class ContractError(AssertionError):
    """A runtime breaks a promise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specimen:
    """A model and what is needed to try a runtime on it.

    Attributes
    ----------
    runtime:
        The class, which a fresh process must be able to import.
    model:
        A sound model file, a few megabytes at most.
    inputs:
        One batch for it, of 2 rows or more that differ.
    wrong_kind:
        A sound model of another runtime.
    folder:
        An empty folder for damaged copies.
    batch_axis:
        The name of the dynamic axis on which the rows lie.
    device, options:
        As :meth:`~skerry.spec.ports.Runtime.load` takes them.
    tolerance:
        How far an answer in a batch may lie from the same row's alone: absolute plus relative.
    starts_threads:
        Whether two threads asked for show as more OS threads than one.
    idle_threads:
        How many OS threads the engine may keep beside those asked for: ones that sleep while others work.
    memory_at_least_bytes:
        What loading must at least be said to take: the size of the weights, or 0 for a model without.
    """

    runtime: type[Runtime]
    model: Path
    inputs: Mapping[str, Array]
    wrong_kind: Path
    folder: Path
    batch_axis: str = "batch"
    device: str = "cpu"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-5
    starts_threads: bool = True
    idle_threads: int = 0
    memory_at_least_bytes: int = 0

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        spec, axis = next(iter(_batched(self, self.loaded_inputs())))
        return int(self.inputs[spec.name].shape[axis])

    def load(self, path: Path | None = None, *, threads: int = 1) -> Session:
        """Load the specimen's model, or the one at ``path``."""
        return self.runtime().load(path or self.model, threads=threads, device=self.device, options=self.options)

    def loaded_inputs(self) -> tuple[TensorSpec, ...]:
        """Load the model and return its inputs."""
        with _session(self) as session:
            return session.describe().inputs


def availability_is_told(specimen: Specimen) -> None:
    """It says that it is usable here, in which version, and on the specimen's device."""
    found = specimen.runtime.availability()
    _require(found.usable, f"the runtime calls itself not usable: {found.reason}")
    _require(bool(found.version), "no version is told")
    device = specimen.device.partition(":")[0]
    _require(device in found.devices, f"the device {device!r} is not among {found.devices}")
    _require(bool(specimen.runtime.name and specimen.runtime.suffixes), "the runtime lacks a name or suffixes")


def description_fits_the_arrays(specimen: Specimen) -> None:
    """``describe`` has the names, dtypes, ranks, fixed sizes and shared dynamic axes of the real arrays."""
    with _session(specimen) as session:
        info = session.describe()
        answers = session.run(specimen.inputs)
    _require(info.runtime == specimen.runtime.name, f"describe() names the runtime {info.runtime!r}")
    _require(Path(info.path) == specimen.model, f"describe() names the path {info.path!r}")
    _require(info.threads == 1, f"describe() tells {info.threads} threads where 1 was asked for")
    _require(info.device == specimen.device, f"describe() names the device {info.device!r}")
    sizes: dict[str, int] = {}
    for specs, arrays in ((info.inputs, specimen.inputs), (info.outputs, answers)):
        _require([spec.name for spec in specs] == list(arrays), f"described {specs}, found {list(arrays)}")
        for spec in specs:
            _require_described(spec, arrays[spec.name], sizes)


def answers_are_deterministic(specimen: Specimen) -> None:
    """The same input has the same answer to the last bit, in one session and in the next."""
    with _session(specimen) as session:
        first, second = session.run(specimen.inputs), session.run(specimen.inputs)
    with _session(specimen) as session:
        third = session.run(specimen.inputs)
    _require_same(first, second, "two runs of one session differ")
    _require_same(first, third, "two sessions differ")


def batch_equals_singles(specimen: Specimen) -> None:
    """A row's answer does not depend on the rows beside it."""
    with _session(specimen) as session:
        info = session.describe()
        _require(specimen.rows >= 2, "the specimen needs 2 rows or more")
        together = session.run(specimen.inputs)
        for row in range(specimen.rows):
            alone = session.run(_row(specimen, info.inputs, row))
            for spec in info.outputs:
                if specimen.batch_axis in spec.shape:
                    axis = spec.shape.index(specimen.batch_axis)
                    expected = together[spec.name].take([row], axis=axis)
                    _require_close(alone[spec.name], expected, specimen.tolerance, f"row {row} of {spec.name!r}")


def inputs_may_be_views(specimen: Specimen) -> None:
    """Arrays that are not contiguous, or are read-only, are answered alike, and no input is changed."""
    import numpy as np

    kept = {name: array.copy() for name, array in specimen.inputs.items()}
    views = {name: np.asfortranarray(array) for name, array in specimen.inputs.items()}
    for array in views.values():
        array.flags.writeable = False
    with _session(specimen) as session:
        _require_same(session.run(specimen.inputs), session.run(views), "views are answered differently")
    _require_same(kept, specimen.inputs, "running changed an input")


def answers_are_kept(specimen: Specimen) -> None:
    """A later run does not overwrite an earlier answer, and neither does closing."""
    with _session(specimen) as session:
        first = session.run(specimen.inputs)
        copy = {name: array.copy() for name, array in first.items()}
        session.run(_row(specimen, session.describe().inputs, 1))
        session.run({name: array[::-1].copy() for name, array in specimen.inputs.items()})
    _require_same(first, copy, "an answer changed after it was given")


def wrong_dtype_is_refused(specimen: Specimen) -> None:
    """A wrong dtype is a ``TensorError`` that names the input and what was expected."""
    import numpy as np

    with _session(specimen) as session:
        for spec in session.describe().inputs:
            wrong = specimen.inputs[spec.name].astype(np.complex128)
            _require_tensor_error(session, {**specimen.inputs, spec.name: wrong}, spec.name, spec.dtype)


def wrong_shape_is_refused(specimen: Specimen) -> None:
    """A wrong rank, a wrong fixed size, and disagreement on a shared axis are each a ``TensorError``."""
    with _session(specimen) as session:
        inputs = session.describe().inputs
        for spec in inputs:
            array = specimen.inputs[spec.name]
            _require_tensor_error(session, {**specimen.inputs, spec.name: array[None]}, spec.name, "")
            for axis, size in enumerate(spec.shape):
                if isinstance(size, int) or sum(size in other.shape for other in inputs) > 1:
                    longer = array.repeat(2, axis=axis)
                    _require_tensor_error(session, {**specimen.inputs, spec.name: longer}, "", "")


def wrong_names_are_refused(specimen: Specimen) -> None:
    """A missing, an unknown, or a misspelt input is a ``TensorError``; for the last, the right name is given."""
    name, array = next(iter(specimen.inputs.items()))
    without = {other: kept for other, kept in specimen.inputs.items() if other != name}
    with _session(specimen) as session:
        _require_tensor_error(session, without, name, "")
        _require_tensor_error(session, {**specimen.inputs, "surplus": array}, "surplus", name)
        _require_tensor_error(session, {**without, name + "_": array}, name + "_", name)
        _require_tensor_error(session, {}, name, "")


def lists_are_refused(specimen: Specimen) -> None:
    """What is not a numpy array is a ``TensorError``, not a crash."""
    name = next(iter(specimen.inputs))
    with _session(specimen) as session:
        _require_tensor_error(session, {**specimen.inputs, name: specimen.inputs[name].tolist()}, name, "")
        _require_tensor_error(session, {**specimen.inputs, name: None}, name, "")


def errors_leave_the_session_working(specimen: Specimen) -> None:
    """After a refused input, the next good one is answered as before."""
    with _session(specimen) as session:
        before = session.run(specimen.inputs)
        _require_tensor_error(session, {}, "", "")
        _require_same(before, session.run(specimen.inputs), "a refused input changed later answers")


def run_after_close_is_refused(specimen: Specimen) -> None:
    """Closing twice is allowed; running afterwards is a ``ModelError``."""
    session = specimen.load()
    session.close()
    session.close()
    with _raises(ModelError, "running a closed session"):
        session.run(specimen.inputs)


def reload_gives_the_same(specimen: Specimen) -> None:
    """A model can be closed and loaded again, and two sessions of it live side by side."""
    with _session(specimen) as first:
        expected = first.run(specimen.inputs)
        with _session(specimen) as second:
            _require_same(expected, second.run(specimen.inputs), "a second session differs")
        _require_same(expected, first.run(specimen.inputs), "closing one session changed the other")
    with _session(specimen) as again:
        _require_same(expected, again.run(specimen.inputs), "a reloaded model differs")


def concurrent_runs_agree(specimen: Specimen) -> None:
    """Calls from several threads at once, each on its own row, get the answers that they get one by one."""
    with _session(specimen, threads=2) as session:
        inputs = session.describe().inputs
        rows = [_row(specimen, inputs, row) for row in range(specimen.rows)]
        expected = [session.run(row) for row in rows]
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(session.run, rows * 16))
    for place, answer in enumerate(got):
        _require_near(answer, expected[place % len(rows)], specimen.tolerance, "a concurrent answer")


def close_during_runs_is_safe(specimen: Specimen) -> None:
    """While other threads run it, a session can be closed: each run answers rightly or raises ``ModelError``."""
    session = specimen.load()
    expected = session.run(specimen.inputs)
    started, wrong = threading.Barrier(5), []

    def work() -> None:
        started.wait()
        for _ in range(200):
            try:
                answer = session.run(specimen.inputs)
            except ModelError:
                return
            except BaseException as error:  # noqa: BLE001 - whatever else comes out is what this check is after
                wrong.append(f"{type(error).__name__}: {error}")
                return
            if not _near(answer, expected, specimen.tolerance):
                wrong.append("a wrong answer")

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    started.wait()
    session.close()
    for worker in workers:
        worker.join()
    _require(not wrong, f"closing under way led to {wrong[:1]}")


def missing_file_is_told(specimen: Specimen) -> None:
    """A path without a file is a ``ModelMissingError`` that names it."""
    path = specimen.folder / f"absent{_suffix(specimen)}"
    for absent in (path, specimen.folder / "no-such-folder" / path.name):
        with _raises(ModelMissingError, "a missing file", mentions=str(absent)):
            specimen.load(absent)


def folder_is_refused(specimen: Specimen) -> None:
    """A folder where a file is expected is a ``ModelError``."""
    with _raises(ModelError, "a folder"):
        specimen.load(specimen.folder)


def corrupted_file_is_told(specimen: Specimen) -> None:
    """Random bytes, and zeros, are a ``ModelCorruptError``."""
    import numpy as np

    size = min(specimen.model.stat().st_size, 2**20)
    random = np.random.default_rng(7)
    for place, content in enumerate([bytes(size), *(random.bytes(size) for _ in range(4))]):
        with _raises(ModelCorruptError, f"a file of {'random bytes' if place else 'zeros'}"):
            specimen.load(_copy(specimen, f"corrupted-{place}", content))


def truncated_file_is_told(specimen: Specimen) -> None:
    """A file that ends too early, or is empty, is a ``ModelCorruptError``."""
    content = specimen.model.read_bytes()
    for length in (0, 1, len(content) // 2, len(content) * 9 // 10, len(content) - 1):
        with _raises(ModelCorruptError, f"a file cut off after {length} of {len(content)} bytes"):
            specimen.load(_copy(specimen, f"truncated-{length}", content[:length]))


def wrong_kind_is_told(specimen: Specimen) -> None:
    """A sound model of another runtime is a ``ModelKindError``, whatever the file is called."""
    renamed = _copy(specimen, "wrong-kind", specimen.wrong_kind.read_bytes())
    for path in (specimen.wrong_kind, renamed):
        with _raises(ModelKindError, "a model of another kind", mentions=str(path)):
            specimen.load(path)


def unknown_device_is_refused(specimen: Specimen) -> None:
    """A device that is not there is a ``RuntimeUnavailableError`` that names those that are."""
    with _raises(RuntimeUnavailableError, "an unknown device", mentions="cpu"):
        specimen.runtime().load(specimen.model, device="abacus")


def unknown_options_are_refused(specimen: Specimen) -> None:
    """An option that does not exist, and a thread count below 1, are each a ``SpecError``."""
    with _raises(SpecError, "an unknown option"):
        specimen.runtime().load(specimen.model, device=specimen.device, options={"no_such_option": 1})
    with _raises(SpecError, "0 threads"):
        specimen.runtime().load(specimen.model, device=specimen.device, threads=0)


def warm_up_works(specimen: Specimen) -> None:
    """``warm_up`` finds sizes for the dynamic axes by itself, changes no answer, and may be called twice."""
    with _session(specimen) as session:
        before = session.run(specimen.inputs)
        session.warm_up()
        session.warm_up()
        _require_same(before, session.run(specimen.inputs), "warming up changed an answer")


def threads_are_honoured(specimen: Specimen) -> None:
    """One thread adds no OS thread beyond it, two add at the most one more; counted in fresh processes.

    Threads of the engine that only sleep may be allowed for by the specimen.
    """
    added = {}
    for threads in (1, 2):
        account = _account(specimen, threads=threads)
        added[threads] = account.threads_loaded - account.threads_before
        allowed = threads + specimen.idle_threads
        _require(added[threads] <= allowed, f"{threads} threads asked for, {added[threads]} OS threads added")
    if specimen.starts_threads:
        _require(added[2] == added[1] + 1, f"OS threads added with 1 and 2 asked for: {added[1]} and {added[2]}")


def memory_is_told(specimen: Specimen) -> None:
    """``memory_bytes`` of a fresh process is no less than the weights."""
    memory = _account(specimen).memory_bytes
    least = specimen.memory_at_least_bytes
    _require(memory >= least, f"{memory} bytes told for a model of {least}")


def memory_is_given_back(specimen: Specimen) -> None:
    """Loading, running and closing again and again does not keep the weights each time."""
    resident = _account(specimen, cycles=6).resident_bytes
    growth = resident[-1] - resident[1]
    allowed = specimen.memory_at_least_bytes + LEAK_ALLOWANCE_BYTES
    _require(growth <= allowed, f"4 more loads kept {growth} bytes: {resident}")


def network_is_left_alone(specimen: Specimen) -> None:
    """Importing the engine, loading, running and closing opens no internet socket, in native code neither."""
    reason = network_guard.why_not()
    if reason:
        raise unittest.SkipTest(reason)
    _account(specimen, guard=True)


CHECKS: tuple[Callable[[Specimen], None], ...] = (
    availability_is_told,
    description_fits_the_arrays,
    answers_are_deterministic,
    batch_equals_singles,
    inputs_may_be_views,
    answers_are_kept,
    wrong_dtype_is_refused,
    wrong_shape_is_refused,
    wrong_names_are_refused,
    lists_are_refused,
    errors_leave_the_session_working,
    run_after_close_is_refused,
    reload_gives_the_same,
    concurrent_runs_agree,
    close_during_runs_is_safe,
    missing_file_is_told,
    folder_is_refused,
    corrupted_file_is_told,
    truncated_file_is_told,
    wrong_kind_is_told,
    unknown_device_is_refused,
    unknown_options_are_refused,
    warm_up_works,
    threads_are_honoured,
    memory_is_told,
    memory_is_given_back,
    network_is_left_alone,
)
"""The whole contract."""


def _require(holds: bool, otherwise: str) -> None:
    """Raise unless it holds; unlike ``assert`` also under ``python -O``."""
    if not holds:
        raise ContractError(otherwise)


@contextmanager
def _session(specimen: Specimen, *, threads: int = 1) -> Iterator[Session]:
    session = specimen.load(threads=threads)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def _raises(kind: type[SkerryError], what: str, *, mentions: str = "") -> Iterator[None]:
    """Require exactly this class of error, or one below it, and a text within its message."""
    try:
        yield
    except kind as error:
        _require(mentions in str(error), f"the error for {what} does not mention {mentions!r}: {error}")
    except Exception as error:
        raise ContractError(f"{what} raised {type(error).__name__} instead of {kind.__name__}: {error}") from error
    else:
        raise ContractError(f"{what} was accepted; expected a {kind.__name__}")


def _require_tensor_error(session: Session, inputs: Mapping[str, Any], names: str, also: str) -> None:
    with _raises(TensorError, f"inputs that are wrong at {names!r}", mentions=names):
        session.run(inputs)
    with _raises(TensorError, f"inputs that are wrong at {names!r}", mentions=also):
        session.run(inputs)


def _require_described(spec: TensorSpec, array: Array, sizes: dict[str, int]) -> None:
    """Require dtype, rank, fixed sizes and, in ``sizes``, one size for each name of a dynamic axis."""
    found = f"{spec} describes an array of {array.dtype} {array.shape}"
    _require(array.dtype == spec.dtype or (spec.dtype == "str" and array.dtype.kind in "OU"), found)
    _require(len(array.shape) == len(spec.shape), found)
    for size, real in zip(spec.shape, array.shape, strict=True):
        wanted = size if isinstance(size, int) else sizes.setdefault(size, real)
        _require(wanted == real, f"{found}, where {size!r} is {wanted}")


def _batched(specimen: Specimen, specs: tuple[TensorSpec, ...]) -> Iterator[tuple[TensorSpec, int]]:
    """Yield the inputs that have the batch axis, with its place."""
    found = [(spec, spec.shape.index(specimen.batch_axis)) for spec in specs if specimen.batch_axis in spec.shape]
    _require(bool(found), f"no input has the axis {specimen.batch_axis!r}")
    return iter(found)


def _row(specimen: Specimen, specs: tuple[TensorSpec, ...], row: int) -> dict[str, Array]:
    """Return the inputs of one row, as a batch of one."""
    rows = {spec.name: specimen.inputs[spec.name].take([row], axis=axis) for spec, axis in _batched(specimen, specs)}
    return {**specimen.inputs, **rows}


def _require_same(one: Mapping[str, Array], other: Mapping[str, Array], otherwise: str) -> None:
    import numpy as np

    _require(list(one) == list(other), f"{otherwise}: outputs {list(one)} and {list(other)}")
    for name, array in one.items():
        _require(
            array.dtype == other[name].dtype and bool(np.array_equal(array, other[name])), f"{otherwise}: {name!r}"
        )


def _require_close(one: Array, other: Array, tolerance: float, what: str) -> None:
    import numpy as np

    _require(one.shape == other.shape, f"{what} has the shape {one.shape}, expected {other.shape}")
    if one.dtype.kind == "f":
        apart = float(np.max(np.abs(one - other), initial=0.0))
        close = bool(np.allclose(one, other, rtol=tolerance, atol=tolerance))
        _require(close, f"{what} is off by {apart:g}, more than {tolerance:g}")
    else:
        _require(bool(np.array_equal(one, other)), f"{what} differs")


def _require_near(one: Mapping[str, Array], other: Mapping[str, Array], tolerance: float, what: str) -> None:
    for name, array in one.items():
        _require_close(array, other[name], tolerance, f"{what} of {name!r}")


def _near(one: Mapping[str, Array], other: Mapping[str, Array], tolerance: float) -> bool:
    try:
        _require_near(one, other, tolerance, "an answer")
    except ContractError:
        return False
    return True


def _suffix(specimen: Specimen) -> str:
    """Return the first of the runtime's endings that the model has, so that nothing is told by a name alone."""
    return next((end for end in specimen.runtime.suffixes if specimen.model.name.endswith(end)), specimen.model.suffix)


def _copy(specimen: Specimen, name: str, content: bytes) -> Path:
    path = specimen.folder / f"{name}{_suffix(specimen)}"
    path.write_bytes(content)
    return path


def _account(specimen: Specimen, *, threads: int = 1, cycles: int = 1, guard: bool = False) -> Account:
    """Have a fresh process load and run the specimen, and return what it counted."""
    import numpy as np

    stored = specimen.folder / "inputs.npz"
    np.savez(stored, **dict(specimen.inputs))  # type: ignore[arg-type]  # numpy's stub takes the names for flags
    order = Order(
        runtime=f"{specimen.runtime.__module__}:{specimen.runtime.__qualname__}", model=str(specimen.model),
        inputs=str(stored), device=specimen.device, threads=threads, options=dict(specimen.options), cycles=cycles,
        guard=guard,
    )  # fmt: skip
    child = subprocess.run(
        [sys.executable, "-m", "skerry.testing.runtime_child", json.dumps(msgspec.to_builtins(order))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False,
    )  # fmt: skip
    _require(child.returncode != network_guard.KILLED, "an internet socket was opened")
    _require(child.returncode == 0, f"a fresh process failed ({child.returncode}): {child.stderr[-2000:]}")
    return msgspec.json.decode(child.stdout.splitlines()[-1], type=Account)
