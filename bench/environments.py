"""Environments: a virtual environment for each peer, so that its dependencies and ours do not meet.

``bench/peers/NAME.txt`` pins everything that a peer needs; the environment is made under ``.venvs/NAME`` when a
benchmark first asks for it. When it cannot be had, the caller gets the reason and reports it instead of a figure.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
INSTALL_TIMEOUT_S = 900.0
"""How long one install may take: a large wheel over a slow line fits, a hanging resolver does not."""

_LIST_VERSIONS = """
import json, importlib.metadata as metadata
print(json.dumps({found.metadata["Name"]: found.version for found in metadata.distributions()}))
"""

SILENT = {"BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""A benchmark tells nobody that it runs, and a peer is not slowed down by trying to."""


class EnvironmentMissingError(Exception):
    """A peer's environment cannot be had; the text says why in one line."""


class Environment(NamedTuple):
    """A peer's environment that is ready: its interpreter and the packages in it."""

    name: str
    python: Path
    versions: dict[str, str]

    def run(
        self, arguments: Sequence[str], *, timeout_s: float, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python to its end and return what it printed."""
        return subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=clean_variables() | dict(variables or {}),
        )


def provide(name: str, *, root: Path = ROOT / ".venvs", peers: Path = PEERS) -> Environment:
    """Return the environment of a peer, making it first where it is missing or its pins have changed.

    Raises
    ------
    EnvironmentMissingError
        There is no file of pins, or the install failed, for instance without a network.
    """
    pins = peers / f"{name}.txt"
    if not pins.is_file():
        raise EnvironmentMissingError(f"no pins for {name}: {pins.name} is not in {pins.parent.name}/")
    folder = root / name
    python = folder / "bin" / "python"
    stamp = folder / "pins.sha256"
    wanted = fingerprint(pins)
    if not (python.exists() and stamp.is_file() and stamp.read_text() == wanted):
        make(folder, pins)
        stamp.write_text(wanted)  # last, so that an interrupted install is made again
    return Environment(name, python, list_versions(python))


def make(folder: Path, pins: Path) -> None:
    """Create the environment anew and install the pins into it; raises ``EnvironmentMissingError``."""
    shutil.rmtree(folder, ignore_errors=True)
    print(f"preparing {folder.name} in an environment of its own (once) …", file=sys.stderr, flush=True)
    python = folder / "bin" / "python"
    call([sys.executable, "-m", "venv", str(folder)])
    call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r", str(pins)])


def call(command: Sequence[str]) -> None:
    """Run an install step; raises ``EnvironmentMissingError`` with the last line of what it said."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=clean_variables(),
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentMissingError(f"install took longer than {INSTALL_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise EnvironmentMissingError(f"install could not start: {error}") from error
    if done.returncode:
        raise EnvironmentMissingError(f"install failed: {last_error_line(done.stderr or done.stdout)}")


def last_error_line(text: str) -> str:
    """Return the line that says most: the last one that starts with ``ERROR``, or the last one at all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1]


def list_versions(python: Path) -> dict[str, str]:
    """Return the versions of all packages that an interpreter sees."""
    done = subprocess.run(
        [str(python), "-c", _LIST_VERSIONS], capture_output=True, text=True, check=True, env=clean_variables()
    )
    found: dict[str, str] = json.loads(done.stdout)
    return dict(sorted(found.items()))


def fingerprint(pins: Path) -> str:
    """Return what an environment depends on as one hash: the pins and the version of Python."""
    return hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()


def clean_variables() -> dict[str, str]:
    """Return the environment variables, silenced and without those that would lead Python to our own packages."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
