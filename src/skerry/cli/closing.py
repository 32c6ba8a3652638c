"""The closing words of a run: a table for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from skerry.cli import figures
from skerry.cli.changes import BAD_FATES
from skerry.cli.errors import error_fields
from skerry.spec.address import parse_address
from skerry.spec.errors import SkerryError
from skerry.spec.pipeline import EndpointEntry
from skerry.spec.reading import Project
from skerry.spec.summary import LOSSES, Counts, RunSummary, StageSummary

FILE_SCHEMES = ("jsonl", "sqlite", "file")


def closing_object(summary: RunSummary, project: Project, error: SkerryError | None, code: int) -> dict[str, Any]:
    """Return what ``skerry run --json`` prints: the summary, where the results are, and how it ended.

    Fields that the pipeline file calls ``personal`` are left out of ``last``: a summary ends up in logs.
    """
    import msgspec

    personal = {name for name, level in project.pipeline.privacy.items() if level == "personal"}
    last = [{name: value for name, value in fields.items() if name not in personal} for fields in summary.last]
    found: dict[str, Any] = msgspec.to_builtins(
        msgspec.structs.replace(summary, last=last), enc_hook=_plain, str_keys=True
    )
    found["results"] = [{"sink": sink.id, "uri": without_password(sink.uri)} for sink in _sinks(project)]
    found["exit_code"] = code
    return found if error is None else {**found, "status": "failed", **error_fields(error)}


def _plain(value: Any) -> Any:
    """Turn what JSON has no word for into something short: an array into its shape, a number of numpy into a number."""
    shape = getattr(value, "shape", None)
    if shape == ():
        return value.item()
    if shape is not None:
        return {"shape": list(shape), "dtype": str(getattr(value, "dtype", ""))}
    return str(value)


def closing_lines(summary: RunSummary, project: Project) -> list[str]:
    """Return the lines that end a run for people: counts, stages, losses by reason, and where the results are."""
    return [
        *_headline(summary), "", *_stage_table(summary.stages), *_loss_lines(summary.stages),
        *_route_lines(summary.stages), *_counter_lines(summary.stages), *_results(project),
    ]  # fmt: skip


def _headline(summary: RunSummary) -> Iterator[str]:
    ended = {"failed": "failed after", "done": "done in"}.get(summary.status, "ended after")
    built = [part for part in (summary.model, summary.runtime, summary.release) if part]
    yield f"{summary.pipeline}: {ended} {summary.wall_s:.1f} s" + (f" ({', '.join(built)})" if built else "")
    counts = [f"{summary.items_in:,} in", f"{summary.items_out:,} out"]
    counts += [f"{number:,} {word}" for word, number in _losses(summary) if number]
    counts += [f"{summary.emitted:,} emitted"] if summary.emitted else []
    speed = figures.rate(summary.items_in / summary.wall_s) if summary.wall_s > 0 else "–"
    yield f"  items    {', '.join(counts)}; {speed}"
    latency = summary.latency_ms
    if latency.p50 is not None:
        yield f"  latency  p50 {figures.milliseconds(latency.p50)}, p99 {figures.milliseconds(latency.p99)}"
    share = f" ({summary.cpu_s / summary.wall_s:.0%} of a core)" if summary.wall_s >= 1 else ""  # start-up counts too
    used = [f"{summary.cpu_s:.1f} s of CPU{share}", f"{figures.size(summary.peak_rss_bytes)} of memory at the peak"]
    used += [f"{summary.energy_j:.1f} J"] if summary.energy_j is not None else []
    yield f"  used     {', '.join(used)}"


def _losses(counts: Counts) -> list[tuple[str, int]]:
    return [(fate.value, getattr(counts, fate.value)) for fate in LOSSES]


def _stage_table(stages: Sequence[StageSummary]) -> list[str]:
    """Return the stages as a table, with a column for each fate that some record met."""
    fates = [fate.value for fate in LOSSES if any(getattr(stage, fate.value) for stage in stages)]
    fates += ["emitted"] if any(stage.emitted for stage in stages) else []
    rows = [["", "in", "out", *fates, "p50", "p99"]]
    for stage in stages:
        numbers = [stage.items_in, stage.items_out, *(getattr(stage, fate) for fate in fates)]
        times = [figures.milliseconds(stage.latency_ms.p50), figures.milliseconds(stage.latency_ms.p99)]
        rows.append([stage.id, *(f"{number:,}" for number in numbers), *times])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> list[str]:
    """Return rows as lines with columns of equal width; those in ``left`` start at the left, the others end right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    starts = set(left)
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column in starts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _loss_lines(stages: Iterable[StageSummary]) -> list[str]:
    lines = [
        f"  {stage.id}: {number:,} {fate} ({reason})"
        for stage in stages
        for fate in BAD_FATES
        for reason, number in stage.reasons.get(fate, {}).items()
        if number
    ]
    return ["", "lost, and why", *lines] if lines else []


