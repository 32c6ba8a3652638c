"""The entry point: help, versions, unknown words, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skerry import __version__
from skerry.cli.main import COMMANDS, build_parser

from .conftest import Skerry, command

HEAVY = ("msgspec", "numpy", "rich", "psutil", "ruamel", "importlib.metadata", "difflib", "json")


def test_help_lists_every_command_with_its_line(skerry: Skerry) -> None:
    done = skerry("--help")
    assert done.returncode == 0
    assert all(name in done.stdout and line in done.stdout for name, line in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_the_same_in_its_own_help_and_has_examples(name: str, skerry: Skerry) -> None:
    done = skerry(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: skerry {name}")
    assert "examples:" in done.stdout
    assert "--debug" in done.stdout


def test_the_whole_parser_knows_every_command() -> None:
    parser = build_parser()
    assert {name: parser.of(name).prog for name in COMMANDS} == {name: f"skerry {name}" for name in COMMANDS}


def test_version(skerry: Skerry) -> None:
    assert skerry("--version").stdout == f"skerry {__version__}\n"


def test_no_command_shows_the_help_and_is_an_error(skerry: Skerry) -> None:
    done = skerry()
    assert done.returncode == 2
    assert "commands:" in done.stderr
    assert done.stdout == ""


def test_an_unknown_command_names_the_nearest_one(skerry: Skerry) -> None:
    done = skerry("chekc")
    assert done.returncode == 2
    assert "did you mean 'check'?" in done.stderr


def test_an_unknown_option_names_the_nearest_one(skerry: Skerry) -> None:
    done = skerry("run", "x", "--max-item=3")
    assert done.returncode == 2
    assert "did you mean '--max-items'?" in done.stderr


def test_a_wrong_value_names_what_is_right(skerry: Skerry) -> None:
    done = skerry("run", "x", "--for", "10")
    assert done.returncode == 2
    assert "10ms" in done.stderr


def test_an_error_is_one_json_object_with_json(skerry: Skerry) -> None:
    done = skerry("check", "nowhere", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"] == 11
    assert found.keys() == {"error", "kind", "where", "expected", "hint", "exit_code"}
    assert found["error"] in done.stderr


def test_a_usage_error_is_json_too(skerry: Skerry) -> None:
    assert json.loads(skerry("chekc", "--json").stdout)["exit_code"] == 2


FAULTY = """
import skerry.cli.check, sys
from skerry.cli.main import main
def fail(args): raise KeyError("oops")
skerry.cli.check.run = fail
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how", ["plain", "option", "environment"])
def test_a_fault_is_short_unless_its_traceback_is_asked_for(how: str) -> None:
    words = ["check", "x", "--json", *(["--debug"] if how == "option" else [])]
    environment = {**os.environ, **({"SKERRY_DEBUG": "1"} if how == "environment" else {})}
    done = subprocess.run(
        [sys.executable, "-c", FAULTY, *words], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 1
    assert "KeyError: 'oops'" in done.stderr
    assert ("Traceback" in done.stderr) == (how != "plain")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("schema"), stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["build", "--help"], ["toolchain", "--help"]]
)
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = f"import sys; from skerry.cli.main import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(done.stderr.split()) & set(HEAVY)
