"""The plot: quality against latency, the size of a bubble being the bytes on disk; inline SVG that needs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from skerry.build import wording
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import Baseline, Findings, Measured, ranked
from skerry.build.page.label import Box, place_labels, text_box
from skerry.build.page.markup import Markup, element, joined
from skerry.build.page.scale import Scale, linear, logarithmic

_LEAST_MS, _MOST_MS = 1e-6, 1e12
"""A latency outside of these is a mistake of whoever measured; it is left to the table."""
_FARTHEST = 4.0
"""A whisker ends at so many times the figure, or one noisy candidate would squeeze all others."""


Role = Literal["chosen", "front", "other", "baseline"]

_LAYERS: dict[Role, int] = {"baseline": 0, "other": 1, "front": 2, "chosen": 3}


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A size of the plot, in pixels. The narrow one is for telephones, where the wide one would be unreadable."""

    name: str
    width: float
    height: float
    left: float
    right: float = 16.0
    top: float = 26.0
    bottom: float = 46.0
    least_radius: float
    most_radius: float

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """The left, right, upper and lower edge of where points lie."""
        return self.left, self.width - self.right, self.top, self.height - self.bottom


WIDE = Frame(name="wide", width=1040, height=500, left=62, least_radius=8, most_radius=26)
NARROW = Frame(name="narrow", width=370, height=400, left=44, right=8, least_radius=6.5, most_radius=16)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate on the plot; ``rank`` is 0 for the baseline."""

    name: str
    rank: int
    latency: Estimate
    quality: Estimate
    size_bytes: int
    role: Role
    on_front: bool = False
    predicted: bool = False
    told: str


class Axes(msgspec.Struct, frozen=True, kw_only=True):
    """The two scales, and the radius of a byte's square root."""

    x: Scale
    y: Scale
    frame: Frame
    most_bytes: int
    upside_down: bool = False
    """Whether the least quality figure stands at the top, since less is better."""

    def radius(self, size_bytes: int) -> float:
        """Return the radius of a bubble, whose area goes with the bytes but for the least one."""
        part = math.sqrt(max(size_bytes, 0) / self.most_bytes) if self.most_bytes > 0 else 0.0
        return self.frame.least_radius + part * (self.frame.most_radius - self.frame.least_radius)


def plot_section(findings: Findings) -> Markup | None:
    """Return the figure in both sizes, of which the page shows one; nothing where nothing can be drawn."""
    which = latency_shown(findings)
    points = _points(findings, which)
    if not points:
        return None
    limits = _limits(findings, which)
    drawn = [
        element("div", _svg(findings, points, limits, which, frame), class_=frame.name) for frame in (WIDE, NARROW)
    ]
    return element(
        "section",
        element("h2", "Quality against latency", id="plot"),
        element("figure", *drawn, element("figcaption", *_legend(points, limits)), class_="card"),
    )


def latency_shown(findings: Findings) -> str:
    """Return the latency of the horizontal axis: the median, unless the budget limits the 99th percentile alone."""
    limits = {line.limit for each in ranked(findings)[:1] for line in each.measured.lines}
    return "p99" if "latency_p99" in limits and "latency_p50" not in limits else "p50"


def _latency(figures: Figures, which: str) -> Estimate:
    return figures.latency_p99_ms if which == "p99" else figures.latency_p50_ms


def _points(findings: Findings, which: str) -> list[Point]:
    """Return what can be placed; what matters lies on top, and small ones on large ones."""
    made = [_point(findings.baseline.name, 0, findings.baseline, "baseline", findings.metric, which)]
    for each in ranked(findings):
        role: Role = "chosen" if each.chosen else "front" if each.on_front else "other"
        point = _point(each.name, each.rank, each.measured, role, findings.metric, which, on_front=each.on_front)
        made.append(point)
    placed = [point for point in made if point is not None and _drawable(point)]
    return sorted(placed, key=lambda point: (_LAYERS[point.role], -point.size_bytes, point.rank))


