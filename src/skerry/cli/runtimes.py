"""``skerry runtimes``: which inference engines are usable here."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skerry.runtimes.listing import RuntimeReport

_DESCRIPTION = """\
List every runtime (inference engine) that is installed, with its version and the devices it offers,
and say of the others why they are not usable and what to do about it."""

_EXAMPLES = """\
examples:
  skerry runtimes
  skerry runtimes --json | jq -r '.[] | select(.usable) | .name'
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "runtimes",
        help="list the inference engines usable here",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the listing; the exit code is 0 even when no runtime is usable, since that too is an answer."""
    import msgspec

    from skerry.runtimes.listing import survey

    reports = survey()
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(reports)).decode())
        return 0
    width = max((len(report.name) for report in reports), default=0)
    for report in reports:
        print(f"{report.name:<{width}}  {_line(report)}")
        if report.hint and not report.usable:
            print(textwrap.indent(f"hint: {report.hint}", " " * (width + 2)))
        for reason, devices in _lacking(report):
            print(textwrap.indent(f"lacks {', '.join(devices)}: {reason}", " " * (width + 2)))
    return 0


def _lacking(report: RuntimeReport) -> list[tuple[str, list[str]]]:
    """Return what the devices that are not here would take, and those for which it is the same."""
    found: dict[str, list[str]] = {}
    for device, reason in report.lacks.items():
        found.setdefault(reason, []).append(device)
    return sorted(found.items(), key=lambda pair: pair[1])


def _line(report: RuntimeReport) -> str:
    if not report.usable:
        return f"not usable: {report.reason}"
    parts = [report.version, f"devices: {', '.join(report.devices)}", f"models: {', '.join(report.suffixes)}"]
    return "  ".join(parts)
