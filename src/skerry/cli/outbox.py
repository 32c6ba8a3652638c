"""``skerry outbox``: what waits to be sent, what cannot be delivered, and what was lost."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.spec.errors import OutboxError, UsageError

if TYPE_CHECKING:
    from skerry.run.outbox.status import OutboxStatus
    from skerry.run.uplink.trouble import Trouble

_DESCRIPTION = """\
Look into the outboxes of a project: what waits to be sent, what the hub refused for good (dead letters), and what was
given up, with the reason. Works while a run writes, and while none does."""

_EXAMPLES = """\
examples:
  skerry outbox status                 every store: what waits, what was lost
  skerry outbox peek watch -n 5        what would be sent next
  skerry outbox peek --dead            dead letters, each with its reason
  skerry outbox replay --id 3          send dead letter 3 once more, as a new record
  skerry outbox drop --all             delete every dead letter
"""
_SHOWN = 20
_WIDEST = 60  # characters of a record's fields in a table


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``outbox`` and its arguments."""
    parser = commands.add_parser(
        "outbox",
        help="tell what waits to be sent, and handle dead letters",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    status = actions.add_parser("status", help="what waits, what was lost, and why", allow_abbrev=False)
    peek = actions.add_parser("peek", help="list what would be sent next, or dead letters", allow_abbrev=False)
    peek.add_argument("-n", "--limit", metavar="N", type=int, default=_SHOWN, help=f"records (default: {_SHOWN})")
    peek.add_argument("--dead", action="store_true", help="list dead letters instead")
    replay = actions.add_parser("replay", help="send dead letters again, as new records", allow_abbrev=False)
    drop = actions.add_parser("drop", help="delete dead letters", allow_abbrev=False)
    for action in (replay, drop):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("--id", metavar="ID", type=int, action="append", help="a dead letter; may be repeated")
        which.add_argument("--all", action="store_true", help="every dead letter")
    for action in (status, peek, replay, drop):
        action.add_argument(
            "project", metavar="PROJECT", nargs="?", type=Path, default=Path(),
            help="a project folder, a pipeline file, a folder of stores or one store (default: this folder)",
        )  # fmt: skip
        action.add_argument("--store", metavar="NAME", help="only the store of this name, such as outbox-1")
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )


def run(args: argparse.Namespace) -> int:
    """Show or change what is in the outboxes.

    Raises
    ------
    UsageError
        There is no such project or store, or several stores have a letter of one number.
    OutboxError
        A store cannot be read, or its process does not answer.
    """
    stores = _stores(args.project, args.store)
    return {"status": _status, "peek": _peek, "replay": _change, "drop": _change}[args.action](args, stores)


def _stores(project: Path, name: str | None) -> list[Path]:
    from skerry.run.outbox.looking import stores_in

    place = project if project.suffix == ".db" or project.is_dir() else project.parent
    if not place.exists():
        raise UsageError(f"there is no {str(project)!r}", expected="a project folder, a pipeline file or a store")
    state = place / ".skerry"
    found = stores_in(state if state.is_dir() else place)
    chosen = [path for path in found if name is None or path.stem == name]
    if not chosen:
        raise UsageError(
            f"no store{'' if name is None else f' of the name {name!r}'} is kept here",
            where=str(place),
            expected=", ".join(path.stem for path in found) or "an outbox, which a run makes for a sink to a hub",
        )
    return chosen


def _status(args: argparse.Namespace, stores: Sequence[Path]) -> int:
    from skerry.run.outbox.looking import look

    found = [look(path) for path in stores]
    if args.json:
        troubles = {str(path): trouble for path in stores if (trouble := _trouble(path)) is not None}
        return _print_json({"stores": found, "troubles": troubles})
    for place, (path, one) in enumerate(zip(stores, found, strict=True)):
        print("\n".join([""] * bool(place) + _lines(one, _trouble(path))))
    return 0


