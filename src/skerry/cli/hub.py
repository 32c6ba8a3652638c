"""``skerry hub``: take the records of devices, keep them once each, and hand them on."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skerry.fleet.hub.options import HubOptions

_DESCRIPTION = """\
Take batches of records from devices, store each record exactly once, and hand them on.

On loopback nothing has to be prepared. Beyond it, the hub speaks TLS 1.3 only, with a certificate of the
authority that `skerry keys init` makes; devices show theirs, and everything else is refused."""

_EXAMPLES = """\
examples:
  skerry hub                                        on 127.0.0.1:8470, into ./hub
  skerry hub --listen 0.0.0.0:8443 --authority ~/ca  for a fleet
  skerry hub --database postgresql://hub@db/hub     the records in PostgreSQL
  skerry hub --egress 'nats://127.0.0.1:4222/skerry.records' --egress https://ops.example.org/events
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "hub", help="take the records of devices, and hand them on", description=_DESCRIPTION, epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--listen", default="127.0.0.1:8470", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("hub"), metavar="DIR", help="store and blobs; default: hub")
    parser.add_argument("--database", default="", metavar="URL", help="postgresql://… instead of SQLite in DIR")
    parser.add_argument("--authority", type=Path, metavar="DIR", help="the fleet's authority: see `skerry keys`")
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="a further name by which devices reach the hub"
    )
    parser.add_argument(
        "--egress", action="append", default=[], metavar="URI",
        help="hand every record on: http(s)://, mqtt(s)://, nats://, kafka://; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--transport", action="append", default=[], metavar="URI",
        help="take batches from a broker too: mqtt(s)://HOST, nats://HOST",
    )  # fmt: skip
    parser.add_argument(
        "--keep", metavar="AGE", help="delete records older than that (30d) once every egress has them; default: never"
    )
    parser.add_argument("--keep-size", metavar="SIZE", help="delete the oldest records beyond that (20GB), likewise")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE",
        help="another limit than the default, such as max_blob=4GB; the page on the hub tells them",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run a hub until SIGTERM, SIGHUP or Ctrl-C; then take nothing new, finish what is under way, and end."""
    from skerry.cli.signals import taken
    from skerry.fleet.hub.server import Hub, HubSetup

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    host, port = _address(args.listen)
    ended = threading.Event()
    hub = Hub(
        HubSetup(
            data=args.data, host=host, port=port, database=args.database, authority=args.authority,
            names=tuple(args.name), egress=tuple(args.egress), transports=tuple(args.transport),
            options=_limits([*args.limit, *_keeping(args)]),
        )
    )  # fmt: skip

    def end(_number: int, _frame: object) -> None:
        ended.set()

    with taken(end, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        hub.start()
        print(f"hub: {hub.url}", flush=True)
        try:
            while not ended.wait(0.5) and hub.alive:
                pass
        finally:
            hub.close()
    hub.raise_trouble()
    return 0


def _keeping(args: argparse.Namespace) -> list[str]:
    """Return how long and how much to keep, as limits."""
    named = {"keep": args.keep, "keep_size": args.keep_size}
    return [f"{name}={value}" for name, value in named.items() if value is not None]


def _limits(texts: list[str]) -> HubOptions:
    """Return the options of a hub with these limits; raises ``UsageError`` for a name or a value that is none."""
    import msgspec

    from skerry.fleet.hub.options import HubOptions
    from skerry.spec.errors import UsageError
    from skerry.spec.units import decode_unit

    given = dict(text.partition("=")[::2] for text in texts)
    try:
        return msgspec.convert(given, HubOptions, strict=False, dec_hook=decode_unit)
    except (msgspec.ValidationError, ValueError) as error:
        names = ", ".join(HubOptions.__struct_fields__)
        raise UsageError(f"a limit cannot be read: {error}", expected=f"NAME=VALUE of {names}") from error


def _address(text: str) -> tuple[str, int]:
    """Return host and port; raises ``UsageError`` for anything else."""
    from skerry.spec.errors import UsageError

    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {text!r} is no address", expected="HOST:PORT, such as 127.0.0.1:8470")
    return host.strip("[]"), int(port)
