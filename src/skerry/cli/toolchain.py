"""``skerry toolchain``: the environments in which converters live."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skerry.build.toolchain import State

_DESCRIPTION = """\
Converters that do not get along live in virtual environments of their own, each with pinned packages.
`skerry build` makes one when it first needs it, under $SKERRY_CACHE/toolchains (else ~/.cache/skerry/toolchains),
and uses it again."""

_EXAMPLES = """\
examples:
  skerry toolchain list                       which there are, their versions and sizes
  skerry toolchain install litert openvino    make them now, while there is a network
  skerry toolchain remove litert              free the disk; the next build makes it again
"""

_NAMES = "names as `skerry toolchain list` tells them"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "toolchain", help="install, list or remove the converters' environments", description=_DESCRIPTION,
        epilog=_EXAMPLES, formatter_class=formatter,
    )  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for action, line in (
        ("list", "List every toolchain, installed or not, with its versions and its size."),
        ("install", "Make the environments that are missing; progress goes to stderr."),
        ("remove", "Remove the environments, those of older versions included."),
    ):
        own = actions.add_parser(action, help=line.rstrip(".").lower(), description=line, formatter_class=formatter)
        if action != "list":
            own.add_argument("names", nargs="+", metavar="NAME", help=_NAMES)
        own.add_argument("--json", action="store_true", help="print one JSON list instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List, install or remove; the exit code of an error is the error's."""
    from skerry.build import toolchain
    from skerry.cli.signals import ending_like_ctrl_c

    if args.action == "list":
        _print_states(toolchain.survey(), as_json=args.json)
        return 0
    for name in args.names:  # a wrong name is told before anything is done
        toolchain.find_toolchain(name)
    if args.action == "install":
        with ending_like_ctrl_c():
            for name in args.names:
                toolchain.provide(name, say=_say)
        _print_states([state for state in toolchain.survey() if state.name in args.names], as_json=args.json)
        return 0
    _print_freed({name: toolchain.remove(name) for name in args.names}, as_json=args.json)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_states(states: list[State], *, as_json: bool) -> None:
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(states)).decode())
        return
    width = max((len(state.name) for state in states), default=0)
    for state in states:
        size = f"{state.size_bytes / 1e6:.0f} MB"
        print(f"{state.name:<{width}}  {f'installed, {size}' if state.installed else f'not installed, about {size}'}")
        print(f"{'':<{width}}  {state.purpose}")
        print(f"{'':<{width}}  {', '.join(f'{package} {version}' for package, version in state.versions.items())}")
        if state.older:
            print(f"{'':<{width}}  {state.older} older, {state.older_bytes / 1e6:.0f} MB: skerry toolchain remove NAME")


def _print_freed(freed: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        import msgspec

        rows = [{"name": name, "freed_bytes": size} for name, size in freed.items()]
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    for name, size in freed.items():
        print(f"{name}: {f'removed, {size / 1e6:.0f} MB' if size else 'was not installed'}")
