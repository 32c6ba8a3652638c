"""Pages, or parts of pages, that are made from the code."""

from __future__ import annotations

from pathlib import Path

from bench.report import Report
from scripts import benchmarks_page, cli_reference
from scripts.generated_part import renew, with_part
from scripts.navigation import navigation
from skerry.cli.main import COMMANDS, build_parser


def test_the_reference_of_the_command_line_is_current() -> None:
    page = cli_reference.PAGE.read_text(encoding="utf-8")
    fresh = with_part(page, cli_reference.reference(build_parser()), cli_reference.COMMAND)
    assert page == fresh, "docs/cli.md is behind the parser: make docs-cli"


def test_every_command_has_a_section() -> None:
    text = cli_reference.reference(build_parser())
    assert all(f"\n## skerry {name}\n" in text for name in COMMANDS)


def test_what_stands_around_the_generated_part_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    renew(page, "first", "make x", title="Title")
    page.write_text(page.read_text().replace("# Title\n", "# Title\n\nBefore.\n") + "\nAfter.\n")
    renew(page, "second", "make x", title="Title")
    text = page.read_text()
    assert text.startswith("# Title\n\nBefore.\n") and text.endswith("\nAfter.\n")
    assert "second" in text and "first" not in text
    renew(page, "second", "make x", title="Title")
    assert page.read_text() == text


def test_a_benchmark_becomes_a_table_with_its_origin() -> None:
    report = Report("engine")
    report.add("speed | order", 1.0, "ratio", must=">= 0.99", peers={"litserve": "no network"})
    text = benchmarks_page.section("engine", report.rows)
    assert "| speed \\| order | 1 | – | ratio | 1 | >= 0.99 | yes | litserve – |" in text
    assert "- peer missing: litserve: no network" in text and "Measured on" in text


def test_the_navigation_holds_every_page_once() -> None:
    pages = ["index.md", "sinks.md", "decisions/0001-a.md", "decisions/0002-b.md", "strange.md"]
    found = navigation(pages)
    assert [next(iter(chapter)) for chapter in found] == ["Start", "Write", "Decisions", "More"]
    assert sorted(page for chapter in found for inside in chapter.values() for page in inside) == sorted(pages)
