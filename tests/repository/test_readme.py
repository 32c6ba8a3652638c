"""The README and the pages keep what they promise: their commands exist and their files are there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from skerry.cli.main import build_parser
from skerry.spec.document import parse_document
from skerry.spec.reading import project_from

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):.*## ", MAKEFILE, re.MULTILINE))


def shell_blocks(page: Path) -> list[str]:
    """Return the blocks of a page that are marked as shell."""
    return re.findall(r"^```(?:sh|bash)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path, program: str) -> list[list[str]]:
    """Return the words of every line of a page's shell blocks that starts with ``program``."""
    lines = [line for block in shell_blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if re.match(rf"{program}\b", line)]
    return [[word for word in words[1:] if word not in {"&"}] for words in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shell_blocks_are_shell(page: Path) -> None:
    for block in shell_blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    wanted = {word for words in commands(page, "make") for word in words if "=" not in word}
    assert not {word for word in wanted if word not in TARGETS and not word.startswith("bench-")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_skerry_commands_parse(page: Path) -> None:
    for words in commands(page, "skerry"):
        cut = next((place for place, word in enumerate(words) if word in {"|", ">", "&&", ";"}), len(words))
        if words[:cut] and not {"--help", "--version"} & set(words[:cut]):
            assert build_parser().parse_args(words[:cut])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_whole_pipelines_can_be_read(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(skerry: 1\n.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        assert project_from(parse_document(block, page.name), tmp_path / "pipeline.yaml").pipeline.skerry == 1


def test_the_two_commands_and_the_prerequisites_are_there() -> None:
    assert "make demo" in README and "make test" in README and "make system-deps" in README
    assert "python3-venv" in README and "Python 3.11" in README


def test_every_example_is_mentioned() -> None:
    examples = [path for path in (ROOT / "examples").glob("*") if (path / "pipeline.yaml").is_file()]
    assert not [path.name for path in examples if f"examples/{path.name}" not in README]


def test_links_to_files_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert [line for line in script.splitlines() if line.startswith("make ")] == [
        line for line in script.splitlines() if re.match(r"make (system-deps \|\||lint types$|test$|docs$)", line)
    ]
    assert "\nmake test\n" in script