def _point(
    name: str, rank: int, told: Measured | Baseline, role: Role, metric: str, which: str, *, on_front: bool = False
) -> Point | None:
    """Return what was told of a candidate or of the baseline as a point; ``None`` where its quality is not known."""
    figures, latency = told.figures, _latency(told.figures, which)
    quality = figures.quality.get(metric)
    if quality is None:
        return None
    head = f"{rank}. {name}" if rank else f"baseline: {name}"
    shown = f"{wording.milliseconds(latency.value)}, quality {wording.share(quality.value)}"
    return Point(
        name=name, rank=rank, latency=latency, quality=quality, size_bytes=figures.size_bytes, role=role,
        on_front=on_front, predicted=bool({"quality", f"latency_{which}_ms"} & set(told.predicted)),
        told=f"{head}\n{shown}, {wording.octets(figures.size_bytes)}",
    )  # fmt: skip


def _drawable(point: Point) -> bool:
    return math.isfinite(point.quality.value) and _LEAST_MS < point.latency.value < _MOST_MS


def _limits(findings: Findings, which: str) -> dict[str, float]:
    """Return the limits that can be drawn: ``quality``, and ``latency`` in milliseconds."""
    found: dict[str, float] = {}
    for line in (line for each in ranked(findings)[:1] for line in each.measured.lines):
        if line.limit == f"quality ({findings.metric})":
            found["quality"] = line.must
        if line.limit == f"latency_{which}" and _LEAST_MS < line.must * 1e3 < _MOST_MS:
            found["latency"] = line.must * 1e3
    return found


def _axes(points: Sequence[Point], limits: dict[str, float], frame: Frame, *, lower: bool) -> Axes:
    """Fit the axes to the points.

    Of those that are neither chosen nor on the front only the latency counts: one that answers nonsense would leave no
    room for the differences that matter. It is drawn at the bottom edge, with an arrow.
    """
    latencies = [end for point in points for end in _whisker(point.latency, least=point.latency.value / _FARTHEST)]
    counted = [point for point in points if point.role != "other"] or points
    qualities = [point.quality.value for point in counted]
    lows = [_worse_end(point.quality, lower=lower) for point in counted]
    x_values = [*latencies, *([limits["latency"]] if "latency" in limits else [])]
    y_values = [*qualities, *lows, *([limits["quality"]] if "quality" in limits else [])]
    room = frame.most_radius
    bottom, top = frame.height - frame.bottom - room, frame.top + room / 2
    return Axes(
        x=logarithmic(x_values, frame.left + room, frame.width - frame.right - room),
        y=linear(y_values, top, bottom) if lower else linear(y_values, bottom, top),
        frame=frame, most_bytes=max(point.size_bytes for point in points), upside_down=lower,
    )  # fmt: skip


def _worse_end(quality: Estimate, *, lower: bool) -> float:
    """Return the worse end of an interval, but no end that would take the room of the differences that matter."""
    if lower:
        return max(min(quality.high, quality.value * 1.1), quality.value)
    return min(max(quality.low, quality.value - 0.1), quality.value)


def _whisker(estimate: Estimate, *, least: float = -math.inf) -> tuple[float, float]:
    """Return the ends of an interval, finite, in order, around the figure and not far out."""
    value = estimate.value
    reach = abs(value) * (_FARTHEST - 1)
    low = estimate.low if math.isfinite(estimate.low) else value
    high = estimate.high if math.isfinite(estimate.high) else value
    return max(min(low, value), value - reach, least), min(max(high, value), value + reach)


def _svg(findings: Findings, points: Sequence[Point], limits: dict[str, float], which: str, frame: Frame) -> Markup:
    axes = _axes(points, limits, frame, lower=findings.lower_is_better)
    title = f"plot-{frame.name}-title"
    return element(
        "svg",
        element("title", f"{findings.metric} against latency {which}; the same figures stand in the table", id=title),
        _grid(axes, findings.metric, which),
        _budget(axes, limits),
        _front(points, axes),
        *(_whiskers(point, axes) for point in points),
        *(_bubble(point, axes) for point in points),
        *_texts(points, axes, limits),
        viewBox=f"0 0 {frame.width:g} {frame.height:g}", role="group", aria_labelledby=title,
    )  # fmt: skip


