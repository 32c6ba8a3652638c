"""Every error and every exit code is documented, and documented only once."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

from skerry.cli import errors as command_line
from skerry.spec import errors

PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"
BRANCH = re.compile(r"^    (?P<indent>[│├└─ ]*)(?P<name>\w+Error) +(?P<code>\d+) +(?P<meaning>\S.*)$", re.MULTILINE)
ROW = re.compile(r"^\| (?P<code>\d+) \| (?:`(?P<name>\w+)`)? *\|", re.MULTILINE)


def drawn_tree() -> dict[str, tuple[int, str | None]]:
    """Return the tree in the docstring of the module: the code and the parent of each error."""
    above: list[str] = []
    found: dict[str, tuple[int, str | None]] = {}
    for match in BRANCH.finditer(errors.__doc__ or ""):
        depth = len(match["indent"]) // 4
        del above[depth:]
        found[match["name"]] = (int(match["code"]), above[-1] if above else None)
        above.append(match["name"])
    return found


def real_tree() -> dict[str, tuple[int, str | None]]:
    """Return the tree of the classes: the code and the parent of each error."""
    every = list(errors.every_error())
    return {kind.__name__: (kind.exit_code, kind.__base__.__name__ if kind in every[1:] else None) for kind in every}


def documented() -> list[tuple[int, str]]:
    """Return the codes and names in the tables of the page, in its order."""
    return [(int(row["code"]), row["name"] or "") for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))]


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn_tree() == real_tree()


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = Counter(kind.exit_code for kind in errors.every_error())
    assert not [code for code, times in codes.items() if times > 1]
    assert all("exit_code" in vars(kind) for kind in errors.every_error())


def test_every_error_class_is_in_the_module_of_the_tree() -> None:
    listed = set(errors.every_error())
    assert {
        kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__
    } == listed


def test_the_page_lists_every_error_with_its_code() -> None:
    assert {(kind.exit_code, kind.__name__) for kind in errors.every_error()} <= set(documented())


def test_the_page_lists_nothing_that_does_not_exist() -> None:
    names = {kind.__name__ for kind in errors.every_error()}
    assert {name for _, name in documented() if name} == names


def test_no_code_stands_twice() -> None:
    assert not [code for code, times in Counter(code for code, _ in documented()).items() if times > 1]


def test_codes_that_no_error_stands_behind_are_listed() -> None:
    codes = {code for code, _ in documented()}
    constants = {code for name, code in vars(command_line).items() if name.startswith("EXIT_")}
    assert {0, 128 + signal.SIGTERM, *constants} <= codes
