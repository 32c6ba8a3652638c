"""``skerry probe``: what this machine, or one of the catalogue, is and can do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from skerry.spec.errors import UsageError

if TYPE_CHECKING:
    from skerry.spec.profile import DeviceProfile

_DESCRIPTION = """\
Tell what this machine is and can do: processor, usable cores and memory, measured speed, disk,
accelerators and whether Skerry can use them, heat, power, energy and links. Nothing is sent anywhere."""

_EXAMPLES = """\
examples:
  skerry probe                                   measure this machine (some seconds)
  skerry probe --quick --json                    only what can be read, for programs
  skerry probe --device raspberry-pi-5           plan for a device that is not here
  skerry probe --measure-link https://host/file  also measure the link, with a file of some megabytes
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "probe",
        help="tell what this machine is and can do",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--quick", action="store_true", help="read only, measure nothing")
    parser.add_argument("--device", metavar="NAME", help="show a device of the catalogue instead of this machine")
    parser.add_argument("--list-devices", action="store_true", help="list the devices of the catalogue")
    parser.add_argument("--measure-link", metavar="URL", help="download from URL to measure the link")
    parser.add_argument("--metered", metavar="LINK", action="append", default=[], help="traffic over LINK costs money")
    parser.add_argument("--unmetered", metavar="LINK", action="append", default=[], help="traffic over LINK is free")
    parser.add_argument("--storage", metavar="FOLDER", type=Path, help="the disk to look at (default: here)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a profile, or the list of devices.

    Raises
    ------
    UsageError
        Options that do not go together, or a folder that is none.
    DeviceError
        An unknown device, or a link that cannot be measured.
    """
    _check(args)
    if args.list_devices:
        return _list_devices(as_json=args.json)
    profile = _catalogued(args.device) if args.device is not None else _probed(args)
    if args.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(profile)).decode())
        return 0
    from skerry.device.report import profile_table

    rows = profile_table(profile)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")
    return 0


def _check(args: argparse.Namespace) -> None:
    here_only = {
        "--quick": args.quick,
        "--measure-link": args.measure_link,
        "--metered": args.metered,
        "--unmetered": args.unmetered,
        "--storage": args.storage,
    }
    given = [option for option, value in here_only.items() if value not in (None, False, [])]
    elsewhere = [
        option
        for option in ("--device", "--list-devices")
        if getattr(args, option[2:].replace("-", "_")) not in (None, False)
    ]
    if len(elsewhere) > 1 or (elsewhere and given):
        first, second = (*elsewhere, *given)[:2]
        raise UsageError(f"{first} and {second} do not go together", hint="the catalogue is only shown, not measured")
    if args.storage is not None and not args.storage.is_dir():
        raise UsageError(f"{args.storage} is not a folder", where="--storage", expected="a folder to look at")
    both = sorted(set(args.metered) & set(args.unmetered))
    if both:
        raise UsageError(f"{both[0]} cannot be both metered and not", where="--metered and --unmetered")


def _probed(args: argparse.Namespace) -> DeviceProfile:
    """Probe this machine; what the runtimes say of themselves is asked here, where both rooms are known."""
    from skerry.device.probe import probe
    from skerry.runtimes.listing import survey

    return probe(
        quick=args.quick,
        storage=args.storage,
        runtimes={report.name: "" if report.usable else report.reason for report in survey()},
        metered=dict.fromkeys(args.metered, True) | dict.fromkeys(args.unmetered, False),
        link_url=args.measure_link,
    )


def _catalogued(name: str) -> DeviceProfile:
    from skerry.device.catalogue import load_device

    return load_device(name)


def _list_devices(*, as_json: bool) -> int:
    from skerry.device.catalogue import catalogue, load_entry

    titles = {name: load_entry(name).title for name in catalogue()}
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(titles)).decode())
        return 0
    width = max(len(name) for name in titles)
    for name, title in titles.items():
        print(f"{name:<{width}}  {title}")
    return 0
