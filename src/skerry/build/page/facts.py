"""The facts on the page: machine, versions, texts, time, how it was measured, and the commands to do it again."""

from __future__ import annotations

from collections.abc import Iterable

from skerry.build import wording
from skerry.build.findings import Environment, Findings
from skerry.build.page.markup import Markup, element

_HOW = (
    "Latency is that of one item alone, over lengths drawn from the texts, in turn with the baseline.",
    "Speed-up is the baseline's time divided by the candidate's, turn by turn in the same run.",
    "Peak is the most resident memory of a process that holds only this candidate.",
    "Intervals are 95 % confidence intervals. The measured value counts against the budget, not the interval's end.",
)
_SPLITS = {
    "calibrate": "to calibrate and tune",
    "select": "to choose",
    "report": "to report; the search never saw these",
}


def facts_section(findings: Findings) -> Markup:
    """Return all that it takes to judge the figures and to make them again."""
    environment = findings.environment
    return element(
        "section",
        element("h2", "Environment", id="environment"),
        element(
            "div", _card("Run", _pairs(_run(findings))), _card("Versions", _versions(environment)), class_="columns"
        ),
        element("div", element("h3", "Data"), _texts(environment), class_="card") if environment.texts else None,
        element(
            "div",
            element("h3", "How it was measured"),
            element("ul", *(element("li", line) for line in _HOW)),
            class_="card",
        ),
        _commands(environment),
    )


def _card(title: str, content: Markup) -> Markup:
    return element("div", element("h3", title), content, class_="card")


def _run(findings: Findings) -> list[tuple[str, str]]:
    origin, environment = findings.origin, findings.environment
    time = wording.span(environment.spent_s)
    if environment.allowed_s is not None:
        time += f" of {wording.span(environment.allowed_s)}"
    phases = ", ".join(f"{name} {wording.span(seconds)}" for name, seconds in environment.phases.items())
    found = [
        ("machine", environment.machine), ("planned for", environment.device), ("model", origin.source),
        ("digest", origin.digest), ("licence", origin.licence),
        ("parameters", "" if origin.parameters is None else f"{origin.parameters:,}"), ("seed", str(environment.seed)),
        ("time", f"{time} ({phases})" if phases else time), ("finished", environment.finished),
    ]  # fmt: skip
    return [(name, value) for name, value in found if value]


def _versions(environment: Environment) -> Markup:
    if not environment.versions:
        return element("p", "not recorded", class_="muted")
    return _pairs(sorted(environment.versions.items()))


def _pairs(pairs: Iterable[tuple[str, str]]) -> Markup:
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in pairs))


def _texts(environment: Environment) -> Markup:
    head = element("tr", *(element("th", title, scope="col") for title in ("used", "items", "from", "digest")))
    rows = [
        element(
            "tr", element("th", _SPLITS[used.split], scope="row"), element("td", f"{used.count:,} {used.called}"),
            element("td", used.origin), element("td", element("code", used.digest)),
        )
        for used in environment.texts
    ]  # fmt: skip
    table = element("table", element("thead", head), element("tbody", *rows), class_="plain")
    return element("div", table, class_="scroll")


def _commands(environment: Environment) -> Markup | None:
    if not environment.commands:
        return None
    lines = "\n".join(environment.commands)
    return element(
        "div", element("h3", "Do it again", id="commands"), element("pre", element("code", lines)), class_="card"
    )
