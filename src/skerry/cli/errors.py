"""Errors on the command line: what is printed for each, and with which code the process ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from skerry.spec.errors import SinkError, SkerryError

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read the output has gone, as in ``skerry schema | head -1``."""
EXIT_FAULT = SkerryError.exit_code


class ToldToEnd(KeyboardInterrupt):
    """Raised where the work is when another signal than Ctrl-C's comes; ``exit_code`` is 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def error_fields(error: SkerryError) -> dict[str, str | int]:
    """Return what a program needs to know of an error: the object that ``--json`` prints."""
    return {
        "error": error.message,
        "kind": type(error).__name__,
        "where": error.where,
        "expected": error.expected,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def fault(error: BaseException) -> SkerryError:
    """Return the error to show for an exception that nobody raised on purpose."""
    return SkerryError(
        f"a fault of Skerry itself: {type(error).__name__}: {error}",
        hint="run it again with --debug (or SKERRY_DEBUG=1) and report what that prints",
    )


def report(error: SkerryError, *, as_json: bool, cause: BaseException | None = None) -> int:
    """Print an error for people on stderr and, with ``as_json``, for programs on stdout; return its exit code.

    ``cause`` is an exception whose traceback is to be shown first.
    """
    if cause is not None:
        import traceback

        traceback.print_exception(cause, file=sys.stderr)
    print(f"skerry: {error}", file=sys.stderr)
    if as_json:
        import json

        try:
            print(json.dumps(error_fields(error), ensure_ascii=False))
        except BrokenPipeError:
            raise
        except OSError:  # stdout is a file on a full disk; stderr has said it
            pass
    return error.exit_code


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Turn what the system says of stdout into a ``SinkError``: it may be a file on a full disk.

    A reader that went away stays a ``BrokenPipeError``, which is no failure.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unprintable(error) from error


def unprintable(error: OSError) -> SinkError:
    """Return the error to show when stdout takes nothing."""
    from skerry.run.sinks.whole import sink_error

    return sink_error(error, "standard output")
