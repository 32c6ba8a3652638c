"""``skerry techniques``: what `skerry build` can do to a model."""

from __future__ import annotations

import argparse
from typing import Any

_DESCRIPTION = """\
List every technique that prunes, distils, converts or quantizes a model, what it does, and which toolchain
(an isolated environment, see `skerry toolchain`) it needs, if any."""

_EXAMPLES = """\
examples:
  skerry techniques
  skerry techniques --json | jq -r '.[] | select(.kind == "quantize") | .name'
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "techniques",
        help="list what `build` can do to a model",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the listing, in the order in which techniques are composed."""
    import msgspec

    found = _listing()
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return 0
    widths = [max((len(one[key]) for one in found), default=0) for key in ("name", "kind")]
    for one in found:
        needs = f" (toolchain {one['toolchain']})" if one["toolchain"] else ""
        print(f"{one['name']:<{widths[0]}}  {one['kind']:<{widths[1]}}  {one['summary']}{needs}")
    return 0


def _listing() -> list[dict[str, Any]]:
    from typing import get_args

    from skerry.build.technique import Kind, techniques

    order = get_args(Kind)
    kinds = sorted(techniques().values(), key=lambda kind: (order.index(kind.kind), kind.name))
    keys = ("name", "kind", "version", "toolchain", "summary")
    return [{key: getattr(kind, key) for key in keys} for kind in kinds]
