"""``skerry keys``: who may join a fleet, as whoever runs the hub decides it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from skerry.cli.arguments import duration
from skerry.spec.errors import TrustError, UsageError

if TYPE_CHECKING:
    from skerry.trust.authority import Authority
    from skerry.trust.ledger import Member
    from skerry.trust.names import Role

_DESCRIPTION = """\
Decide which devices belong to your fleet. `init` makes a private certificate authority: a folder with a key that
vouches for your devices and for your hub, and for nobody else on the internet. A device gets in with a token, one
string that works once; from then on it holds a certificate of 24 hours that it renews by itself."""

_EXAMPLES = """\
examples:
  skerry keys init --hub https://hub.example.org:8443   once, on the machine of the hub
  skerry keys token pump-7                              one string, to be pasted on that device
  skerry enroll TOKEN                                   on the device: paste it
  skerry keys list                                      who is in, and until when
  skerry keys revoke pump-7                             it was stolen: out, at its next request
  skerry keys operator ann --pkcs12 ann.p12             let a person read the hub, with curl or a browser

A pipeline and a hub on the same machine need none of this.
"""
_FOLDER = "where the authority is (default: $SKERRY_AUTHORITY, else ~/.local/state/skerry/authority)"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "keys", help="decide which devices may join your fleet", description=_DESCRIPTION, epilog=_EXAMPLES,
        formatter_class=formatter,
    )  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for action, line in (
        ("init", "Make the authority of a new fleet, once."),
        ("token", "Print a token that lets one device in, once."),
        ("list", "List who is in, who is waiting and who was revoked."),
        ("operator", "Make a key and a certificate for a person who may read the hub."),
        ("revoke", "Keep a device or an operator out from now on."),
        ("rotate", "Give the authority a new key; devices move over as they renew."),
    ):
        own = actions.add_parser(
            action, help=line[0].lower() + line[1:].rstrip("."), description=line, formatter_class=formatter
        )
        _ARGUMENTS[action](own)
        own.add_argument("--authority", metavar="DIR", type=Path, help=_FOLDER)
        own.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hub", metavar="URL", required=True, help="how devices reach the hub, such as https://hub.example.org:8443"
    )
    parser.add_argument("--fleet", metavar="NAME", default="", help="the name of the fleet (default: the hub's host)")
    parser.add_argument(
        "--name", metavar="HOST", action="append", default=[], help="another name or address of the hub; repeatable"
    )


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what the device is to be called, such as pump-7")
    parser.add_argument("--operator", action="store_true", help="for a person who runs the fleet, not for a device")
    parser.add_argument(
        "--lasts", metavar="TIME", type=duration, default=86400.0, help="how long it may be used, at most 30d (24h)"
    )


def _operator_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what the person is to be called, such as ann")
    parser.add_argument(
        "--lasts", metavar="TIME", type=duration, default=30 * 86400.0, help="how long it counts, at most 366d (30d)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the files go (default: operator-NAME)")
    parser.add_argument("--pkcs12", metavar="FILE", type=Path, help="also one file for a browser")


def _revoke_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", nargs="?", default="", help="the device, as `skerry keys list` names it"
    )
    parser.add_argument("--operator", action="store_true", help="NAME is an operator")
    parser.add_argument("--serial", metavar="HEX", default="", help="one certificate only, by its serial number")


def _rotate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--finish", action="store_true", help="end the old key, when every device has renewed")
    parser.add_argument("--force", action="store_true", help="with --finish: even if some have not; they enrol again")


_ARGUMENTS = {
    "init": _init_arguments,
    "token": _token_arguments,
    "list": lambda parser: None,
    "operator": _operator_arguments,
    "revoke": _revoke_arguments,
    "rotate": _rotate_arguments,
}


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit code of an error is the error's."""
    return _ACTIONS[args.action](args)


@contextlib.contextmanager
def _authority(args: argparse.Namespace) -> Iterator[Authority]:
    from skerry.trust.authority import Authority

    opened = Authority.load(args.authority)
    try:
        yield opened
    finally:
        opened.close()


def _init(args: argparse.Namespace) -> int:
    from skerry.trust.authority import Authority

    made = Authority.init(args.authority, hub=args.hub, trust_domain=args.fleet, names=args.name, now=time.time())
    facts = {
        "folder": str(made.folder), "fleet": made.trust_domain, "hub": made.hub, "fingerprint": made.fingerprint(),
    }  # fmt: skip
    made.close()
    if args.json:
        _print_json(facts)
        return 0
    _print_facts(facts)
    print("\nKeep a copy of this folder where nobody else can read it: whoever has it can let anybody in,")
    print("and without it every device has to enrol again.")
    place = "" if args.authority is None else f" --authority {args.authority}"
    _say_next(f"start the hub: skerry hub --listen 0.0.0.0:{urlsplit(args.hub).port or 443} --authority {made.folder}")
    _say_next(f"give each device a name and a token: skerry keys token pump-7{place}")
    return 0


def _token(args: argparse.Namespace) -> int:
    now = time.time()
    role: Role = "operator" if args.operator else "device"
    with _authority(args) as authority:
        token = authority.issue_token(args.name, args.lasts, role=role, now=now)
        held = {(member.role, member.name) for member in authority.members(now) if member.state in {"enrolled", "away"}}
    if args.json:
        _print_json({"name": args.name, "role": role, "token": token, "expires": _moment(now + args.lasts)})
        return 0
    print(token)
    sys.stdout.flush()
    print(f"it lets one {role} in as {args.name!r}, once, until {_moment(now + args.lasts)}", file=sys.stderr)
    if (role, args.name) in held:
        print(f"there is a {role} of that name: when the token is used, the one there is now is out", file=sys.stderr)
    _say_next(f"on that {'machine' if args.operator else 'device'}: skerry enroll TOKEN")
    return 0


