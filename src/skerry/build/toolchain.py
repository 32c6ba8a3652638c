"""A toolchain: converters with needs of their own, in a virtual environment that is made when first asked for.

Converters pin each other's dependencies apart: litert-torch, for one, downgrades pydantic. So each lives in an
environment of its own under ``$SKERRY_CACHE/toolchains``, named by the digest of its pins and of the Python version.
``toolchains/NAME.txt`` pins every package; it is installed without following dependencies, so that nothing that is not
listed comes along, CUDA libraries above all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.cache import default_folder
from skerry.build.conversation import CONVERTERS, Say, converse, quiet_variables
from skerry.build.following import follow
from skerry.spec.errors import (
    DependencyError,
    DeviceError,
    SkerryError,
    UsageError,
)
from skerry.spec.words import did_you_mean

PINS = Path(__file__).parent / "toolchains"

INSTALL_LIMIT_S = 3600.0
"""Seconds that one install may take: a gigabyte at 3 Mbit/s fits, a resolver or a server that hangs does not."""

RUN_LIMIT_S = 1800.0
"""Seconds that a converter may take unless more is allowed: five signatures of MiniLM take 45 s on one core."""

SPARE_BYTES = 512 * 2**20
"""What must stay free on the disk beside the environment, for pip's own downloads and for the results."""

NOTE = "toolchain.json"


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """What a toolchain is for.

    Attributes
    ----------
    purpose:
        In a few words.
    packages:
        The packages whose versions are shown.
    modules:
        What must be importable once it is installed.
    size_bytes:
        About what it takes on the disk, measured on x86-64 Linux with CPU builds.
    """

    purpose: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    size_bytes: int


TOOLCHAINS: dict[str, Toolchain] = {
    "executorch": Toolchain(
        purpose="PyTorch to ExecuTorch programs (.pte) for XNNPACK",
        packages=("executorch", "torch", "torchao"),
        modules=("executorch.exir", "executorch.backends.xnnpack.partition.xnnpack_partitioner", "transformers"),
        size_bytes=1_300_000_000,
    ),
    "litert": Toolchain(
        purpose="PyTorch to LiteRT (.tflite), and its quantization",
        packages=("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch"),
        modules=("litert_torch", "ai_edge_quantizer", "ai_edge_litert.interpreter", "transformers"),
        size_bytes=2_200_000_000,
    ),
    "openvino": Toolchain(
        purpose="ONNX to OpenVINO IR, and its compression by NNCF",
        packages=("openvino", "nncf", "onnx"),
        modules=("openvino", "nncf", "onnx", "tokenizers"),
        size_bytes=620_000_000,
    ),
    "tensorflow": Toolchain(
        purpose="TensorFlow SavedModel and Keras to ONNX",
        packages=("tensorflow-cpu", "tf2onnx", "keras"),
        modules=("tensorflow", "tf2onnx", "keras"),
        size_bytes=1_600_000_000,
    ),
    "torch": Toolchain(
        purpose="torch.export programs (.pt2) to ONNX",
        packages=("torch", "onnxscript", "onnx"),
        modules=("torch", "onnxscript", "onnx_ir", "onnx"),
        size_bytes=1_050_000_000,
    ),
}
"""Every toolchain by its name; ``toolchains/NAME.txt`` has its pins."""


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment says of itself; written last, so that one without it is never used."""

    name: str
    python: str
    versions: dict[str, str]
    size_bytes: int
    seconds: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One toolchain as found here, with the versions of its main packages: the installed ones, else the pinned ones.

    ``older`` counts environments of other pins or another Python, ``older_bytes`` what they take.
    """

    name: str
    purpose: str
    installed: bool
    folder: str
    size_bytes: int
    versions: dict[str, str]
    older: int = 0
    older_bytes: int = 0


def root() -> Path:
    """Return the folder of all environments."""
    return default_folder() / "toolchains"


def find_toolchain(name: str) -> Toolchain:
    """Return a toolchain by its name; raises ``UsageError`` when there is none."""
    if name not in TOOLCHAINS:
        raise UsageError(
            f"there is no toolchain {name!r}",
            expected=f"one of {', '.join(TOOLCHAINS)}",
            hint=did_you_mean(name, TOOLCHAINS),
        )
    return TOOLCHAINS[name]


def place(name: str) -> Path:
    """Return the folder of a toolchain's environment for its pins and this Python, whether it is there or not."""
    find_toolchain(name)
    python = f"{platform.python_implementation()} {platform.python_version()} {platform.machine()} {sys.platform}"
    digest = hashlib.sha256(_pins(name).read_bytes() + python.encode()).hexdigest()
    return root() / f"{name}-{digest[:16]}"


