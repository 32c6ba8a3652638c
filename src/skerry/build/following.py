"""Following a child process: its lines as they come, its limits of time and memory, its last words."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Literal

import msgspec

_LOOK_S = 0.2
"""How often limits are looked at; a child can exceed its memory for that long."""

_TAIL_BYTES = 16_384

Cut = Literal["", "time", "memory"]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended.

    Attributes
    ----------
    code:
        The exit status, negative for a signal.
    cut:
        The limit for which it was killed, or nothing.
    tail:
        The last lines that it wrote to stderr, empty ones left out.
    peak_bytes:
        The most resident memory seen of it and its children; 0 where no limit was set.
    """

    code: int
    cut: Cut
    tail: tuple[str, ...]
    peak_bytes: int


def follow(
    command: Sequence[str],
    *,
    on_line: Callable[[str], None],
    text: str = "",
    variables: Mapping[str, str],
    time_limit_s: float,
    memory_limit_bytes: int | None = None,
) -> Ended:
    """Run a command to its end, with ``text`` on its stdin and each line of its stdout given to ``on_line``.

    It gets a process group of its own, which is killed when a limit is exceeded and when anything is raised here,
    ``KeyboardInterrupt`` included. Its temporary files are in a folder of its own, which is removed: one that is killed
    removes none, and pip has gigabytes there. Memory is the resident one of the child and its children, looked at every
    0.2 s.

    Raises ``OSError`` when the command cannot be started.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryDirectory(prefix="skerry-", ignore_cleanup_errors=True) as scratch,
    ):
        given.write(text.encode())
        given.seek(0)
        child = subprocess.Popen(
            list(command), stdin=given, stdout=subprocess.PIPE, stderr=said,
            env={**variables, "TMPDIR": scratch}, start_new_session=True,
        )  # fmt: skip
        watch = _Watch(child.pid, time_limit_s, memory_limit_bytes)
        try:
            assert child.stdout is not None
            for line in _lines(child.stdout, watch):
                on_line(line)
            while child.poll() is None and not watch.exceeded():
                time.sleep(_LOOK_S / 4)
        finally:
            _kill_group(child)
            child.stdout and child.stdout.close()
        return Ended(code=child.returncode, cut=watch.cut, tail=_tail(said), peak_bytes=watch.peak_bytes)


class _Watch:
    """The limits of one child."""

    def __init__(self, pid: int, time_limit_s: float, memory_limit_bytes: int | None) -> None:
        self.cut: Cut = ""
        self.peak_bytes = 0
        self._pid = pid
        self._deadline = time.monotonic() + time_limit_s
        self._memory_limit = memory_limit_bytes

    def exceeded(self) -> bool:
        """Look at both limits, and tell whether one is exceeded."""
        if time.monotonic() > self._deadline:
            self.cut = "time"
        elif self._memory_limit is not None:
            self.peak_bytes = max(self.peak_bytes, _resident_bytes(self._pid))
            if self.peak_bytes > self._memory_limit:
                self.cut = "memory"
        return self.cut != ""


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and all below it; 0 for one that is gone."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def _lines(stream: IO[bytes], watch: _Watch) -> Iterator[str]:
    """Yield lines until the stream ends or a limit is exceeded."""
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not watch.exceeded():
            if not selector.select(_LOOK_S):
                continue
            got = os.read(stream.fileno(), 65_536)
            *whole, held = (held + got).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
            if not got:
                break
    if held:
        yield held.decode(errors="replace")


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End whatever is left of the child's process group, and reap the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _tail(said: IO[bytes]) -> tuple[str, ...]:
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - _TAIL_BYTES))
    text = said.read().decode(errors="replace").replace("\r", "\n")
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-40:]
