"""The contract suite notices when a runtime breaks it: each of these breaks one promise."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.runtimes.null import NullRuntime, NullSession
from skerry.spec.errors import ModelMissingError
from skerry.testing import network_guard, runtimes
from skerry.testing.runtimes import ContractError, Specimen

if network_guard.why_not():
    pytest.skip(network_guard.why_not(), allow_module_level=True)


class _Altered:
    """A null session of which one method was exchanged."""

    def __init__(self, session: NullSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _runtime_with(session_class: type[_Altered]) -> type[NullRuntime]:
    class Altered(NullRuntime):
        def load(self, *args: Any, **named: Any) -> Any:
            return session_class(super().load(*args, **named))

    return Altered


class Restless(_Altered):
    calls = 0

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        Restless.calls += 1
        return {name: array + Restless.calls for name, array in self._session.run(inputs).items()}


class Mingling(_Altered):
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: array - array.mean(axis=0) for name, array in self._session.run(inputs).items()}


class Reusing(_Altered):
    kept: Any = None

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._session.run(inputs)["last_hidden_state"]
        if self.kept is None:
            self.kept = np.zeros((8, 8, 8), dtype=np.float32)
        view = self.kept[: answer.shape[0], : answer.shape[1]]
        view[...] = answer
        return {"last_hidden_state": view}


class Lenient(_Altered):
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        ids = np.real(np.asarray(inputs.get("input_ids", 1), dtype=np.complex128)).astype(np.int64)
        ids = ids.reshape(-1, ids.shape[-1] if ids.ndim else 1)
        return self._session.run({"input_ids": ids, "attention_mask": ids})


class Undead(_Altered):
    def close(self) -> None:
        pass


class Misdescribed(_Altered):
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: array.astype(np.float64) for name, array in self._session.run(inputs).items()}


@pytest.mark.parametrize(
    ("session_class", "check"),
    [
        (Restless, runtimes.answers_are_deterministic),
        (Restless, runtimes.concurrent_runs_agree),
        (Mingling, runtimes.batch_equals_singles),
        (Reusing, runtimes.answers_are_kept),
        (Lenient, runtimes.wrong_dtype_is_refused),
        (Lenient, runtimes.wrong_shape_is_refused),
        (Lenient, runtimes.wrong_names_are_refused),
        (Lenient, runtimes.lists_are_refused),
        (Undead, runtimes.run_after_close_is_refused),
        (Misdescribed, runtimes.description_fits_the_arrays),
    ],
)
def test_a_broken_session(
    session_class: type[_Altered], check: Callable[[Specimen], None], null_model: Path, batch: dict, tmp_path: Path
) -> None:
    specimen = _specimen(_runtime_with(session_class), null_model, batch, tmp_path)
    with pytest.raises(ContractError):
        check(specimen)


class Optimist(NullRuntime):
    """Takes anything: whatever is wrong with a file is said to be that it is missing."""

    def load(self, path: Path, **named: Any) -> Any:
        try:
            return super().load(path, **named)
        except Exception as error:
            raise ModelMissingError("oops") from error


class Talkative(NullRuntime):
    """Opens an internet socket at load."""

    def load(self, path: Path, **named: Any) -> Any:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        return super().load(path, **named)


class Greedy(NullRuntime):
    """Starts more threads than asked for and keeps memory for ever."""

    kept: tuple[bytes, ...] = ()

    def load(self, path: Path, **named: Any) -> Any:
        Greedy.kept = (*Greedy.kept, b"x" * (8 << 20))
        for _ in range(4):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().load(path, **named)


@pytest.mark.parametrize(
    ("runtime", "check"),
    [
        (Optimist, runtimes.corrupted_file_is_told),
        (Optimist, runtimes.truncated_file_is_told),
        (Optimist, runtimes.wrong_kind_is_told),
        (Optimist, runtimes.missing_file_is_told),
        (Optimist, runtimes.unknown_device_is_refused),
        (Optimist, runtimes.unknown_options_are_refused),
        (Talkative, runtimes.network_is_left_alone),
        (Greedy, runtimes.threads_are_honoured),
        (Greedy, runtimes.memory_is_given_back),
    ],
)
def test_a_broken_runtime(
    runtime: type[NullRuntime],
    check: Callable[[Specimen], None],
    null_model: Path,
    batch: dict,
    tmp_path: Path,
) -> None:
    with pytest.raises(ContractError):
        check(_specimen(runtime, null_model, batch, tmp_path))


def _specimen(runtime: type[NullRuntime], model: Path, batch: dict, folder: Path) -> Specimen:
    wrong_kind = folder / "model.tflite"
    wrong_kind.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    return Specimen(
        runtime=runtime, model=model, inputs=batch, wrong_kind=wrong_kind, folder=folder,
        tolerance=1e-6, starts_threads=False,
    )  # fmt: skip