def find(name: str) -> Installed | None:
    """Return the environment of a toolchain if it is whole; the interpreter that it stands on may have gone."""
    folder = place(name)
    return _note(folder) if python_of(folder).exists() else None


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment."""
    return folder / "bin" / "python"


def pinned(name: str) -> dict[str, str]:
    """Return every package of a toolchain and its version, as pinned; names are in the plain form of PyPA."""
    find_toolchain(name)
    lines = (line.partition("#")[0].partition(";")[0].strip() for line in _pins(name).read_text().splitlines())
    pairs = (line.split("==", 1) for line in lines if line)
    return {_plain(package): version for package, version in pairs}


def provide(name: str, *, say: Say | None = None, limit_s: float = INSTALL_LIMIT_S) -> Installed:
    """Return the environment of a toolchain, making it first where it is missing.

    Of two processes that ask at once, the second waits. Ctrl-C, errors and lost processes leave nothing to be used.

    Raises
    ------
    UsageError
        There is no such toolchain.
    DependencyError
        It cannot be installed: no network, no such version for this machine. The message ends with pip's last lines.
    DeviceError
        The disk is full, or the folder cannot be written.
    """
    found = find(name)
    if found is not None:
        return found
    speak = say or _silent
    with _locked(name, shared=False, say=speak):
        return find(name) or _install(name, place(name), speak, limit_s)


def remove(name: str) -> int:
    """Remove a toolchain's environments, those of older pins included, and return the bytes that they took.

    Raises ``UsageError`` for an unknown name, ``DeviceError`` while a converter is at work there.
    """
    find_toolchain(name)
    with _locked(name, shared=False, wait=False, say=_silent):
        folders = _folders(name)
        freed = sum(_size(folder) for folder in folders)
        for folder in folders:
            # Without its note it is never used, should the rest of the removal fail.
            (folder / NOTE).unlink(missing_ok=True)
            shutil.rmtree(folder)
    return freed


def survey() -> list[State]:
    """Return every toolchain, installed or not, by name."""
    return [_state(name, chain) for name, chain in TOOLCHAINS.items()]


def run(
    name: str,
    script: str | Path,
    request: Mapping[str, Any],
    *,
    say: Say | None = None,
    time_limit_s: float = RUN_LIMIT_S,
    memory_limit_bytes: int | None = None,
) -> dict[str, Any]:
    """Run a converter in a toolchain's environment, which is made first where it is missing, and return its answer.

    Parameters
    ----------
    name:
        The toolchain.
    script:
        The name of a file in ``converters/``, or a path; it offers ``convert(request, talk) -> dict``.
    request:
        What to do; made of JSON values. Paths must be absolute.
    say:
        Gets a line of text for each step.
    time_limit_s:
        Seconds after which it is killed, the install not counted.
    memory_limit_bytes:
        Resident memory of the process and its children above which it is killed (looked at every 0.2 s).

    Raises
    ------
    ModelMissingError, ModelCorruptError, ModelKindError, SpecError
        What the converter refuses, and why.
    ModelError
        The converter failed; the message has its last lines.
    DeviceError
        A limit was exceeded.
    DependencyError, UsageError
        As :func:`provide`.
    """
    path = Path(script) if Path(script).is_absolute() else CONVERTERS / script
    if not path.is_file():
        raise UsageError(f"there is no converter {script}", where=str(path.parent))
    speak = say or _silent
    provide(name, say=speak)
    with _locked(name, shared=True, say=speak):
        if find(name) is None:
            raise DependencyError(
                f"the toolchain {name} was removed meanwhile", hint=f"skerry toolchain install {name}"
            )
        python = python_of(place(name))
        return converse(python, path, request, speak, time_limit_s, memory_limit_bytes)


def _silent(what: str) -> None:
    """Say nothing."""


def _pins(name: str) -> Path:
    return PINS / f"{name}.txt"


def _note(folder: Path) -> Installed | None:
    try:
        return msgspec.json.decode((folder / NOTE).read_bytes(), type=Installed)
    except (OSError, msgspec.DecodeError):
        return None


def _folders(name: str) -> list[Path]:
    """Return all environments of a toolchain, half-made ones included."""
    return sorted(path for path in root().glob(f"{name}-*") if path.is_dir())


def _state(name: str, chain: Toolchain) -> State:
    folder, found = place(name), find(name)
    older = [other for other in _folders(name) if other != folder]
    versions = pinned(name) if found is None else found.versions
    return State(
        name=name, purpose=chain.purpose, installed=found is not None, folder=str(folder),
        size_bytes=chain.size_bytes if found is None else found.size_bytes,
        versions={package: versions[package] for package in chain.packages},
        older=len(older), older_bytes=sum(_size(other) for other in older),
    )  # fmt: skip


def _plain(package: str) -> str:
    """Return a package's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _size(folder: Path) -> int:
    """Return the bytes of an environment: as noted, else by looking at every file."""
    note = _note(folder)
    return note.size_bytes if note is not None else _counted_bytes(folder)


def _counted_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total