def _list(args: argparse.Namespace) -> int:
    with _authority(args) as authority:
        members = authority.members(time.time())
    if args.json:
        _print_json(members)
        return 0
    if not members:
        print("nobody is in this fleet yet")
        _say_next("skerry keys token pump-7")
        return 0
    rows = [("NAME", "ROLE", "STATE", "CERTIFICATE UNTIL", "SERIAL", "NOTE"), *map(_row, members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(member: Member) -> tuple[str, ...]:
    notes = [f"a token waits until {_moment(member.token_expires)}"] if member.token_expires else []
    if member.twins:
        notes.append(f"renewed {member.twins}x from an old certificate: a copy of its disk may be in use")
    until = _moment(member.ends) if member.ends else "-"
    return member.name, member.role, member.state, until, member.serial or "-", "; ".join(notes)


def _operator(args: argparse.Namespace) -> int:
    from skerry.trust.operator import make_operator, write_pkcs12

    if args.pkcs12 and not args.pkcs12.parent.is_dir():
        raise UsageError(f"--pkcs12 {args.pkcs12}: there is no folder {args.pkcs12.parent}")
    folder = args.out or Path(f"operator-{args.name}")
    with _authority(args) as authority:
        made, files = make_operator(authority, args.name, folder, life_s=args.lasts, now=time.time())
        hub = authority.hub
    password = write_pkcs12(made, args.pkcs12) if args.pkcs12 else ""
    curl = f"curl --cacert {quote(str(files.authority))} --cert {quote(str(files.certificate))}"
    curl += f" --key {quote(str(files.key))} {hub}/v1/records"
    if args.json:
        facts = {"operator": made.name, "until": _moment(made.until), **{k: str(v) for k, v in files._asdict().items()}}
        browser = {"pkcs12": str(args.pkcs12), "password": password} if password else {}
        _print_json({**facts, "hub": hub, "curl": curl, **browser})
        return 0
    print(f"{made.name} may use the hub until {_moment(made.until)}; a certificate from before of that name is out\n")
    print(f"{files.authority}    whom to believe\n{files.certificate}  who {made.name} is")
    print(f"{files.key}          secret: whoever has it is {made.name}\n\nin a terminal:\n\n  {curl}\n")
    if password:
        print(f"in a browser: import {args.pkcs12} as your own certificate, password {password}")
        print(f"  then open {hub}/v1/records; the browser warns, as it does not know your authority")
    _say_next(f"move the files to the machine of {made.name} by a safe way (scp), and delete them here")
    _say_next(f"when it is over, make it again; when it got lost: skerry keys revoke --operator {made.name}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    if bool(args.name) == bool(args.serial):
        raise UsageError("say whom to revoke", expected="NAME, or --serial HEX", hint="see `skerry keys list`")
    who = {"serial": args.serial} if args.serial else {"operator" if args.operator else "device": args.name}
    with _authority(args) as authority:
        count = authority.revoke(**who, now=time.time())
    if args.json:
        _print_json({**who, "certificates": count})
        return 0
    print(f"{args.name or args.serial} is out: {_counted(count)} revoked, and running hubs know it from now on")
    if args.name:
        _say_next(f"to let it in again: skerry keys {'operator' if args.operator else 'token'} {args.name}")
    return 0


def _rotate(args: argparse.Namespace) -> int:
    if args.force and not args.finish:
        raise UsageError("--force goes with --finish only")
    with _authority(args) as authority:
        if args.finish:
            _finish(authority, force=args.force)
        else:
            authority.rotate(time.time())
        behind = authority.left_behind(time.time())
        facts = {"fingerprint": authority.fingerprint(), "left_behind": behind, "finished": args.finish}
    if args.json:
        _print_json(facts)
    elif args.finish:
        print("the old key is deleted; tokens from before have to be made again")
        _say_next("restart the hub")
    else:
        print(f"devices are certified by a new key from now on; {len(behind)} still hold a certificate of the old one")
        _say_next("restart the hub, wait until every device has renewed, then: skerry keys rotate --finish")
    return 0


def _finish(authority: Authority, *, force: bool) -> None:
    behind = authority.left_behind(time.time())
    if behind and not force:
        shown = ", ".join(behind[:5]) + (f" and {len(behind) - 5} more" if len(behind) > 5 else "")
        raise TrustError(
            f"{len(behind)} have not renewed since the rotation began: {shown}",
            hint="wait for them, or revoke those that are gone; with --force they have to enrol again",
        )
    authority.finish_rotation()


_ACTIONS = {
    "init": _init, "token": _token, "list": _list, "operator": _operator, "revoke": _revoke, "rotate": _rotate,
}  # fmt: skip


def _counted(count: int) -> str:
    return f"{count} certificate{'' if count == 1 else 's'}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _print_facts(facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for label, value in facts.items():
        print(f"{label:<{width}}  {value}")


def _print_json(found: Any) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(found)).decode())


def _say_next(line: str) -> None:
    print(f"next: {line}", file=sys.stderr)
