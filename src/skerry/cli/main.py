"""The command ``skerry``: finds the command that is meant, and imports no other.

Starting up is a feature: a device may call ``skerry`` from a script every minute. So the parser knows the name and the
one line of help of each command from a table, and only the chosen command's module is imported, which then adds its
arguments.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from skerry import __version__
from skerry.cli.errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, ToldToEnd, fault, report, unprintable
from skerry.spec.errors import SkerryError, UsageError

COMMANDS: dict[str, str] = {
    "init": "write a working starter project",
    "check": "validate a pipeline file without running it",
    "probe": "tell what this machine is and can do",
    "runtimes": "list the inference engines and whether they work here",
    "models": "find a small model, by what is predicted to fit",
    "techniques": "list what `build` can do to a model",
    "build": "make a model fit the device, by measurement",
    "toolchain": "install, list or remove the converters' environments",
    "calibrate": "measure when a stage may answer without its cloud",
    "run": "run a pipeline",
    "outbox": "tell what waits to be sent, and handle dead letters",
    "serve": "answer requests for models over HTTP and gRPC",
    "hub": "take the records of devices, and hand them on",
    "keys": "decide which devices may join your fleet",
    "enroll": "let this device join a fleet with a token",
    "schema": "print the JSON Schema of the pipeline file, for editors",
}
"""Every command in the order of the journey, with its line in ``skerry --help``.

The module ``skerry.cli.<name>`` offers ``register(subparsers)`` and ``run(args) -> int``.
"""

EXAMPLES = """\
examples:
  skerry init watch            write a project that runs as it is
  skerry run watch --for 10s   run it, and watch it live
  skerry check watch           validate it, and print the graph
  skerry COMMAND --help        tell all about one command

Every error has an exit code of its own; `--json` prints what was found as one JSON object.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``UsageError`` instead of leaving the process."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)  # what a script relies on must not change with a new option
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError``, with the nearest option for one that does not exist."""
        raise UsageError(message, expected=" ".join(self.format_usage().split()[1:]), hint=self._hint(message))

    def of(self, command: str | None) -> Parser:
        """Return the parser of one command, or this one for ``None``."""
        found = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parser = found[0].get(command) if found and command else None
        return parser if isinstance(parser, Parser) else self

    def _hint(self, message: str) -> str:
        from skerry.spec.words import did_you_mean

        head, _, rest = message.partition("unrecognized arguments: ")
        known = [name for action in self._actions for name in action.option_strings]
        near = did_you_mean(rest.split()[0].split("=")[0], known) if rest and not head else ""
        return near or f"`{self.prog} --help` tells more"


def build_parser(only: str | None = None) -> Parser:
    """Return the parser of ``skerry``, with the arguments of every command, or of ``only`` one."""
    parser = Parser(
        prog="skerry",
        description="Takes foundation models to small, often-offline devices, within a declared budget.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"skerry {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, line in COMMANDS.items():
        if only is None or only == name:
            _register(commands, name)
        else:
            commands.add_parser(name, help=line, add_help=False)
    return parser


def _register(commands: argparse._SubParsersAction[Parser], name: str) -> None:
    _module(name).register(commands)
    # Without a default of its own, so that the `--debug` before the command is not overwritten.
    commands.choices[name].add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )


def _module(command: str) -> Any:
    return importlib.import_module(f"skerry.cli.{command}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    words = sys.argv[1:] if argv is None else list(argv)
    code = 0
    _open_streams()
    try:
        code = _guarded(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_BROKEN_PIPE
    except ToldToEnd as told:
        return told.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:  # of the flush: a full disk below stdout
        _forget_stdout()
        return code or report(unprintable(error), as_json=False)
    return code


def _forget_stdout() -> None:
    """Send what is still buffered nowhere: the interpreter flushes once more on its way out, and would stumble."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Make stdout and stderr writable whatever they are: closed ones, and ones that take ASCII only."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - until the very end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _guarded(words: Sequence[str]) -> int:
    """Run one command; every error becomes a message and an exit code."""
    debug = "--debug" in words or os.environ.get("SKERRY_DEBUG", "") not in {"", "0"}
    as_json = "--json" in words
    try:
        return _dispatch(words)
    except SkerryError as error:
        return report(error, as_json=as_json, cause=error if debug else None)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - the last line: whatever comes here is a fault of ours
        return report(fault(error), as_json=as_json, cause=error if debug else None)


def _dispatch(words: Sequence[str]) -> int:
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        from skerry.spec.words import did_you_mean

        raise UsageError(
            f"there is no command {name!r}",
            expected=f"one of {', '.join(COMMANDS)}",
            hint=did_you_mean(name, COMMANDS) or "`skerry --help` tells more",
        )
    parser = build_parser(only=name or "")
    try:
        arguments, unknown = parser.parse_known_args(words)
    except SystemExit as done:  # --help and --version have printed what was asked for
        return int(done.code or 0)
    if unknown:
        parser.of(name).error(f"unrecognized arguments: {' '.join(unknown)}")
    if name is None:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    code: int = _module(name).run(arguments)
    return code
