"""``skerry serve``: answers requests for models over HTTP and gRPC until it is told to stop."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.cli.arguments import duration, port, positive
from skerry.cli.errors import printing
from skerry.spec.errors import UsageError

if TYPE_CHECKING:
    import logging
    import threading

    from skerry.run.serve.options import ServeOptions
    from skerry.run.serve.server import Server

EXAMPLES = """\
WHAT is a project folder or pipeline file whose models were built, a folder with one model file (a text model where a
tokenizer.json lies beside it), or a model file (.onnx, .tflite and what else the runtimes take).

examples:
  skerry serve watch                                     every model of a project, on http://127.0.0.1:8080
  skerry serve model.onnx --name mine --port 0           one file, on any free port
  skerry serve watch --grpc-port 8081                    gRPC too
  skerry serve /mnt/models --host 0.0.0.0 --insecure     inside a container, behind something that has TLS

protocols:
  /v2/models/NAME/infer     the Open Inference Protocol, version 2 (also over gRPC): any model
  /v1/embeddings            OpenAI's form: models of text
  /v2/health/live, /v2/health/ready, /healthz, /metrics

environment:
  PORT stands for --port, and SKERRY_MODEL_NAME or MODEL_NAME for --name, where they are not given.

signals:
  SIGTERM: /v2/health/ready says no, requests are still taken for --linger, then those under way are answered, for at
  most --drain. Ctrl-C does the same without lingering; a second signal ends at once.
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``serve`` and its arguments."""
    parser = commands.add_parser(
        "serve", help="answer requests for models", description="Answer requests for models.", epilog=EXAMPLES
    )
    parser.add_argument("what", metavar="WHAT", type=Path, help="a project, a pipeline file, a folder or a model file")
    parser.add_argument("--name", "--model_name", metavar="NAME", help="the name that clients ask for")
    parser.add_argument("--variant", metavar="NAME", help="another variant of a project's model than the best")
    parser.add_argument("--threads", metavar="N", type=positive, help="threads of one run")
    parser.add_argument("--host", metavar="ADDRESS", help="listen on this address (127.0.0.1)")
    parser.add_argument("--port", metavar="PORT", type=port, help="answer HTTP there; 0 takes a free one (8080)")
    parser.add_argument("--grpc-port", metavar="PORT", type=port, help="answer gRPC there; 0 takes a free one")
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="TLS: the certificate chain, in PEM")
    parser.add_argument("--key", metavar="FILE", type=Path, help="TLS: its private key, in PEM")
    parser.add_argument("--insecure", action="store_true", default=None, help="allow plain text beyond this machine")
    parser.add_argument("--max-batch", metavar="N", type=positive, help="the most rows of one run (16)")
    parser.add_argument("--queue", metavar="N", type=positive, help="the most rows that wait; then 429 (256)")
    parser.add_argument("--max-body", metavar="SIZE", type=_size, help="the most bytes of one request (64MB)")
    parser.add_argument("--patience", metavar="TIME", type=duration, help="for one request to come in (30s)")
    parser.add_argument("--linger", metavar="TIME", type=duration, help="between not ready and closed (1s)")
    parser.add_argument("--drain", metavar="TIME", type=duration, help="for requests under way at the end (10s)")
    parser.add_argument(
        "--allow-nan", dest="finite", action="store_false", default=None,
        help="take NaN and infinities in requests, for models that know them",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="say where it listens as one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def _size(text: str) -> float:
    from skerry.spec.units import Size

    try:
        return Size.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None


def run(args: argparse.Namespace) -> int:
    """Load the models, serve them, and return 0 after a graceful end."""
    begin = time.monotonic()
    from skerry.cli.run import project_at
    from skerry.run.serve.loading import load_servables
    from skerry.run.serve.server import Server

    options = _options(args)
    log = _log(args.quiet)
    server = Server([], options, log)  # what is wrong with the options is told before anything is loaded
    name = args.name or os.environ.get("SKERRY_MODEL_NAME") or os.environ.get("MODEL_NAME")
    servables = load_servables(project_at(args.what), name=name, variant=args.variant, threads=args.threads)
    server = Server(servables, options, log)
    _announce(server, [each.name for each in servables], args, begin)
    server.run(with_signals=True)
    return 0


def _options(args: argparse.Namespace) -> ServeOptions:
    from skerry.run.serve.options import ServeOptions
    from skerry.spec.units import Duration, Size

    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("host", "port", "grpc_port", "certificate", "key", "insecure", "max_batch", "queue", "finite")
    }
    if args.port is None and os.environ.get("PORT"):
        try:
            given["port"] = port(os.environ["PORT"])
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"the environment variable PORT: {error}") from None
    given |= {
        name: None if getattr(args, name) is None else Duration(getattr(args, name))
        for name in ("patience", "linger", "drain")
    }
    given["max_body"] = None if args.max_body is None else Size(args.max_body)
    return ServeOptions(**{name: value for name, value in given.items() if value is not None})


def _log(quiet: bool) -> logging.Logger:
    import logging

    from skerry.cli.reporter import EventLog

    log = logging.getLogger("skerry")
    log.handlers[:] = [EventLog(lambda line: None if quiet else print(line, file=sys.stderr, flush=True))]
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


def _announce(server: Server, models: list[str], args: argparse.Namespace, begin: float) -> threading.Thread:
    """Say where it listens as soon as it does, from a thread that waits for that."""
    import threading

    def announce() -> None:
        server.started.wait()
        seconds = round(time.monotonic() - begin, 3)
        if args.json:
            import msgspec

            words = {"url": server.url, "grpc": server.grpc_address or None, "models": models, "ready_s": seconds}
            with printing():
                print(msgspec.json.encode(words).decode(), flush=True)
        elif not args.quiet:
            doors = f"{server.url}{f' and gRPC on {server.grpc_address}' if server.grpc_address else ''}"
            print(f"serving {', '.join(models)} on {doors} (ready after {seconds:.2f} s)", file=sys.stderr, flush=True)

    thread = threading.Thread(target=announce, name="announce", daemon=True)
    thread.start()
    return thread