def _route_lines(stages: Iterable[StageSummary]) -> list[str]:
    """Return who answered at each stage that may ask a cloud, and what that cost."""
    lines: list[str] = []
    for stage in stages:
        route = stage.route
        if route is None or not route.items:
            continue
        offloaded = route.answered + route.cached
        share = offloaded / route.items
        lines.append(f"  {stage.id}: {offloaded:,} of {route.items:,} answers by the cloud ({share:.0%})")
        if route.cached:
            lines[-1] += f", {route.cached:,} of them remembered"
        if offloaded:
            lines.append(f"    agreed    {route.agreed / offloaded:.0%} of those were the local answer too")
        cost = f", {route.money:.4g} in money" if route.money else ""
        lines.append(f"    sent      {figures.size(route.bytes)} both ways in {route.requests:,} requests{cost}")
        lines.append(f"    local     {_counted(route.local)} (sure from {route.threshold:.3g})")
        if route.faults:
            lines.append(f"    faults    {_counted(route.faults)}")
        if route.waiting or route.revised:
            lines.append(f"    later     {route.revised:,} revised, {route.waiting:,} wait for a better answer")
        if route.alarmed:
            lines.append("    drift     suspected: no local answer counts as sure")
    return ["", "asked elsewhere", *lines] if lines else []


def _counter_lines(stages: Iterable[StageSummary]) -> list[str]:
    """Return what sinks counted of their own, as one that carries records to a hub does."""
    counts = [(stage.id, {name.replace("_", " "): n for name, n in stage.counters.items() if n}) for stage in stages]
    lines = [f"  {name}: {_counted(found)}" for name, found in counts if found]
    return ["", "sent on", *lines] if lines else []


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in reasons.items()) or "none"


def _results(project: Project) -> list[str]:
    kept = [sink for sink in _sinks(project) if sink.uri.split(":")[0] not in {"stdout", "memory"}]
    places = [f"  {sink.id}: {place(sink, project)}" for sink in kept]
    return ["", "results", *places] if places else []


def _sinks(project: Project) -> list[EndpointEntry]:
    return [*project.sinks, *([project.dead_letter] if project.dead_letter else [])]


def place(sink: EndpointEntry, project: Project) -> str:
    """Say where a sink's records are: a path that can be pasted into a shell, or the URI without its password."""
    address, query = parse_address(sink.uri)
    if address.scheme not in FILE_SCHEMES:
        return without_password(sink.uri)
    # `sqlite:///x` is relative to the pipeline file, as the URLs of databases are; `sqlite:////x` is absolute.
    path = project.home / (address.path.removeprefix("/") if address.scheme == "sqlite" else address.path)
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return str(shown) + _options({**query, **sink.options})


def _options(options: Mapping[str, Any]) -> str:
    return f" (table {options['table']})" if "table" in options else ""


def without_password(uri: str) -> str:
    """Return a URI with the password, if it has one, replaced by ``***``."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    user, host = parts.netloc.rsplit("@", 1)
    return urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}:***@{host}"))