def _grid(axes: Axes, metric: str, which: str) -> Markup:
    frame, drawn = axes.frame, []
    bottom = frame.height - frame.bottom
    for tick in axes.x.ticks():
        at = axes.x(tick)
        drawn.append(element("line", x1=at, x2=at, y1=frame.top, y2=bottom, class_="grid"))
        shown = wording.milliseconds(tick)
        drawn.append(element("text", shown, x=at, y=bottom + 18, text_anchor="middle", class_="tick"))
    for tick in axes.y.ticks():
        at = axes.y(tick)
        drawn.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=at, y2=at, class_="grid"))
        drawn.append(element("text", f"{tick:.4g}", x=frame.left - 8, y=at + 4, text_anchor="end", class_="tick"))
    middle = (frame.left + frame.width - frame.right) / 2
    axis = f"latency {which} per item"
    drawn.append(element("text", axis, x=middle, y=frame.height - 8, text_anchor="middle", class_="axis"))
    upwards = f"↑ {wording.cut(metric, 30)}{', less is better' if axes.upside_down else ''}"
    drawn.append(element("text", upwards, x=4, y=14, class_="axis"))
    return element("g", *drawn, aria_hidden="true")


def _budget(axes: Axes, limits: dict[str, float]) -> Markup | None:
    """Draw the limits as lines, and tint where both hold."""
    if not limits:
        return None
    left, right, top, bottom = axes.frame.edges
    to = axes.x(limits["latency"]) if "latency" in limits else right
    at = axes.y(limits["quality"]) if "quality" in limits else bottom
    drawn = [element("rect", x=left, y=top, width=max(to - left, 0), height=max(at - top, 0), class_="kept")]
    if "quality" in limits:
        drawn.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="limit"))
    if "latency" in limits:
        drawn.append(element("line", x1=to, x2=to, y1=top, y2=bottom, class_="limit"))
    return element("g", *drawn, aria_hidden="true")


def _words(axes: Axes, limits: dict[str, float], bubbles: Sequence[Box]) -> tuple[list[Markup], list[Box]]:
    """Write what the limits are, and return where; drawn after the bubbles, which would hide it."""
    left, right, top, _ = axes.frame.edges
    drawn, taken = [], []
    if "latency" in limits:
        said, at = f"budget ≤ {wording.milliseconds(limits['latency'])}", axes.x(limits["latency"])
        anchor = "start" if at < right - 110 else "end"
        drawn.append(element("text", said, x=at, y=top - 7, text_anchor=anchor, class_="limit-text"))
    if "quality" in limits:
        sign = "≤" if axes.upside_down else "≥"
        said, at = f"budget {sign} {wording.share(limits['quality'])}", axes.y(limits["quality"])
        places = [(right - 4, at + 14, "end"), (right - 4, at - 5, "end"), (left + 4, at + 14, "start")]
        place = min(places, key=lambda each: sum(text_box(said, each).shared(bubble) for bubble in bubbles))
        taken.append(text_box(said, place))
        drawn.append(element("text", said, x=place[0], y=place[1], text_anchor=place[2], class_="limit-text"))
    return drawn, taken


def _front(points: Sequence[Point], axes: Axes) -> Markup | None:
    """Draw the front as stairs: between two of its points nothing better was found."""
    front = sorted((axes.x(p.latency.value), -axes.y(p.quality.value)) for p in points if p.on_front)
    if len(front) < 2:
        return None
    path = f"M{front[0][0]:.2f} {-front[0][1]:.2f}"
    path += "".join(f" H{x:.2f} V{-y:.2f}" for x, y in front[1:])
    return element("path", d=path, class_="front-line", aria_hidden="true")


