"""``skerry init``: writes a starter project that runs as it is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.spec.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TEMPLATES: dict[str, str] = {
    "log": "reads a log, hides personal data, sorts out the errors",
    "sensor": "watches this machine, and tells when it gets busy",
    "inbox": "sorts messages of customers into queues",
}
GITIGNORE = "/.skerry/\n/out/\n"
EXAMPLES = """\
templates:
{templates}

examples:
  skerry init watch --template sensor
  skerry run watch --for 5s
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``init`` and its arguments."""
    templates = "\n".join(f"  {name:8}{line}" for name, line in TEMPLATES.items())
    parser = commands.add_parser(
        "init",
        help="write a working starter project",
        description="Write a starter project: a commented pipeline file, sample data and a README.",
        epilog=EXAMPLES.format(templates=templates),
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; made if it is missing")
    parser.add_argument("--template", choices=list(TEMPLATES), default="log", help="what to start from (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace files that are in the way")


def run(args: argparse.Namespace) -> int:
    """Write the project and say what to do next."""
    written = write_project(args.folder, args.template, replace=args.force)
    for path in written:
        print(f"wrote {path}")
    print(f"\nnext: skerry run {args.folder} --for 5s")
    return 0


def write_project(folder: Path, template: str, *, replace: bool = False) -> list[Path]:
    """Write the files of a template into a folder and return them.

    Nothing is written when one of them exists already, unless ``replace``. Raises ``UsageError`` for that, and where
    the folder cannot be written.
    """
    from importlib.resources import files

    root = files("skerry.cli").joinpath("templates", template)
    texts = {folder / name: text.replace("{{name}}", project_name(folder)) for name, text in _texts(root)}
    texts[folder / ".gitignore"] = GITIGNORE
    taken = [path for path in texts if path.exists()]
    if taken and not replace:
        raise UsageError(
            f"{', '.join(map(str, taken))} would be overwritten",
            expected="a folder without them",
            hint="--force replaces them",
        )
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return list(texts)


def project_name(folder: Path) -> str:
    """Return a pipeline name made of a folder's name: letters, digits, ``-``, ``_`` and ``.``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "starter"


def _texts(root: Traversable, above: str = "") -> list[tuple[str, str]]:
    """Return the relative path and the content of every file below ``root``."""
    found: list[tuple[str, str]] = []
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name):
        name = f"{above}{entry.name}"
        if entry.is_dir():
            found += _texts(entry, f"{name}/")
        else:
            found.append((name, entry.read_text(encoding="utf-8")))
    return found
