"""The page of a search: whole, escaped, without a need for anything else, and every mark of the plot inside it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from skerry.build.findings import Candidate, Findings, Measured, ranked
from skerry.build.page import render
from skerry.build.verdict import verdict
from skerry.build.wording import visible
from tests.build.findings_strategy import FINDINGS
from tests.build.sample_findings import HOPELESS, sample

VOID = {"meta", "br", "col"}
TAGS = frozenset(
    {
        "html", "head", "meta", "title", "style", "script", "body", "header", "main", "section", "div", "span", "p",
        "h1", "h2", "h3", "b", "i", "strong", "small", "code", "pre", "ul", "ol", "li", "dl", "dt", "dd", "a", "table",
        "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption", "svg", "g", "line",
        "rect", "path", "circle", "polygon", "text",
    }
)  # fmt: skip
NUMBERS = {"x", "x1", "x2", "cx"}, {"y", "y1", "y2", "cy"}


class Page(HTMLParser):
    """Reads a page and notes what breaks its rules."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.faults: list[str] = []
        self.text: list[str] = []
        self.code: list[str] = []
        self.plots: list[tuple[float, float]] = []
        self.box: tuple[float, float] | None = None
        self.scripts = 0
        self.feed(content.decode("utf-8"))
        self.close()
        self.faults += [f"<{tag}> is left open" for tag, _ in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in TAGS:
            self.faults.append(f"<{tag}>")
        if len(found) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.faults += [f"<{tag} {name}>" for name in found if name.startswith("on") or name in {"src", "style"}]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        self.scripts += tag == "script"
        if tag == "svg":
            width, height = (float(number) for number in (found["viewbox"] or "").split()[2:])
            self.box = (width, height)
            self.plots.append(self.box)
        elif self.box:
            self.inside(tag, found)
        if tag not in VOID:
            self.open.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"</{tag}> closes nothing")
            return
        self.open.pop()
        if tag == "svg":
            self.box = None

    def handle_data(self, data: str) -> None:
        code = bool(self.open) and self.open[-1][0] in {"style", "script"}
        (self.code if code else self.text).append(data)

    def handle_comment(self, data: str) -> None:
        self.faults.append("a comment")

    def inside(self, tag: str, found: dict[str, str | None]) -> None:
        """Note a coordinate that lies outside of the plot."""
        assert self.box is not None
        width, height = self.box
        places = [(float(found[name] or "nan"), width) for name in NUMBERS[0] & found.keys()]
        places += [(float(found[name] or "nan"), height) for name in NUMBERS[1] & found.keys()]
        for pair in re.findall(r"(-?[\d.]+),(-?[\d.]+)", found.get("points") or ""):
            places += [(float(pair[0]), width), (float(pair[1]), height)]
        for sign, numbers in re.findall(r"([MLHV])([-\d. ]+)", found.get("d") or ""):
            limits = {"H": (width,), "V": (height,)}.get(sign, (width, height))
            places += list(zip(map(float, numbers.split()), limits, strict=True))
        if "r" in found:
            radius = float(found["r"] or "nan")
            places += [(place + way * radius, limit) for place, limit in places for way in (-1, 1)]
        if tag == "rect":
            places.append((float(found["x"] or "nan") + float(found["width"] or "nan"), width))
            places.append((float(found["y"] or "nan") + float(found["height"] or "nan"), height))
        self.faults += [f"<{tag}> lies at {at} of {limit}" for at, limit in places if not -0.01 <= at <= limit + 0.01]


def check(content: bytes) -> Page:
    page = Page(content)
    assert page.faults == []
    assert len(set(page.ids)) == len(page.ids)
    assert {link for link in page.links if link[1:] not in page.ids or link[0] != "#"} == set()
    assert page.scripts == 1
    assert not re.search(r"url\(|@import|import\(|fetch|https?:", "".join(page.code))
    return page


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FINDINGS)
def test_every_page_is_whole_escaped_and_needs_nothing_else(found: Findings) -> None:
    page = check(render(found))
    shown = "".join(page.text)
    for candidate in found.candidates:
        assert visible(candidate.name).replace("\r", "\n") in shown.replace("\r", "\n")


@pytest.mark.parametrize("found", [sample(), sample(HOPELESS, "raspberry-pi-5", ("latency_p50_ms",))])
def test_the_page_of_a_real_search_says_all(found: Findings) -> None:
    page = check(render(found))
    shown = " ".join(page.text)
    assert f"candidate-{len(ranked(found))}" in page.ids
    assert page.plots.count((1040.0, 500.0)) == 1
    assert "skerry build examples/log-triage --time 20m --seed 7" in shown
    assert "percentile calibration takes texts of one length only" in shown
    assert "95 %" in shown
    assert ("What to relax" in shown) == bool(found.near_misses)
    assert ("≈ " in shown) == bool(found.environment.device)


def test_nothing_at_all_was_measured() -> None:
    found = Findings(
        name="m", origin=sample().origin, baseline=sample().baseline, environment=sample().environment
    )  # fmt: skip
    page = check(render(found))
    assert "Nothing was chosen." in "".join(page.text)


def test_a_browser_is_told_to_run_only_what_is_written_here() -> None:
    content = render(sample()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', content)
    assert policy is not None
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "unsafe" not in policy[1]


def test_the_limits_and_both_marks_are_drawn() -> None:
    content = render(sample()).decode()
    wide = content[content.index('class="wide"') : content.index('class="narrow"')]
    assert wide.count('class="limit"') == 2
    assert wide.count('class="bubble chosen"') == 1
    assert wide.count('class="bubble baseline"') == 1
    assert wide.count('class="bubble ') == 26
    assert "whisker chosen" in wide


def test_a_baseline_of_unknown_quality_is_not_drawn_as_if_it_were_perfect() -> None:
    found = sample()
    figures = msgspec.structs.replace(found.baseline.figures, quality={})
    unknown = msgspec.structs.replace(found, baseline=msgspec.structs.replace(found.baseline, figures=figures))
    assert 'class="bubble baseline' in render(found).decode()
    assert 'class="bubble baseline' not in render(unknown).decode()


def test_a_winner_that_misses_the_budget_when_it_is_measured_again_is_not_called_the_nearest() -> None:
    def missing(each: Candidate) -> Candidate:
        if each.name != found.chosen:
            return each
        assert isinstance(each.outcome, Measured)
        lines = verdict(HOPELESS, each.outcome.figures)
        return msgspec.structs.replace(each, outcome=msgspec.structs.replace(each.outcome, lines=lines))

    found = sample()
    changed = msgspec.structs.replace(found, candidates=tuple(map(missing, found.candidates)))
    assert "does not keep the budget where it was measured again" in render(changed).decode()
    assert "Nothing keeps the budget" in render(sample(HOPELESS)).decode()


def test_where_less_is_better_the_least_stands_at_the_top() -> None:
    def heights(findings: Findings) -> list[float]:
        return [float(found) for found in re.findall(r'<circle cx="[^"]*" cy="([^"]*)"', render(findings).decode())]

    upright = sample()
    turned = msgspec.structs.replace(upright, lower_is_better=True)
    assert "less is better" in render(turned).decode()
    assert "less is better" not in render(upright).decode()
    assert not Page(render(turned)).faults
    assert heights(turned) != heights(upright)
