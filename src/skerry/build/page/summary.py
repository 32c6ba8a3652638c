"""The head of the page: what was chosen, how it compares with the model as it was given, and what to be wary of."""

from __future__ import annotations

from skerry.build import wording
from skerry.build.findings import Findings, Ranked, discards, failures, ranked
from skerry.build.page.markup import Markup, element


def header(findings: Findings) -> Markup:
    """Return the title, the verdict in a sentence, and four figures."""
    best = next((each for each in ranked(findings) if each.chosen), None)
    origin, environment = findings.origin, findings.environment
    about = [origin.source, origin.task, environment.machine, environment.finished]
    return element(
        "header",
        element("p", "Skerry search report", class_="kicker"),
        element("h1", findings.name),
        element("p", " · ".join(part for part in about if part), class_="about"),
        element("p", *verdict_sentence(findings, best), class_=f"verdict {'good' if _keeps(best) else 'bad'}"),
        _tiles(findings, best) if best else None,
    )


def verdict_sentence(findings: Findings, best: Ranked | None) -> list[Markup | str]:
    """Say what was chosen and whether it keeps the budget."""
    counts = f"{len(ranked(findings))} measured, {len(failures(findings))} failed, {len(discards(findings))} not tried"
    if best is None:
        return [element("strong", "Nothing was chosen."), f" Of {len(findings.candidates)} candidates: {counts}."]
    chosen = element("strong", best.name)
    if not best.measured.lines:
        return [chosen, f" was chosen; the budget names no limit. {len(findings.candidates)} candidates: {counts}."]
    if _keeps(best):
        return [chosen, f" keeps every line of the budget. {len(findings.candidates)} candidates: {counts}."]
    ending = f". {len(findings.candidates)} candidates: {counts}."
    if any(map(_keeps, ranked(findings))):  # it kept the budget as well, on what it was chosen by
        return [chosen, " was chosen, and does not keep the budget where it was measured again", ending]
    return ["Nothing keeps the budget. The nearest is ", chosen, ending]


def warnings(findings: Findings) -> Markup | None:
    """Say what is predicted, where a search planned for another device than the one it ran on."""
    device = findings.environment.device
    if not device:
        return None
    predicted = sorted({name for each in ranked(findings) for name in each.measured.predicted})
    text = f" {device} was not at hand. "
    if predicted:
        names = ", ".join(name.removesuffix("_ms").removesuffix("_bytes").replace("_", " ") for name in predicted)
        within = wording.within(findings.environment.predicted_within)
        text += f"Predicted from this machine's measurements{within}: {names}. ≈ stands before such a figure. "
    text += "Everything else was measured here."
    return element("section", element("p", element("strong", f"Planned for {device}."), text), class_="card warning")


def _keeps(best: Ranked | None) -> bool:
    return best is not None and best.measured.keeps_budget


def _tiles(findings: Findings, best: Ranked) -> Markup:
    figures, before = best.measured.figures, findings.baseline.figures
    quality = figures.quality.get(findings.metric)
    memory = f"{wording.times(before.peak_bytes / figures.peak_bytes)} less" if figures.peak_bytes else ""
    smaller = f"{wording.times(before.size_bytes / figures.size_bytes)} smaller" if figures.size_bytes else ""
    interval = f"{wording.share(quality.low)} to {wording.share(quality.high)}" if quality else "not measured"
    latency = (
        f"{wording.milliseconds(before.latency_p50_ms.value)} → {wording.milliseconds(figures.latency_p50_ms.value)}"
    )
    about = "≈ " if "latency_p50_ms" in best.measured.predicted else ""
    return element(
        "div",
        _tile("faster", f"{about}{wording.times(figures.speedup.value)}", f"{about}{latency}"),
        _tile(findings.metric, wording.share(quality.value if quality else None), interval),
        _tile("on disk", wording.octets(figures.size_bytes), smaller),
        _tile("peak memory", wording.octets(figures.peak_bytes), memory),
        class_="tiles",
    )


def _tile(name: str, value: str, more: str) -> Markup:
    return element(
        "div", element("span", name, class_="name"), element("b", value), element("span", more, class_="more"),
        class_="tile",
    )  # fmt: skip
