"""A contender: one variant in a child process of its own, and how it ends when it ends badly."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import msgspec

from skerry.build import exchange
from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.exchange import Broken, FailureKind, Load, Loaded, Reply, Request
from skerry.build.items import Item
from skerry.build.limits import Confinement, Limits, MemoryBy, MemoryGroup, data_limit, open_memory_group
from skerry.build.trial_child import OUT_OF_MEMORY
from skerry.spec.errors import ModelError
from skerry.spec.manifest import ModelManifest, Variant

_PROGRAM = "skerry.build.trial_child"
_TOLD = 4096
"""Bytes of a child's last words that are looked at."""

_ENDING_S = 5.0
"""How long a child that closed its pipe may take to end; a core dump of a large process takes seconds."""

R = TypeVar("R", bound=Reply)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there are no figures of a candidate: a result like any other."""

    kind: FailureKind
    reason: str


class ContenderError(ModelError):
    """A child failed; ``failure`` tells how."""

    def __init__(self, failure: Failure, where: str) -> None:
        super().__init__(failure.reason, where=where)
        self.failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        return ContenderError, (self.failure, self.where)


class Contender:
    """A child process with one variant of a model; a context manager that leaves no process behind.

    Parameters
    ----------
    artifact:
        What it runs.
    threads:
        How many the runtime may use.
    confinement:
        What the child does to itself first.
    group:
        The control group that it lives in, which is closed with it.
    """

    def __init__(
        self, artifact: Artifact, threads: int, confinement: Confinement, group: MemoryGroup | None = None
    ) -> None:
        self._artifact = artifact
        self._threads = threads
        self._confinement = confinement
        self._group = group
        self._ended = False
        self._kills_before = _kills_of_the_system()
        command = [sys.executable, "-P", "-m", _PROGRAM, str(os.getpid())]
        try:
            self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
            self._process = subprocess.Popen(
                group.entering(command) if group else command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._words, bufsize=0, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            if group:
                group.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process(self) -> int:
        """The number of the child process."""
        return self._process.pid

    @property
    def memory_by(self) -> MemoryBy:
        """What limits its memory."""
        if self._group is not None:
            return self._group.by
        return "rlimit" if self._confinement.data_bytes is not None else "none"

    def load(self, item: Item, timeout_s: float, *, output: int = 0) -> Loaded:
        """Load the variant and let it answer one item; raises ``ContenderError``.

        ``output`` is the place of the output that is judged.
        """
        manifest, variant = described(self._artifact, self._threads)
        request = Load(
            confinement=self._confinement, folder=str(self._artifact.folder), manifest=manifest, variant=variant,
            item=exchange.asked(item), output=output,
        )  # fmt: skip
        return self.ask(request, Loaded, timeout_s)

    def ask(self, request: Request, kind: type[R], timeout_s: float) -> R:
        """Return the answer to a request.

        Raises
        ------
        ContenderError
            The child crashed, ran out of memory, gave no answer in ``timeout_s`` seconds, or says that it failed.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self._send(exchange.frame(request), deadline)
            reply = exchange.replies.decode(exchange.read_frame(lambda count: self._read(count, deadline)))
        except TimeoutError:
            self._end()
            raise self._error("timeout", f"no answer to {_named(request)} in {timeout_s:.0f} s") from None
        except (EOFError, BrokenPipeError):
            raise ContenderError(self._autopsy(), str(self._artifact.path)) from None
        except (ValueError, msgspec.DecodeError) as error:
            self._end()
            raise self._error("error", f"its answer cannot be read: {error}") from None
        if isinstance(reply, Broken):
            raise self._error(reply.kind, reply.reason)
        if not isinstance(reply, kind):
            raise self._error("error", f"it answers {_named(request)} with {type(reply).__name__}")
        return reply

    def close(self) -> None:
        """End the child and all that it has started; safe to call twice."""
        self._end()
        if self._group:
            self._group.close()
        for pipe in (self._process.stdin, self._process.stdout, self._words):
            if pipe is not None:
                pipe.close()

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            _await(self._to, select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._to, view) :]

    def _read(self, count: int, deadline: float) -> bytes:
        _await(self._from, select.POLLIN, deadline)
        return os.read(self._from, min(count, 1 << 20))

    def _end(self) -> int:
        """Kill the child with its session and return how it had ended, or -9."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS forbids to signal a dead group
                os.killpg(self._process.pid, signal.SIGKILL)  # before the wait: until then the number is still its own
            self._ended = True
        return self._process.wait()

    def _autopsy(self) -> Failure:
        """Tell why the pipe ended."""
        deadline = time.monotonic() + _ENDING_S
        while _runs(self._process.pid) and time.monotonic() < deadline:
            time.sleep(0.005)
        code = self._end()
        said = self._last_words()
        if self._wanted_memory(code, said):
            return Failure(kind="out-of-memory", reason=f"the process was ended for want of memory{_quoted(said)}")
        if code < 0:
            return Failure(kind="crash", reason=f"the process crashed with {_signal(code)}{_quoted(said)}")
        return Failure(kind="crash", reason=f"the process ended with the code {code}{_quoted(said)}")

    def _wanted_memory(self, code: int, said: str) -> bool:
        if self._group is not None and self._group.kills():
            return True
        if code == -signal.SIGKILL and _kills_of_the_system() > self._kills_before:
            return True
        return any(sign in said for sign in OUT_OF_MEMORY)

    def _last_words(self) -> str:
        end = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, end - _TOLD))
        return self._words.read().decode("utf-8", "replace").strip()

    def _error(self, kind: FailureKind, reason: str) -> ContenderError:
        return ContenderError(Failure(kind=kind, reason=reason), str(self._artifact.path))


def confined(artifact: Artifact, threads: int, cores: tuple[int, ...], limits: Limits) -> Contender:
    """Start a contender under limits: its memory by a control group where that is allowed, else by ``RLIMIT_DATA``."""
    group = None if limits.memory_bytes is None else open_memory_group(limits.memory_bytes)
    by_limit = limits.memory_bytes is not None and group is None
    data = data_limit(limits.memory_bytes, threads) if by_limit and limits.memory_bytes is not None else None
    return Contender(artifact, threads, Confinement(cores=cores, data_bytes=data, niceness=limits.niceness), group)


def described(artifact: Artifact, threads: int) -> tuple[ModelManifest, Variant]:
    """Return an artifact as the encoder's loader takes it; raises ``ModelError`` for a form that no runtime runs."""
    runtime = RUNTIMES.get(artifact.form)
    if runtime is None:
        raise ModelError(
            f"no runtime runs the form {artifact.form!r}", where=str(artifact.path),
            expected=f"one of {', '.join(RUNTIMES)}",
        )  # fmt: skip
    tokenizer = None if runtime == "null" or artifact.tokenizer is None else str(artifact.tokenizer.absolute())
    manifest = ModelManifest(
        source=artifact.source, task=artifact.task, dimension=artifact.dimension, tokenizer=tokenizer,
        max_tokens=artifact.max_tokens, pooling=artifact.pooling, normalize=artifact.normalize,
    )  # fmt: skip
    return manifest, Variant(name=artifact.name(), runtime=runtime, file=artifact.file, threads=threads)


def _await(descriptor: int, what: int, deadline: float) -> None:
    """Wait until a pipe can be read or written; raises ``TimeoutError``."""
    waiting = select.poll()
    waiting.register(descriptor, what)
    if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1e3):
        raise TimeoutError


def _runs(process: int) -> bool:
    """Return whether a child still runs, without taking its exit status away."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _kills_of_the_system() -> int:
    """Return how often this machine's kernel has ended a process for want of memory; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _quoted(said: str) -> str:
    return f": {said.splitlines()[-1][:400]}" if said else ""


def _named(request: Request) -> str:
    return {"Load": "loading", "Turn": "a turn", "Answer": "items", "Batch": "a batch"}[type(request).__name__]