@contextlib.contextmanager
def _locked(name: str, *, shared: bool, say: Say, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a toolchain: shared to use it, alone to make or remove it. The system frees it at our end."""
    try:
        root().mkdir(parents=True, exist_ok=True)
        file = (root() / f".{name}.lock").open("a+")
    except OSError as error:
        raise _disk_error(error) from error
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise DeviceError(
                    f"the toolchain {name} is in use", hint="try again when the build has ended"
                ) from error
            say(f"waiting for another process that uses the toolchain {name}")
            fcntl.flock(file, how)
        yield


def _install(name: str, folder: Path, say: Say, limit_s: float) -> Installed:
    chain = find_toolchain(name)
    _require_space(chain)
    start = time.monotonic()
    say(f"making the toolchain {name} (once, about {chain.size_bytes / 1e9:.1f} GB)")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # what a lost process has left
        _step(name, [sys.executable, "-m", "venv", str(folder)], limit_s, what="no virtual environment can be made")
        _fill(name, folder, say, limit_s)
        note = Installed(
            name=name, python=platform.python_version(), versions=_probe(name, chain, folder, limit_s),
            size_bytes=_counted_bytes(folder), seconds=round(time.monotonic() - start, 1),
        )  # fmt: skip
        scratch = folder / f"{NOTE}.part"
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(note, order="sorted")))
        scratch.rename(folder / NOTE)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _disk_error(error) from error
        raise
    say(f"the toolchain {name} is ready: {note.size_bytes / 1e9:.1f} GB in {note.seconds:.0f} s")
    return note


def _require_space(chain: Toolchain) -> None:
    free, need = shutil.disk_usage(root()).free, chain.size_bytes + SPARE_BYTES
    if free < need:
        raise DeviceError(
            f"the disk has too little space: {free / 1e9:.1f} GB are free",
            where=str(root()),
            expected=f"about {need / 1e9:.1f} GB",
            hint="free some space, or name another folder with SKERRY_CACHE",
        )


def _fill(name: str, folder: Path, say: Say, limit_s: float) -> None:
    """Install the pins, and nothing else: ready-made wheels only, so that no package's code is run to build it."""
    total, seen = len(pinned(name)), 0

    def heard(line: str) -> None:
        nonlocal seen
        if re.match(r"(Collecting|Processing|Requirement already satisfied:) ", line):
            seen += 1
        large = re.match(
            r"\s*(?:Downloading|Using cached) (\S+?)(?:-cp|-py|-\d+-).* \((\d{2,}[.\d]* MB|[.\d]+ GB)\)", line
        )
        if large:
            say(f"  [{seen}/{total}] {large[1]} ({large[2]})")
        elif line.startswith("Installing collected packages"):
            say(f"  unpacking {total} packages")

    command = [
        str(python_of(folder)), "-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "off", "-r", str(_pins(name)),
    ]  # fmt: skip
    _step(name, command, limit_s, what="pip failed", on_line=heard)


def _probe(name: str, chain: Toolchain, folder: Path, limit_s: float) -> dict[str, str]:
    """Import what the converters need, and return the versions of all packages."""
    heard: list[str] = []
    code = (
        "import importlib, json, sys, os\nout = os.dup(1); os.dup2(2, 1)\n"
        "[importlib.import_module(name) for name in sys.argv[1:]]\n"
        "import importlib.metadata as metadata, re\n"
        "plain = lambda name: re.sub('[-_.]+', '-', name).lower()\n"
        "found = {plain(one.metadata['Name']): one.version for one in metadata.distributions()}\n"
        "os.write(out, (json.dumps(dict(sorted(found.items()))) + chr(10)).encode())"
    )
    command = [str(python_of(folder)), "-I", "-c", code, *chain.modules]
    _step(name, command, limit_s, what="what was installed does not work here", on_line=heard.append)
    return msgspec.json.decode(heard[-1], type=dict[str, str])


def _step(
    name: str, command: list[str], limit_s: float, *, what: str, on_line: Callable[[str], None] = _silent
) -> None:
    """Run a step of an install; raises ``DependencyError`` with its last lines when it fails."""
    ended = follow(command, on_line=on_line, variables=quiet_variables(), time_limit_s=limit_s)
    if ended.code == 0 and not ended.cut:
        return
    tail = [line for line in ended.tail if not line.startswith("WARNING")]
    if any("No space left on device" in line for line in tail):
        raise _disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    said = "".join(f"\n    {line}" for line in tail[-6:]) or " and said nothing"
    if ended.cut:
        said = f" took longer than {limit_s:g} s"
    raise DependencyError(
        f"the toolchain {name} cannot be installed: {what}{said}",
        hint="installing needs a package index once (pip's own settings choose it), with CPU builds of PyTorch where"
        " the toolchain has it; without a network, copy SKERRY_CACHE/toolchains from a machine alike",
    )


def _disk_error(error: OSError) -> SkerryError:
    return DeviceError(
        f"the toolchain cannot be written: {error.strerror or error}",
        where=str(root()),
        hint="free some space, or name another folder with SKERRY_CACHE",
    )


def converters() -> tuple[str, ...]:
    """Return the names of the scripts that :func:`run` takes."""
    return tuple(sorted(path.name for path in CONVERTERS.glob("*.py") if re.search("_(from|quantize)", path.stem)))
