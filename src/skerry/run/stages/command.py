"""Command: a program is run for a record, never through a shell."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.child import Finished, run_child
from skerry.run.encoding import Encoder
from skerry.run.rate import Gate, gate_of
from skerry.run.template import Template
from skerry.spec.errors import DependencyError, SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record
from skerry.spec.units import Duration, Size

SKIPPED = "command_skipped"
"""The field that is true in a record whose command was not run, because too many were."""


class CommandOptions(Options, frozen=True, kw_only=True):
    """What is run, and how much of it.

    Parameters
    ----------
    run:
        The program and its arguments, a list; each argument may hold ``{field}`` placeholders and stays one argument,
        whatever the record holds. The program itself may not depend on the record.
    timeout:
        After which the program is killed with all that it started; default 10 s, so that one that hangs does not
        hold the pipeline for ever.
    stdin:
        ``json`` gives it the record's fields as one line of JSON; default ``none``.
    env:
        More environment variables; their values may hold placeholders.
    cwd:
        The folder it runs in, relative to the pipeline file; default the pipeline file's.
    capture:
        The field that gets what it printed, as text without the last line break; default none.
    max_output:
        How much of what it prints is kept, per stream; default 64 KiB, the rest is thrown away.
    concurrency:
        How many run at once at the most, over all workers; default 2, what a small device can bear.
    at_most, per:
        At most ``at_most`` runs in any ``per``; above, the command is skipped and the record goes on with
        ``command_skipped: true``. Default 10 in 1 min: a flood of records must not become a flood of processes.
        ``at_most: 0`` allows any number.
    """

    shorthand: ClassVar[str] = "run"

    run: list[str]
    timeout: Duration = Duration(10.0)
    stdin: Literal["none", "json"] = "none"
    env: dict[str, str] = msgspec.field(default_factory=dict)
    cwd: str | None = None
    capture: str | None = None
    max_output: Size = Size(65536)
    concurrency: int = 2
    at_most: int = 10
    per: Duration = Duration(60.0)


class CommandStage:
    """Runs a program for each record; one that fails or takes too long fails the record."""

    Options: ClassVar[type[CommandOptions]] = CommandOptions

    def __init__(self, options: CommandOptions) -> None:
        if not options.run or not options.run[0]:
            raise SpecError("`run` names no program", expected='a list such as [notify-send, "{label}"]')
        if options.concurrency < 1 or options.at_most < 0 or options.timeout <= 0:
            raise SpecError("`concurrency` is at least 1, `at_most` at least 0 and `timeout` above 0")
        self._options = options
        program, *arguments = [Template(text, where="run") for text in options.run]
        if program.names:
            raise SpecError(
                f"the program {options.run[0]!r} depends on the record", expected="placeholders in its arguments only"
            )
        self._given_program = program.fill({})
        self._arguments = arguments
        self._environment = {name: Template(text, where="env") for name, text in options.env.items()}
        self._encoder = Encoder()
        self._program = ""
        self._folder = Path()
        self._gate: Gate | None = None

    def open(self, context: Context) -> None:
        """Find the program and the folder.

        Raises ``DependencyError`` when there is no such program, ``SpecError`` when there is no such folder.
        """
        self._folder = context.home / (self._options.cwd or "")
        if not self._folder.is_dir():
            raise SpecError(f"there is no folder {self._folder}", where=context.name, expected="a folder as `cwd`")
        self._program = _found(self._given_program, context)
        self._gate = gate_of(
            str(context.home), context.name, self._options.at_most, self._options.per, self._options.concurrency
        )

    def process(self, record: Record) -> Outcome:
        """Run the program for one record.

        Raises ``StageError`` for a missing field, a program that cannot be started, takes too long or ends with
        another code than 0.
        """
        if self._gate is None:
            raise StageError("command is not open")
        arguments = [self._program, *(part.fill(record.fields) for part in self._arguments)]
        environment = {name: part.fill(record.fields) for name, part in self._environment.items()}
        if not self._gate.rate.allows(time.monotonic()):
            record.fields[SKIPPED] = True
            return record
        with self._gate.slots:
            finished = self._run(arguments, environment, record.fields)
        self._refuse_failure(finished)
        if self._options.capture is not None:
            record.fields[self._options.capture] = finished.stdout.decode("utf-8", "replace").removesuffix("\n")
        return record

    def _run(self, arguments: list[str], environment: dict[str, str], fields: dict[str, Any]) -> Finished:
        try:
            return run_child(
                arguments,
                timeout_s=self._options.timeout,
                given=self._encoder.encode(fields) + b"\n" if self._options.stdin == "json" else b"",
                environment={**os.environ, **environment},
                folder=self._folder,
                most_output=int(self._options.max_output),
            )
        except (OSError, ValueError) as error:
            raise StageError(f"{self._given_program} cannot be started: {error}") from error

    def _refuse_failure(self, finished: Finished) -> None:
        said = " ".join(finished.stderr[-400:].decode("utf-8", "replace").split())
        if finished.timed_out:
            raise StageError(f"{self._given_program} was killed: it took more than {self._options.timeout}")
        if finished.code != 0:
            how = f"signal {-finished.code}" if finished.code < 0 else f"code {finished.code}"
            raise StageError(f"{self._given_program} ended with {how}" + (f": {said}" if said else ""))

    def close(self) -> None:
        """Let go of the rate limit."""
        self._gate = None


def _found(program: str, context: Context) -> str:
    """Return the path of a program: as it is, below the pipeline's folder when it holds a slash, or on the PATH."""
    path = str(context.home / program) if "/" in program else shutil.which(program)
    if path is None or not os.access(path, os.X_OK) or Path(path).is_dir():
        raise DependencyError(
            f"there is no program {program!r} that may be run",
            where=context.name,
            expected="a program on the PATH, or a path relative to the pipeline file",
        )
    return path
