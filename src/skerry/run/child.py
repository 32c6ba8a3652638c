"""A child: one program run to its end, within limits of time and output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

_CHUNK = 65536
_LINGER_S = 0.2
"""How long output is read on after the program ended: what it wrote is in the pipe already, and a background process
that it left behind may hold the pipe open for ever."""


class Finished(msgspec.Struct, frozen=True):
    """How a program ended: ``code`` is negative for a signal, ``cut`` tells whether output was thrown away."""

    code: int
    stdout: bytes
    stderr: bytes
    cut: bool
    timed_out: bool


def run_child(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    given: bytes = b"",
    environment: Mapping[str, str],
    folder: Path,
    most_output: int,
) -> Finished:
    """Run a program without a shell and wait for it.

    It gets a session of its own; at the end of its time the whole process group is killed. Output beyond
    ``most_output`` bytes per stream is read and thrown away, so that a chatty program is not held up.

    Raises ``OSError`` when it cannot be started, ``ValueError`` for an argument with a NUL in it.
    """
    deadline = time.monotonic() + timeout_s
    process = subprocess.Popen(
        list(arguments),
        stdin=subprocess.PIPE if given else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
    )
    try:
        talk = _Talk(process, given, most_output)
        timed_out = not talk.until_end(deadline)
    finally:
        if process.poll() is None:
            kill_group(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    return Finished(process.returncode, bytes(talk.stdout), bytes(talk.stderr), talk.cut, timed_out)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program with everything that it started in its session, and collect it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


class _Talk:
    """Feeds a program its input and collects its output, without ever waiting for one of the two alone."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes, most: int) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.cut = False
        self._process, self._rest, self._most = process, memoryview(given), most
        self._streams: list[IO[bytes]] = [
            stream for stream in (process.stdin, process.stdout, process.stderr) if stream is not None
        ]
        for stream in self._streams:
            os.set_blocking(stream.fileno(), False)

    def until_end(self, deadline: float) -> bool:
        """Talk until the program has ended; ``False`` when its time is over first."""
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                event = selectors.EVENT_WRITE if stream is self._process.stdin else selectors.EVENT_READ
                selector.register(stream, event)
            ended_at: float | None = None
            while selector.get_map():
                now = time.monotonic()
                if ended_at is None and self._process.poll() is not None:
                    ended_at = now
                if now >= deadline or (ended_at is not None and now >= ended_at + _LINGER_S):
                    break
                for key, _ in selector.select(min(0.05, deadline - now)):
                    self._serve(key.fileobj, selector)  # type: ignore[arg-type]
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _serve(self, stream: IO[bytes], selector: selectors.BaseSelector) -> None:
        try:
            more = self._feed(stream) if stream is self._process.stdin else self._collect(stream)
        except BlockingIOError:
            return
        except BrokenPipeError:
            more = False  # a program need not read what it is given
        if not more:
            selector.unregister(stream)
            stream.close()

    def _feed(self, stream: IO[bytes]) -> bool:
        self._rest = self._rest[os.write(stream.fileno(), self._rest[:_CHUNK]) :]
        return bool(self._rest)

    def _collect(self, stream: IO[bytes]) -> bool:
        piece = os.read(stream.fileno(), _CHUNK)
        kept = self.stdout if stream is self._process.stdout else self.stderr
        room = self._most - len(kept)
        kept += piece[:room]
        self.cut = self.cut or len(piece) > room
        return bool(piece)
