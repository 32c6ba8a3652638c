"""The summary of tests that were skipped because the system lacks something."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SUITE = """
import pytest

@pytest.mark.skip(reason="mosquitto is not installed: make system-deps")
def test_one(): ...

def test_two():
    pytest.skip("mosquitto is not installed: make system-deps")

@pytest.mark.skipif(True, reason="strace is not installed: make system-deps")
def test_three(): ...

def test_four():
    pytest.skip("only on a Jetson")

def test_five(): ...
"""


def run_suite(folder: Path, *chosen: str) -> str:
    """Run the made-up suite in a process of its own and return what it printed."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", *chosen]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_components_are_named_with_the_number_of_tests_and_the_remedy(tmp_path: Path) -> None:
    output = run_suite(tmp_path)
    assert "skipped, because this system lacks" in output
    assert "\nmosquitto: 2 tests\nstrace: 1 test\n" in output
    assert "make system-deps" in output
    assert "only on a Jetson" not in output.partition("this system lacks")[2]
    assert output.rstrip().splitlines()[-1].startswith("=") and "1 passed, 4 skipped" in output.splitlines()[-1]


def test_nothing_is_said_when_nothing_is_missing(tmp_path: Path) -> None:
    assert "lacks" not in run_suite(tmp_path, "-k", "five")