def _trouble(store: Path) -> Trouble | None:
    """Return what keeps the uplink of a store from sending; it is kept beside the folder of the stores."""
    from skerry.run.uplink.trouble import read_trouble

    return read_trouble(store.absolute().parent.parent)


def _lines(one: OutboxStatus, trouble: Trouble | None) -> list[str]:
    from skerry.device.report import si

    head = [
        one.file,
        f"  device {one.device}, epoch {one.epoch}, {'in use' if one.held else 'used by no process'}",
        f"  {one.pending} waiting ({si(one.size_bytes, 'B')}), {one.settled} delivered, {_letters(one.dead)}",
    ]
    if trouble is not None:
        head += ["", *textwrap.wrap(trouble.why, 110, initial_indent=f"  {trouble.state}: ", subsequent_indent="    ")]
    if one.forks:
        head.append(f"  new epochs: {one.forks}; the last because {one.fork_reason or 'nobody said why'}")
    rows = [(each.name, str(each.count), si(each.size_bytes, "B")) for each in reversed(one.classes) if each.count]
    if rows:
        head += ["", *_table(("class", "waiting", "size"), rows)]
    if one.losses:
        head += ["", *_table(("given up", "records"), [(name, str(count)) for name, count in one.losses.items()])]
    return head


def _peek(args: argparse.Namespace, stores: Sequence[Path]) -> int:
    if args.limit < 1:
        raise UsageError("-n is at least 1")
    found = {str(path): _peeked(path, args.limit, args.dead) for path in stores}
    if args.json:
        return _print_json({"stores": found})
    head = ("id", "class", "stream", "reason", "fields") if args.dead else ("seq", "class", "stream", "fields")
    for place, (path, records) in enumerate(found.items()):
        rows = [tuple(_cell(record[name]) for name in head) for record in records]
        print("\n".join([""] * bool(place) + [path, *(_table(head, rows) if rows else ["  nothing"])]))
    return 0


def _peeked(path: Path, limit: int, dead: bool) -> list[dict[str, Any]]:
    import msgspec

    from skerry.run.outbox.looking import peek, peek_dead
    from skerry.run.outbox.options import PRIORITIES

    if dead:
        letters = [msgspec.structs.asdict(letter) for letter in peek_dead(path, limit)]
        return [{**letter, "class": letter.pop("priority")} for letter in letters]
    records = peek(path, limit)
    return [{**msgspec.structs.asdict(record), "class": PRIORITIES[record.priority]} for record in records]


def _change(args: argparse.Namespace, stores: Sequence[Path]) -> int:
    from skerry.run.outbox.looking import change, look, peek_dead

    counts = {path: look(path).dead for path in stores}
    holding = [path for path, count in counts.items() if count]
    if args.id and len(holding) > 1:
        raise UsageError(
            f"{len(holding)} stores have dead letters, and each counts its own",
            expected=f"--store NAME, one of {', '.join(path.stem for path in holding)}",
        )
    ids = set(args.id or ())
    known = {letter.id for path in holding for letter in peek_dead(path, 2**31)}
    if unknown := sorted(ids - known):
        raise UsageError(f"there is no dead letter {unknown[0]}", hint="`skerry outbox peek --dead` lists them")
    verb = args.action
    waiting = [path for path in holding if not change(path, verb, sorted(ids) if ids else None)]
    count = len(ids) if ids else sum(counts.values())
    if waiting:
        raise OutboxError(
            f"the process that holds {waiting[0]} has not answered",
            hint="it was told, and does it when it next looks into its outbox",
        )
    if args.json:
        return _print_json({"action": verb, "letters": count})
    print(f"{_letters(count)} {'to be sent again' if verb == 'replay' else 'dropped'}")
    return 0


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _cell(value: Any) -> str:
    import msgspec

    text = value if isinstance(value, str | int) else msgspec.json.encode(value).decode()
    line = " ".join(str(text).split())
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _print_json(value: object) -> int:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value)).decode())
    return 0
