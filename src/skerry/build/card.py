"""The model card of what a search chose, as Hugging Face hubs read it: ``README.md`` with YAML in front.

The fields are those of the hub's specification of model cards (``hub-docs/modelcard.md``).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from skerry.build import wording
from skerry.build.figures import Estimate
from skerry.build.findings import FigureName, Findings, Ranked, TextsUsed, ranked

_PIPELINES = {
    "embedding": "feature-extraction",
    "reranking": "text-ranking",
    "encoder": "fill-mask",
    "classification": "text-classification",
    "image-classification": "image-classification",
    "image-embedding": "image-feature-extraction",
    "image-text": "zero-shot-image-classification",
    "detection": "object-detection",
    "transcription": "automatic-speech-recognition",
    "voice-activity": "voice-activity-detection",
    "generation": "text-generation",
}
"""The hub's name for a task."""

_LICENCES = frozenset(
    {
        "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc", "unlicense", "openrail",
        "gemma", "llama2", "llama3", "llama3.1", "llama3.2",
    }
)  # fmt: skip
"""Names that the hub knows; any other is ``other`` with a ``license_name``."""

_PLAIN = re.compile(r"[a-z][a-z0-9.-]*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What an older YAML takes for something else than text."""


def render(findings: Findings) -> bytes:
    """Return the card as UTF-8. Without a chosen candidate it describes the baseline and says so."""
    best = next((each for each in ranked(findings) if each.chosen), None)
    text = f"---\n{_front_matter(findings, best)}---\n\n{_body(findings, best)}"
    return text.encode()


def _front_matter(findings: Findings, best: Ranked | None) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(_quoted(metadata(findings, best)), stream)
    return stream.getvalue()


def metadata(findings: Findings, best: Ranked | None) -> dict[str, Any]:
    """Return the front matter as plain values."""
    found: dict[str, Any] = licence(findings.origin.licence)
    base = base_model(findings)
    if base:
        found["base_model"] = base
        found["base_model_relation"] = _relation(best)
    found["library_name"] = "skerry"
    found["pipeline_tag"] = _PIPELINES.get(findings.origin.task, _slug(findings.origin.task) or "other")
    found["tags"] = _tags(findings, best)
    if best is not None and (index := _index(findings, best)):
        found["model-index"] = index
    return found


def licence(spdx: str) -> dict[str, Any]:
    """Return how the hub names a licence: its own name, ``unknown``, or ``other`` with the name it has elsewhere."""
    if not spdx:
        return {"license": "unknown"}
    name = spdx.lower().removesuffix("-only").removesuffix("-or-later")
    if name in _LICENCES:
        return {"license": name}
    return {"license": "other", "license_name": _slug(spdx.removeprefix("LicenseRef-")) or "other"}


def base_model(findings: Findings) -> str:
    """Return the hub's id of the model that was given; empty where it is not from a hub."""
    if findings.origin.base_model:
        return findings.origin.base_model
    hub = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(@.*)?", findings.origin.source, re.ASCII)
    return hub[1] if hub else ""


def _relation(best: Ranked | None) -> str:
    """Return what this is to the given model, in the hub's words; a distilled student was trained."""
    steps = best.candidate.steps if best is not None else ()
    return "finetune" if any(step.technique.startswith("distill") for step in steps) else "quantized"


def _tags(findings: Findings, best: Ranked | None) -> list[str]:
    found = ["skerry", "edge", _slug(findings.origin.task)]
    if best is not None:
        found += [_slug(best.candidate.runtime), *(_slug(step.technique) for step in best.candidate.steps)]
    return [tag for tag in dict.fromkeys(found) if tag]


def _index(findings: Findings, best: Ranked) -> list[dict[str, Any]]:
    """Return the results on the texts that the search never saw."""
    used = _reported(findings)
    metrics = [
        {
            "type": metric, "value": round(found.value, 4),
            "name": f"{metric} (95 % interval {wording.share(found.low)} to {wording.share(found.high)})",
        }
        for metric, found in sorted(best.measured.figures.quality.items())
    ]  # fmt: skip
    if not metrics:
        return []
    called = used.called.removesuffix("s") if used else "text"
    dataset: dict[str, Any] = {"type": called, "name": used.origin if used else "not recorded"}
    if used:
        dataset |= {"split": used.split, "args": {"count": used.count, "digest": used.digest}}
    task = {"type": _PIPELINES.get(findings.origin.task, "other"), "name": findings.origin.task}
    return [{"name": findings.name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]


def _reported(findings: Findings) -> TextsUsed | None:
    return next((used for used in findings.environment.texts if used.split == "report"), None)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _quoted(value: Any) -> Any:
    """Put text in quotes unless every YAML reads it as text."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {key: _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_quoted(inner) for inner in value]
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or value in _YAML_WORDS):
        return DoubleQuotedScalarString(wording.visible(value))
    return value


def _body(findings: Findings, best: Ranked | None) -> str:
    parts = [f"# {_text(findings.name)}", _what(findings, best)]
    if best is not None:
        parts += ["## Figures", _figures(findings, best)]
        if findings.environment.device:
            parts.append(
                f"Planned for {_text(findings.environment.device)}, which was not at hand; ≈ stands before what is "
                f"predicted{wording.within(findings.environment.predicted_within)}. The rest was measured here."
            )
        if best.measured.lines:
            parts += ["## Budget", _budget(best)]
    parts += ["## How it was measured", _measured(findings), "## Limits of these figures", _limits(findings)]
    if findings.environment.commands:
        commands = wording.visible("\n".join(findings.environment.commands))
        fence = _fence(commands)
        parts += ["## Do it again", f"{fence}sh\n{commands}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def _what(findings: Findings, best: Ranked | None) -> str:
    source = _text(findings.origin.source)
    if best is None:
        return f"A search found no form of {source} that could be measured; this describes the model as it was given."
    keeps = best.measured.keeps_budget
    held = "" if not best.measured.lines else " It keeps its budget." if keeps else " It does not keep its budget."
    recipe = _text(wording.recipe(best.candidate))
    return (
        f"{source} for {_text(findings.origin.task)}, in the form that Skerry chose: {recipe}, "
        f"run by {_text(best.candidate.runtime)} with {wording.threads(best.candidate.threads)}.{held}"
    )


def _figures(findings: Findings, best: Ranked) -> str:
    after, before = best.measured.figures, findings.baseline.figures
    rows = [
        _figure_row(
            _text(metric), wording.share, found, before.quality.get(metric), "quality" in best.measured.predicted
        )
        for metric, found in sorted(after.quality.items())
    ]
    plain: list[tuple[str, Callable[[float | None], str], FigureName]] = [
        ("latency p50", wording.milliseconds, "latency_p50_ms"),
        ("latency p99", wording.milliseconds, "latency_p99_ms"),
        ("peak memory", wording.octets, "peak_bytes"),
        ("size on disk", wording.octets, "size_bytes"),
    ]
    rows += [
        _figure_row(title, say, getattr(after, name), getattr(before, name), name in best.measured.predicted)
        for title, say, name in plain
    ]
    head = f"| figure | this | 95 % interval | {_text(findings.baseline.name)} |\n|---|---|---|---|"
    return "\n".join([head, *rows])


def _figure_row(
    title: str,
    say: Callable[[float | None], str],
    after: Estimate | int,
    before: Estimate | int | None,
    predicted: bool,
) -> str:
    """Return a row; bytes that are 0 were not measured."""
    if isinstance(after, Estimate):
        shown, interval = say(after.value), f"{say(after.low)} to {say(after.high)}" if after.low < after.high else ""
    else:
        shown, interval = say(after or None), ""
    other = say(before.value) if isinstance(before, Estimate) else say(before or None)
    return f"| {title} | {'≈ ' if predicted else ''}{shown} | {interval} | {other} |"


def _budget(best: Ranked) -> str:
    rows = [
        f"| {_text(wording.limit_name(line.limit))} | {wording.asked(line)} | "
        f"{wording.limit_value(line.limit, line.value)} | {wording.standing(line)} |"
        for line in best.measured.lines
    ]
    return "\n".join(["| limit | asked | reached | |\n|---|---|---|---|", *rows])


def _measured(findings: Findings) -> str:
    environment = findings.environment
    lines = [f"Machine: {_text(environment.machine)}. Seed: {environment.seed}."]
    lines += [
        f"{used.count:,} {used.called} of {_text(used.origin)} to {used.split} ({_text(used.digest) or 'no digest'})."
        for used in environment.texts
    ]
    versions = ", ".join(f"{_text(name)} {_text(version)}" for name, version in sorted(environment.versions.items()))
    return "\n".join(f"- {line}" for line in [*lines, *([f"Versions: {versions}."] if versions else [])])


def _limits(findings: Findings) -> str:
    return (
        f"{_text(findings.metric)} was measured on {_these(findings)} and says nothing of other ones, and nothing of "
        "how good the given model is. Latency and memory are those of this machine and these versions. What the card "
        "of the given model says of intended use, bias and risk holds here too."
    )


def _these(findings: Findings) -> str:
    used = _reported(findings)
    return f"these {used.called if used else 'texts'}"


def _text(text: str) -> str:
    """Return a text that Markdown shows as it is: on one line, its signs escaped."""
    flat = wording.visible(" ".join(text.split()))
    escaped = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", escaped)


def _fence(content: str) -> str:
    """Return a fence that is longer than any in the content."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    return "`" * max(3, longest + 1)
