"""``skerry enroll``: this device joins a fleet with a token, or tells who it is."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from skerry.spec.errors import UsageError

if TYPE_CHECKING:
    from skerry.trust.identity import Identity

_DESCRIPTION = """\
Join a fleet: paste the token that whoever runs the hub gave you. It names the hub and says by which key to recognize
it, so that there is nothing else to fill in. The key of this device is made here and never leaves it.
Without a token: tell who this device is."""

_EXAMPLES = """\
examples:
  skerry enroll skerry1.lrZod...       join with that token
  echo "$TOKEN" | skerry enroll -      the same, and the token is seen in no list of processes
  skerry enroll                        who this device is, of which hub, and until when
  skerry enroll --renew                renew the certificate now; `skerry run` does so by itself
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "enroll",
        help="let this device join a fleet with a token",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("token", metavar="TOKEN", nargs="?", default="", help="the token; - reads it from stdin")
    parser.add_argument("--hub", metavar="URL", default="", help="where the hub is, if not at the address known")
    parser.add_argument(
        "--key", metavar="URI", default="", help="a key in a TPM or another chip, pkcs11:…; made there when missing"
    )
    parser.add_argument("--again", action="store_true", help="replace the identity that this device has")
    parser.add_argument("--renew", action="store_true", help="get a new certificate now, by the old one")
    parser.add_argument(
        "--identity", metavar="DIR", type=Path,
        help="where the identity is kept (default: $SKERRY_IDENTITY, else ~/.local/state/skerry/identity)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Enrol, renew or tell; the exit code of an error is the error's."""
    from skerry.trust.enrolment import enrol, renew
    from skerry.trust.identity import load_identity

    if args.renew and args.token:
        raise UsageError("--renew needs no token", hint="a token is for a device that is not enrolled")
    if (args.key or args.again) and not args.token:
        raise UsageError("--key and --again go with a token")
    if args.hub and not (args.token or args.renew):
        raise UsageError("--hub goes with a token or with --renew")
    if args.token:
        token = sys.stdin.readline() if args.token == "-" else args.token
        identity = enrol(args.hub, token, args.identity, again=args.again, chip=args.key)
    else:
        identity = load_identity(args.identity)
        if args.renew:
            identity = renew(identity, url=args.hub)
    _print_identity(identity, as_json=args.json)
    if args.token and not args.json:
        print("next: send what a pipeline finds to the hub with the sink `hub:`, then: skerry run", file=sys.stderr)
    return 0


def _print_identity(identity: Identity, *, as_json: bool) -> None:
    facts = {identity.role: identity.device, "fleet": identity.trust_domain}
    if identity.has_certificate:
        from skerry.trust.certificate import ends, serial_text

        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ends(identity.certificate)))
        facts |= {"hub": identity.hub, "certificate until": until, "serial": serial_text(identity.certificate)}
    facts["folder"] = str(identity.folder)
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(facts)).decode())
        return
    width = max(map(len, facts))
    for label, value in facts.items():
        print(f"{label:<{width}}  {value}")
    if identity.has_certificate:
        print("the certificate renews itself while the device runs, and after it was away")
