"""Searched: what ``skerry build --time`` makes of the model within a budget, found again in seconds later on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.build_rows.field import Entrant
from bench.build_rows.material import BuildFailedError, Form, build, forms, project, released

KEEP = ("budget:", "  quality: {metric: agreement@10, min: 0.97}", "  size: 25MB")
"""The pipeline of the form that keeps the quality."""
SMALL = ("budget:", "  quality: {metric: agreement@10, min: 0.85}", "  size: 15MB", "  memory: 50MB")
KEEP_TIME, SMALL_TIME = "6min", "2h"
_NONE = (
    "no release with a distilled form: make one with `skerry build {place} --time {time} --prune`, about two hours of"
    " processor time, or name one with --small FOLDER"
)


class Candidates(NamedTuple):
    """Skerry's own forms of one budget, best first, or why there are none; and how long the cached build took."""

    entrants: list[Entrant]
    techniques: dict[str, str]
    missing: str = ""
    cached_s: float | None = None


def keep(source: str, time: str = KEEP_TIME) -> Candidates:
    """Search for the form that keeps the quality, and then once more, which must find everything in the cache."""
    place = project("keep", source, KEEP)
    try:
        build(place, "--time", time)
        again = build(place, "--time", time)
    except BuildFailedError as error:
        return Candidates([], {}, str(error))
    return _named("keep", released(place))._replace(cached_s=again)


def small(source: str, folder: Path | None) -> Candidates:
    """Return the small form: of a release or project that was named, else of the one that was made here before.

    Nothing is searched here: it takes two hours, and a benchmark may not.
    """
    place = folder or project("small", source, SMALL)
    found = forms(place) if (place / "manifest.json").is_file() else released(place)
    if not found:
        return Candidates([], {}, _NONE.format(place=_shown(place), time=SMALL_TIME))
    return _named("small", found)


def _named(kind: str, found: Sequence[Form]) -> Candidates:
    candidates = Candidates([], {})
    for index, form in enumerate(found):
        name = f"skerry {kind}" if not index else f"skerry {kind} +{index}"
        candidates.entrants.append(Entrant(name, form.artifact))
        candidates.techniques[name] = form.technique
    return candidates


def _shown(place: Path) -> str:
    try:
        return str(place.relative_to(Path.cwd()))
    except ValueError:
        return place.name
