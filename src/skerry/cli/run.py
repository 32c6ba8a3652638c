"""``skerry run``: runs a pipeline until its sources end, a limit is reached or a signal comes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.cli.arguments import duration, port, positive
from skerry.cli.errors import EXIT_BROKEN_PIPE, printing, report
from skerry.cli.signals import taken
from skerry.spec.errors import SkerryError, SpecMissingError, UsageError

if TYPE_CHECKING:
    from skerry.cli.reporter import Reporter
    from skerry.run.openmetrics import MetricsServer
    from skerry.spec.reading import Project
    from skerry.spec.summary import RunSummary

EXAMPLES = """\
TARGET is a project folder or a pipeline file.

examples:
  skerry run watch                          until its sources end, or Ctrl-C
  skerry run watch --for 10s --json         ten seconds, then one JSON object
  skerry run watch/pipeline.yaml --max-items 1000
  skerry run watch --metrics-port 9464      and http://127.0.0.1:9464/metrics beside it

output:
  Progress goes to stderr: a live view on a terminal, plain lines elsewhere. The closing table goes to stdout. Where a
  stdout sink writes to stdout, its records are all that comes there, the live view is left to a terminal on stderr
  alone, and the closing table goes to stderr. With --json, stdout is one JSON object on one line and nothing else; a
  stdout sink's records come before it, so it is always the last line.

signals:
  The first Ctrl-C, SIGTERM or SIGHUP ends reading and finishes what is queued, for at most `drain` of the file.
  The second one drops what is queued, counts it, and ends with code 128 + signal; the third ends the process at once.
  One that comes while models are loaded ends with code 128 + signal: there is nothing to finish yet.
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``run`` and its arguments."""
    parser = commands.add_parser("run", help="run a pipeline", description="Run a pipeline.", epilog=EXAMPLES)
    parser.add_argument("target", metavar="TARGET", type=Path, help="a project folder or a pipeline file")
    parser.add_argument("--for", dest="duration", metavar="TIME", type=duration, help="stop after this time: 10s, 5min")
    parser.add_argument("--max-items", metavar="N", type=positive, help="stop after reading this many items")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on stdout")
    parser.add_argument("--plain", action="store_true", help="print lines, also on a terminal")
    parser.add_argument("--quiet", action="store_true", help="print errors only (and, with --json, the object)")
    parser.add_argument(
        "--metrics-port", metavar="PORT", type=port, help="serve OpenMetrics there; 0 takes a free port"
    )
    parser.add_argument(
        "--metrics-address", metavar="ADDRESS", default="127.0.0.1",
        help="listen on this address (%(default)s); others than this machine need `insecure: true` in the file",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run a pipeline; return 0 after a clean end, or the exit code of the error that ended it."""
    from skerry.spec.reading import read_project

    project = read_project(project_at(args.target))
    records_on_stdout = writes_stdout(project)
    signals = Signals()
    reporter = _reporter(args, records_on_stdout, signals.next_step)
    log = _log(reporter)
    from skerry.run.assembly import assemble

    engine = assemble(project, log=log)
    signals.drain, signals.drop, signals.is_up = engine.stop, engine.abort, lambda: engine.is_up
    with contextlib.ExitStack() as stack:
        if records_on_stdout:
            from skerry.cli.reader import watched_reader

            stack.enter_context(watched_reader(signals.reader_gone))
        if args.json and not records_on_stdout:
            stack.enter_context(stdout_to_stderr())
        server = _metrics(args, project, engine.summary)
        if server is not None:
            stack.callback(server.close)
            reporter.say(f"metrics: {server.url}")
        summary, error = _watched(engine, args, reporter, signals)
    code = signals.exit_code if error is None else error.exit_code
    _close(summary, error, code, project, args)
    return code if error is None else report(error, as_json=False, cause=error if _debug(args) else None)


def project_at(target: Path) -> Path:
    """Return the project that is meant; say clearly what is not taken yet.

    Raises ``UsageError`` for an OCI layout or a reference to a release, ``SpecMissingError`` for what the system
    refuses to look at: a folder that may not be entered, a name that is too long.
    """
    try:
        return _plain_project(target)
    except OSError as error:
        raise SpecMissingError(
            f"cannot read {target}: {error.strerror or error}", expected="a project folder or a pipeline file"
        ) from error


def _plain_project(target: Path) -> Path:
    if target.is_dir() and not (target / "pipeline.yaml").exists() and (target / "oci-layout").exists():
        raise UsageError(
            f"{target} is a packed release, and this version runs projects only",
            expected="a project folder or a pipeline file",
        )
    # `registry.example:5000/name:tag` or `name@sha256:…`; nobody calls a pipeline file that.
    text = str(target)
    if not target.exists() and not text.endswith((".yaml", ".yml")) and (":" in text or "@" in text):
        raise UsageError(
            f"{text} looks like a reference to a release, and this version runs projects only",
            expected="a project folder or a pipeline file",
        )
    return target


def writes_stdout(project: Project) -> bool:
    """Tell whether a sink writes records to stdout."""
    sinks = [*project.sinks, *([project.dead_letter] if project.dead_letter else [])]
    return any(sink.uri.split(":")[0] == "stdout" for sink in sinks)


