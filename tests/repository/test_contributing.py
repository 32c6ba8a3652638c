"""The plugin in CONTRIBUTING.md works as it stands, and passes the contract suite as it is told to."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def example(start: str) -> str:
    """Return the Python block whose first line starts with the given words."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(text for text in map(textwrap.dedent, blocks) if text.startswith(start))


def test_the_example_passes_the_contract_suite(tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "upper.py").write_text(example('"""The upper stage: '))
    (tmp_path / "test_upper.py").write_text(example('"""The upper stage keeps'))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "test_upper.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
