"""A conversation with a converter: a request goes to a script in another Python, progress and an answer come back.

:mod:`skerry.build.converters.child` is the other side, and says what goes over the wire.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.following import Ended, follow
from skerry.spec.errors import (
    DeviceError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    ModelMissingError,
    SkerryError,
    SpecError,
)

CONVERTERS = Path(__file__).parent / "converters"

Say = Callable[[str], None]

_SILENCE = {
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "JAX_PLATFORMS": "cpu",
    "ORT_DISABLE_TELEMETRY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TOKENIZERS_PARALLELISM": "false",
}
"""A converter works on local files, on the CPU, and tells nobody."""


def converse(
    python: Path,
    script: Path,
    request: Mapping[str, Any],
    say: Say,
    time_limit_s: float,
    memory_limit_bytes: int | None,
) -> dict[str, Any]:
    """Start the child, pass on its progress, and return its answer; raises as :func:`skerry.build.toolchain.run`."""
    final: dict[str, Any] = {}

    def heard(line: str) -> None:
        told = msgspec.json.decode(line, type=dict[str, Any])
        if "progress" in told:
            say(str(told["progress"]))
        else:
            final.update(told)

    ended = follow(
        [str(python), "-I", str(CONVERTERS / "child.py"), str(script), str(os.getpid())],
        on_line=heard, text=msgspec.json.encode(dict(request)).decode(), variables=quiet_variables(),
        time_limit_s=time_limit_s, memory_limit_bytes=memory_limit_bytes,
    )  # fmt: skip
    if "answer" in final and not ended.cut:
        return dict(final["answer"])
    if "refusal" in final:
        raise _refusal(script, **final["refusal"])
    raise _failure(script, ended, time_limit_s, memory_limit_bytes)


def _refusal(script: Path, kind: str, message: str, hint: str) -> SkerryError:
    if kind == "memory":
        return DeviceError(f"the converter {script.stem} ran out of memory", hint="it needs a machine with more memory")
    if kind == "disk":
        return DeviceError(f"the converter {script.stem} cannot write: {message}", hint="free some space")
    kinds: dict[str, type[SkerryError]] = {
        "missing": ModelMissingError, "corrupt": ModelCorruptError, "kind": ModelKindError,
        "data": SpecError, "option": SpecError,
    }  # fmt: skip
    return kinds.get(kind, ModelError)(message, hint=hint)


def _failure(script: Path, ended: Ended, time_limit_s: float, memory_limit_bytes: int | None) -> SkerryError:
    """Return the error that fits a child that ended without an answer."""
    if ended.cut == "time":
        return DeviceError(
            f"the converter {script.stem} took longer than {time_limit_s:g} s",
            hint="allow it more time, or fewer buckets",
        )
    if ended.cut == "memory":
        allowed = (memory_limit_bytes or 0) / 1e6
        return DeviceError(
            f"the converter {script.stem} needs more than {allowed:.0f} MB of memory",
            hint="allow it more memory, or build on a larger machine",
        )
    how = f"ended by signal {-ended.code}" if ended.code < 0 else "failed"
    # A kill that was not ours is the system's answer to too little memory, and leaves no last words.
    if ended.code == -9:
        how = "was killed, most likely since the machine's memory ran out"
    last = ended.tail[-1] if ended.tail else "it said nothing"
    return ModelError(f"the converter {script.stem} {how}: {last}", hint=_traceback_place(ended.tail))


def _traceback_place(tail: tuple[str, ...]) -> str:
    """Return where in the converter a traceback ends, for a report of the fault."""
    places = [line.strip() for line in tail if line.lstrip().startswith("File ")]
    return f"last seen at {places[-1]}" if places else ""


def quiet_variables() -> dict[str, str]:
    """Return the environment variables without those that lead Python to our own packages, and with telemetry off."""
    strange = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in strange} | _SILENCE