def _reporter(args: argparse.Namespace, records_on_stdout: bool, footer: Callable[[], str]) -> Reporter:
    from skerry.cli.reporter import PlainReporter, SilentReporter

    if args.quiet:
        return SilentReporter()
    # Records and a picture on the same terminal would tear each other apart.
    torn = sys.stdout.isatty() and records_on_stdout
    if args.plain or args.json or torn or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return PlainReporter()
    from skerry.cli.live import LiveView

    return LiveView(capture_stdout=sys.stdout.isatty(), footer=footer)


def _log(reporter: Reporter) -> logging.Logger:
    from skerry.cli.reporter import EventLog

    log = logging.getLogger("skerry")
    log.handlers[:] = [EventLog(reporter.say)]
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


def _metrics(args: argparse.Namespace, project: Project, summary: Callable[[], RunSummary]) -> MetricsServer | None:
    if args.metrics_port is None:
        return None
    from skerry.run.openmetrics import MetricsServer
    from skerry.spec.address import refuse_plain_text
    from skerry.spec.ports import Address

    address = Address(text="", scheme="http+listen", host=args.metrics_address)
    refuse_plain_text(address, project.pipeline.insecure, where="--metrics-address")
    return MetricsServer(summary, address=args.metrics_address, port=args.metrics_port)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send whatever is written to stdout to stderr, that of C code and of child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _watched(
    engine: Any, args: argparse.Namespace, reporter: Reporter, signals: Signals
) -> tuple[RunSummary, SkerryError | None]:
    """Run the engine under the eyes of the reporter; return the last summary, and the error that ended the run."""
    from skerry.cli.reporter import Watch

    watch = Watch(engine.summary, reporter, signals.news)
    signals.before_exit = reporter.stop
    with signals.caught():
        watch.start()
        try:
            return engine.run(duration_s=args.duration, max_items=args.max_items), None
        except SkerryError as error:
            return engine.summary(), error
        except TooEarly:
            return engine.summary(), None
        finally:
            watch.stop()


class TooEarly(KeyboardInterrupt):
    """Raised by a signal while nothing was read yet: loading a large model for a run that is over helps nobody."""


class Signals:
    """Signals during a run: the first drains, the second drops what is left, the third ends the process.

    ``drain`` and ``drop`` ask for the graceful and for the quick end, ``is_up`` tells whether there may be anything to
    drain, ``before_exit`` gives the terminal back; they are set before the signals are caught, and are safe to call
    from a handler.
    """

    STEPS = ("finish what is queued, and end", "drop what is queued, and end", "end at once")

    def __init__(self) -> None:
        self.exit_code = 0
        """128 + the signal that made the run drop what was left, 141 when nobody reads stdout; 0 while none did."""
        self.drain: Callable[[], None] = lambda: None
        self.drop: Callable[[], None] = lambda: None
        self.is_up: Callable[[], bool] = lambda: True
        self.before_exit: Callable[[], None] = lambda: None
        self._seen = 0
        self._news: list[str] = []

    def next_step(self) -> str:
        """Say what the next signal does."""
        return f"Ctrl-C: {self.STEPS[min(self._seen, len(self.STEPS) - 1)]}"

    def news(self) -> list[str]:
        """Return what is to be said since the last call; the handler must not print, it may interrupt a print."""
        lines, self._news = self._news, []
        return lines

    def reader_gone(self) -> None:
        """Drain, because nobody takes what the run prints; safe to call from another thread."""
        self.exit_code = self.exit_code or EXIT_BROKEN_PIPE
        self._news.append("nobody reads stdout any more: finish what is queued, and end")
        self.drain()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals inside the block, and as before after it."""
        with taken(self._handle, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            yield

    def _handle(self, number: int, _frame: object) -> None:
        done, self._seen = self._seen, self._seen + 1
        if done >= len(self.STEPS) - 1:
            self._exit(number)
        if not self.is_up():
            self.exit_code = 128 + number
            if done:  # the first one is at work already, and must be able to close what was opened
                return
            self._news.append(f"{signal.Signals(number).name}: nothing was read yet, the run ends")
            raise TooEarly
        self._news.append(f"{signal.Signals(number).name}: {self.STEPS[done]}; once more: {self.STEPS[done + 1]}")
        if done == 0:
            self.drain()
        else:
            self.exit_code = 128 + number
            self.drop()

    def _exit(self, number: int) -> None:
        with contextlib.suppress(Exception):  # whatever the terminal does now, the process must end
            self.before_exit()
        os.write(2, b"skerry: ended at once; what was not settled is read again by the next run\n")
        os._exit(128 + number)


def _close(
    summary: RunSummary, error: SkerryError | None, code: int, project: Project, args: argparse.Namespace
) -> None:
    """Print the end of a run: one JSON object, or the table."""
    from skerry.cli.closing import closing_lines, closing_object

    if args.json:
        import msgspec

        with printing():
            print(msgspec.json.encode(closing_object(summary, project, error, code)).decode(), flush=True)
    elif not args.quiet:
        stream = sys.stderr if writes_stdout(project) else sys.stdout
        with printing():
            print("", *closing_lines(summary, project), sep="\n", file=stream, flush=True)


def _debug(args: argparse.Namespace) -> bool:
    return bool(args.debug) or os.environ.get("SKERRY_DEBUG", "") not in {"", "0"}
