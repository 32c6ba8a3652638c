"""Searching: a pipeline's models, each searched within its budget, and the release that the winners make."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec

from skerry import __version__
from skerry.build import toolchain
from skerry.build.cache import Cache
from skerry.build.documents import documents
from skerry.build.findings import (
    Findings,
)
from skerry.build.model_search import ModelSearch, Wish
from skerry.build.progress import Progress
from skerry.build.release import write_release
from skerry.build.technique import Kind, techniques
from skerry.run.digest import PREFIX, file_digest
from skerry.spec.errors import DeviceError
from skerry.spec.manifest import Manifest
from skerry.spec.reading import Project


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """What a search of a whole pipeline gave: the findings by model, and where the release and reports are."""

    folder: str
    changed: bool
    seconds: float
    models: dict[str, Findings]


def search_project(project: Project, cache: Cache, progress: Progress, wish: Wish) -> Searched:
    """Search every model of a pipeline and write the release of the winners, with a report for each model.

    Interrupting it leaves the release as it was; what was made and measured is in the cache and not done again.

    Raises
    ------
    ModelError
        A model cannot be read, or no form of it could be measured.
    DependencyError, SpecError, DeviceError
        As :func:`skerry.build.building.build_project`.
    """
    begin = time.monotonic()
    models = project.pipeline.models
    done = {name: ModelSearch(name, model, project, cache, progress, wish) for name, model in models.items()}
    results = {name: one.search() for name, one in done.items()}
    manifests = {name: one.manifest(results[name]) for name, one in done.items()}
    files = {name: path for one in done.values() for name, path in one.files.items()}
    digest = hashlib.sha256(msgspec.json.encode([file_digest(project.path), sorted(files)])).hexdigest()
    manifest = Manifest(name=project.name, release=PREFIX + digest, models=manifests)
    lock = msgspec.json.format(msgspec.json.encode({"skerry": __version__, "models": results}), indent=2) + b"\n"
    changed = write_release(project.release_folder, manifest, lock, files)
    for name, findings in results.items():
        _write_documents(project.release_folder / "reports" / name, findings)
    return Searched(
        folder=str(project.release_folder), changed=changed, seconds=round(time.monotonic() - begin, 1), models=results
    )


def missing_toolchains(kinds: tuple[Kind, ...]) -> list[str]:
    """Return the toolchains that techniques of these kinds would use if they were installed."""
    wanted = {each.toolchain for each in techniques().values() if each.kind in kinds and each.toolchain}
    return sorted(name for name in wanted if toolchain.find(name) is None)


def _write_documents(folder: Path, findings: Findings) -> None:
    """Write the reports, each as a whole; raises ``DeviceError`` when the disk is full or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in documents(findings).items():
            fresh = folder / f".{name}.new"
            try:
                fresh.write_bytes(content)
                fresh.replace(folder / name)
            finally:
                fresh.unlink(missing_ok=True)
    except OSError as error:
        raise DeviceError(f"the report cannot be written: {error.strerror}", where=str(folder)) from error
