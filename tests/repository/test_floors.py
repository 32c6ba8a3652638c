"""Imports only go down: the rooms and their floors, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "skerry"
FLOORS = {
    "spec": 0,
    "bundle": 1,
    "device": 1,
    "runtimes": 1,
    "trust": 1,
    "wire": 1,
    "run": 2,
    "build": 3,
    "fleet": 4,
    "ship": 5,
    "cli": 6,
}
OUTSIDE = "testing"
"""The contract suites: they may import every room, and none imports them."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the room a file stands in; empty for the package's own two files."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported_rooms(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and room of every import of Skerry in a module, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            anchor = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            names = [f"{anchor}.{node.module or ''}"]
        elif isinstance(node, ast.ImportFrom) and node.module == "skerry":
            names = [f"skerry.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "skerry" and len(parts) > 1 and (parts[1] in FLOORS or parts[1] == OUTSIDE):
                yield node.lineno, parts[1]


def may_import(room: str, other: str) -> bool:
    """Tell whether the plan of the house lets one room import another."""
    if room in {other, OUTSIDE, ""}:
        return True
    return other != OUTSIDE and FLOORS[other] < FLOORS[room]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    room = room_of(path)
    package = ".".join(("skerry", *path.relative_to(PACKAGE).parts[:-1]))
    imports = imported_rooms(path.read_text(encoding="utf-8"), package)
    wrong = [f"line {line}: {room} imports {other}" for line, other in imports if not may_import(room, other)]
    assert not wrong


def test_every_room_has_a_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= {*FLOORS, OUTSIDE}


def test_the_page_draws_the_same_floors() -> None:
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = {room: int(floor) for floor, room in re.findall(r"^\| (\d) \| `(\w+)` \|", page, re.MULTILINE)}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} & FLOORS.keys()
    assert drawn == {room: FLOORS[room] for room in rooms}


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("run", "spec", True),
        ("run", "runtimes", True),
        ("runtimes", "device", False),
        ("spec", "run", False),
        ("run", "run", True),
        ("cli", "testing", False),
        ("testing", "run", True),
    ],
)
def test_the_plan(room: str, other: str, allowed: bool) -> None:
    assert may_import(room, other) is allowed


def test_imports_are_seen_in_every_form() -> None:
    source = (
        "import skerry.run.engine\nfrom skerry import build\nfrom ..cli import main\n"
        "def f():\n    from skerry.fleet.hub import x\nimport json\n"
    )
    assert list(imported_rooms(source, "skerry.spec")) == [(1, "run"), (2, "build"), (3, "cli"), (5, "fleet")]
