"""The page on troubleshooting: its commands, exit codes and keys exist."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from skerry.cli.main import COMMANDS, build_parser
from skerry.run.sinks.jsonl import JsonlOptions
from skerry.run.sources.tail import TailOptions
from skerry.spec.pipeline import Endpoint, Pipeline

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<seen>[^|]+) \|(?P<codes>[^|]*)\| [^|]+ \| [^|]+ \|$", re.MULTILINE)


def test_its_codes_are_documented_ones() -> None:
    known = set(re.findall(r"^\| (\d+) \|", (DOCS / "exit-codes.md").read_text(encoding="utf-8"), re.MULTILINE))
    rows = [row for row in ROW.finditer(PAGE) if row["seen"] not in {"what you see", "---"}]
    assert len(rows) > 30
    named = {code for row in rows for code in re.findall(r"\d+", row["codes"])}
    assert named <= known


def test_its_commands_are_real() -> None:
    commands = re.findall(r"`skerry ([^`]+)`", PAGE)
    assert commands
    for words in commands:
        assert words.split()[0] in COMMANDS
        build_parser(only=words.split()[0]).parse_args(words.split())


def test_its_keys_are_real() -> None:
    kinds = (Endpoint, Pipeline, TailOptions, JsonlOptions)
    known = {field.encode_name for kind in kinds for field in msgspec.structs.fields(kind)}
    assert {"within", "lost_after", "max_line", "restarts", "queue", "drain", "sync", "rotate", "keep"} <= known
    fields = {"label", "score", "invalid_utf8", "truncated", "input_ids", "shutdown", "chown", "chmod", "from", "after"}
    words = (
        set(re.findall(r"`([a-z_]+)[`:]", PAGE)) - fields - {"name", "filter", "stdout", "tail", "dead_letter", "head"}
    )
    assert words <= known, words - known
