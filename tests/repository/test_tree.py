"""The tree itself: what is committed names no machine and no package index, and no file grows without end."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = {"src": 450, "src/skerry/testing": 600, "bench": 450, "scripts": 450, "tests": 600}
"""Lines of a module by folder; one that needs more is more than one noun. Suites may be longer: they are lists."""
LONGEST_FUNCTION = 70
"""Lines of a function, docstring and signature included."""
FOREIGN = re.compile(
    # Written in pieces, so that this file passes its own test.
    r"(?<![\w.*-])/(?:work|farm)/|(?<![\w.])/opt/(?:wheels|pypi)|/tmp/bash_" + "jobs"
    r"|(?<![\w.])/home/[a-z]+/|/Users/\w+/|" + "python" + r"hosted|pypi\." + r"org|registry\.npm" + r"js"
    r"|deb\.deb" + r"ian|download\.pyto" + "rch"
)


def tracked() -> list[Path]:
    """Return the files that git tracks; skips where there is no git checkout."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed, so tracked files are unknown")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout, so tracked files are unknown")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_committed_file_names_one_machine_or_a_package_index() -> None:
    wrong = []
    for path in tracked():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
            if FOREIGN.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong


@pytest.mark.parametrize("text", ["/wor" + "k/main", "https://pypi" + ".org/simple", "see /home" + "/ann/x"])
def test_foreign_places_are_recognized(text: str) -> None:
    assert FOREIGN.search(text)


@pytest.mark.parametrize("text", ["network/traffic", "src/work/x", "homework/", "{home}/x", "/var/log/dpkg.log"])
def test_ordinary_places_are_not(text: str) -> None:
    assert not FOREIGN.search(text)


def longest_allowed(path: Path) -> int:
    """Return how many lines a module may have: what the innermost folder of the table says."""
    name = path.relative_to(ROOT).as_posix()
    return LONGEST[max((folder for folder in LONGEST if name.startswith(f"{folder}/")), key=len)]


def test_no_module_is_too_long() -> None:
    modules = {path for folder in LONGEST for path in (ROOT / folder).rglob("*.py")}
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert not {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > longest_allowed(path)}


def test_every_function_fits_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for folder in ("src", "bench", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for folder in ("src", "bench", "scripts", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path.stat().st_size and not path.read_text(encoding="utf-8").lstrip().startswith(('"""', "#!"))
    ]
    assert not silent


def test_constraints_hold_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][A-Za-z0-9.]*", pin) for pin in pins)


def test_peers_are_pinned_too() -> None:
    for path in (ROOT / "bench" / "peers").glob("*.txt"):
        pins = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert pins and all(re.fullmatch(r"\S+==\S+", pin) for pin in pins), path.name
