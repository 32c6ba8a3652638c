"""The reference of the command line: every command, argument and option, read from the parser itself.

``make docs-cli`` writes it into ``docs/cli.md``; a test fails when the page is behind the parser.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.generated_part import renew
from skerry.cli.main import build_parser

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COMMAND = "make docs-cli"


def main() -> int:
    """Write the page."""
    renew(PAGE, reference(build_parser()), COMMAND, title="The command line")
    print(f"written: {PAGE.relative_to(PAGE.parent.parent)}")
    return 0


def reference(parser: argparse.ArgumentParser) -> str:
    """Return the reference of a parser and of all its commands, as Markdown."""
    return "\n\n".join(section(found, line) for found, line in parsers(parser, ""))


def parsers(parser: argparse.ArgumentParser, line: str) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield a parser and those of its commands, each with its line of help, in their order."""
    yield parser, line
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield from parsers(command, lines.get(name, ""))


def section(parser: argparse.ArgumentParser, line: str) -> str:
    """Return what one command says of itself: a heading, its text, its arguments, its examples."""
    text = parser.description or line
    parts = [f"## {parser.prog}", sentence(text), arguments(parser)]
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(part for part in parts if part)


def arguments(parser: argparse.ArgumentParser) -> str:
    """Return the table of a command's arguments and options; empty when it has none but help."""
    rows = [row(parser, action) for action in parser._actions if action.help != argparse.SUPPRESS]
    rows = [cells for cells in rows if cells]
    return "\n".join(["| argument | meaning |", "|---|---|", *rows]) if rows else ""


def row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return one line of the table; empty for ``--help``, and for commands, which have sections of their own."""
    if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
        return ""
    meaning = sentence(parser._get_formatter()._expand_help(action)) if action.help else ""
    escaped = [text.replace("|", "\\|") for text in (names(action), meaning)]
    return f"| {' | '.join(escaped)} |"


def names(action: argparse.Action) -> str:
    """Return how an argument is written, with what it takes."""
    takes = value_of(action)
    if not action.option_strings:
        return f"`{takes}`"
    return ", ".join(f"`{name} {takes}`" if takes else f"`{name}`" for name in action.option_strings)


def value_of(action: argparse.Action) -> str:
    """Return the name of the value that an argument takes, or its choices; empty for a switch."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def sentence(text: str) -> str:
    """Return text on one line, starting with a capital and ending with a full stop."""
    flat = " ".join(text.split())
    return flat and flat[0].upper() + flat[1:] + ("" if flat.endswith((".", "!", "?", ":")) else ".")


if __name__ == "__main__":
    sys.exit(main())