def _whiskers(point: Point, axes: Axes) -> Markup | None:
    """Draw both intervals, unless the point is put at the edge, where they would mean nothing."""
    if _below(point, axes):
        return None
    x, y = axes.x(point.latency.value), axes.y(point.quality.value)
    left, right = (axes.x(end) for end in _whisker(point.latency, least=_LEAST_MS))
    low, high = (axes.y(end) for end in _whisker(point.quality))
    return joined(
        element("line", x1=left, x2=right, y1=y, y2=y, class_=f"whisker {point.role}") if right - left > 1 else None,
        element("line", x1=x, x2=x, y1=low, y2=high, class_=f"whisker {point.role}") if abs(low - high) > 1 else None,
    )


def _below(point: Point, axes: Axes) -> bool:
    return point.quality.value > axes.y.high if axes.upside_down else point.quality.value < axes.y.low


def _bubble(point: Point, axes: Axes) -> Markup:
    """Draw a bubble with its rank; it leads to its row of the table, and tells its figures when pointed at."""
    x, y, radius = axes.x(point.latency.value), axes.y(point.quality.value), axes.radius(point.size_bytes)
    classes = " ".join(["bubble", point.role, *(["predicted"] if point.predicted else [])])
    if point.role == "baseline":
        corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
        shape = element("polygon", points=" ".join(f"{a:.2f},{b:.2f}" for a, b in corners))
    else:
        shape = element("circle", cx=x, cy=y, r=radius)
    number = element("text", str(point.rank), x=x, y=y + 3.5, text_anchor="middle") if point.rank else None
    arrow = None
    if _below(point, axes):
        tip = min(y + radius + 8, axes.frame.height - axes.frame.bottom - 1)
        arrow = element(
            "path", d=f"M{x - 4:.2f} {tip - 5:.2f} L{x:.2f} {tip:.2f} L{x + 4:.2f} {tip - 5:.2f}", class_="arrow"
        )
    target = f"#candidate-{point.rank}" if point.rank else "#baseline"
    told = element("title", f"{point.told} (below the plot)" if arrow else point.told)
    return element("a", told, shape, number, arrow, href=target, class_=classes, data_rank=str(point.rank))


def _texts(points: Sequence[Point], axes: Axes, limits: dict[str, float]) -> list[Markup]:
    """Write the limits, name the baseline and the chosen one, and of the front those whose names have room."""
    boxes = {
        point.rank: Box.around(axes.x(point.latency.value), axes.y(point.quality.value), axes.radius(point.size_bytes))
        for point in points
    }
    words, taken = _words(axes, limits, list(boxes.values()))
    most = 34 if axes.frame is WIDE else 16
    named = sorted((p for p in points if p.role != "other"), key=lambda p: (p.role == "front", p.rank))
    texts = {p.rank: wording.cut(f"baseline: {p.name}" if p.role == "baseline" else p.name, most) for p in named}
    left, right, top, bottom = axes.frame.edges
    important = {p.rank for p in named if p.role != "front"}
    placed = place_labels(texts, important, boxes, taken, Box(left, top, right, bottom))
    roles = {point.rank: point.role for point in points}
    labels = [
        element(
            "text", texts[rank], x=x, y=y, text_anchor=anchor, class_=f"label {roles[rank]}", aria_hidden="true"
        )
        for rank, (x, y, anchor) in placed.items()
    ]  # fmt: skip
    return [*words, *labels]


def _legend(points: Sequence[Point], limits: dict[str, float]) -> list[Markup]:
    roles = {point.role for point in points}
    shown = [
        ("chosen", "chosen", "chosen" in roles),
        ("front", "on the Pareto front: nothing is both better and faster", "front" in roles),
        ("other", "measured", "other" in roles),
        ("baseline", "baseline", "baseline" in roles),
        ("predicted", "predicted, not measured", any(point.predicted for point in points)),
        ("kept", "within the budget's limits of this plot", bool(limits)),
    ]
    swatches = [element("span", element("i", class_=f"swatch {role}"), text) for role, text, there in shown if there]
    text = (
        "The area of a bubble grows with the bytes on disk, lines through it are 95 % intervals, "
        "numbers lead to the table."
    )
    return [element("span", *swatches, class_="legend"), element("span", text, class_="note")]
