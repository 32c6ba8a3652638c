"""The child: a process of a toolchain's Python that runs one converter and talks to Skerry in lines of JSON.

Started as ``python -I child.py SCRIPT PARENT``, the last being the number of the process that starts it, with the
request, one JSON object, on stdin. It answers on stdout:
``{"progress": "…"}`` any number of times, then either ``{"answer": {…}}`` or ``{"refusal": {"kind", "message",
"hint"}}``. Whatever the libraries print goes to stderr, so that it cannot be taken for an answer.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import json
import os
import signal
import sys
from typing import Any


class RefusalError(Exception):
    """A request that cannot be met for a reason that the user can act on."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.told = {"kind": kind, "message": message, "hint": hint}


class Talk:
    """What a converter says while it works."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, what: str) -> None:
        """Report progress in a few words."""
        self.send({"progress": what})

    def refusal(self, kind: str, message: str, hint: str = "") -> RefusalError:
        """Return what to raise to give up; ``kind``: ``missing``, ``corrupt``, ``kind``, ``data`` or ``option``."""
        return RefusalError(kind, message, hint)

    def reason(self, error: BaseException) -> str:
        """Return the first line that an error says anything in, else its kind."""
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

    def send(self, line: dict[str, Any]) -> None:
        """Write one line of the protocol; what JSON cannot hold becomes text."""
        left = (json.dumps(line, default=str) + "\n").encode()
        while left:
            left = left[os.write(self._descriptor, left) :]


def private_stdout() -> int:
    """Return a descriptor of the real stdout, and send all that is printed from now on to stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept


def end_with_parent(parent: int) -> None:
    """Let the kernel end this process when Skerry ends, however that comes.

    To the kernel the parent is the thread that started this process: it waits for the answer, so it lives as long.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of prctl(2)
        if os.getppid() != parent:  # it ended before we asked
            raise SystemExit(1)


def main() -> int:
    """Run the script named on the command line; the exit code is 0 for an answer and for a refusal."""
    end_with_parent(int(sys.argv[2]))
    talk = Talk(private_stdout())
    request: dict[str, Any] = json.load(sys.stdin)
    try:
        answer = _load(sys.argv[1]).convert(request, talk)
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        talk.send({"refusal": refusal})
    else:
        talk.send({"answer": answer})
    return 0


def _refusal(error: Exception) -> dict[str, str] | None:
    """Return what is told of an error that is no fault of the converter: what it refuses, and what the machine lacks.

    Converters refuse for whatever a library raises: a lack of memory or disk is told as such all the same.
    """
    for one in (error.__cause__, error):
        if isinstance(one, MemoryError):
            return {"kind": "memory", "message": "the memory ran out", "hint": ""}
        if isinstance(one, OSError) and one.errno in {errno.ENOSPC, errno.EDQUOT}:
            return {"kind": "disk", "message": str(one), "hint": ""}
    return error.told if isinstance(error, RefusalError) else None


def _load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("converter", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120 - what converters share lies beside them
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
