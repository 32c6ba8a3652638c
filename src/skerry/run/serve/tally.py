"""The tally: what a server did, in plain numbers, and as OpenMetrics text.

Source: the OpenMetrics specification 1.0. All of it is counted by the server's own thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the latency buckets: from half of a small encoder's time to where nobody waits any more."""
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
Labels = Mapping[str, str]


class Buckets:
    """A histogram with fixed upper ends."""

    __slots__ = ("counts", "ends", "total")

    def __init__(self, ends: Sequence[float]) -> None:
        self.ends = ends
        self.counts = [0] * (len(ends) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.ends, value)] += 1
        self.total += value


class ModelTally:
    """What one model was asked, and how long it took."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        """How many requests ended, by door (``oip``, ``openai``, ``grpc``) and HTTP status."""
        self.latency = Buckets(SECONDS)
        """Seconds from the whole request being there to its answer."""
        self.waiting = Buckets(SECONDS)
        """Seconds before the run that answered began."""
        self.batches = Buckets(ROWS)
        """Rows of each run."""
        self.expired = 0
        """Requests whose deadline passed before they were run."""
        self.cancelled = 0
        """Requests whose client left before they were run."""

    def count(self, door: str, status: int, seconds: float) -> None:
        """Count one request that ended."""
        key = (door, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.latency.add(seconds)


class Gauges:
    """What a model holds at the moment: rows that wait, requests without an answer."""

    __slots__ = ("in_flight", "queued")

    def __init__(self, queued: int, in_flight: int) -> None:
        self.queued = queued
        self.in_flight = in_flight


def render(
    tallies: Mapping[str, ModelTally],
    gauges: Mapping[str, Gauges],
    *,
    ready: bool,
    connections: int,
    refused: Mapping[int, int],
    process: Mapping[str, float],
) -> str:
    """Write everything as OpenMetrics text, ended by ``# EOF``; ``refused`` counts requests that met no model."""
    names = list(tallies)
    families = [
        _family("skerry_serve_ready", "gauge", "Whether requests are welcome.", [_line({}, int(ready))]),
        _family("skerry_serve_connections", "gauge", "Open HTTP connections.", [_line({}, connections)]),
        _family(
            "skerry_serve_refused", "counter", "Requests that met no model, by status.",
            [_line({"status": str(status)}, count, "_total") for status, count in refused.items()],
        ),
        _family(
            "skerry_serve_requests", "counter", "Requests that ended, by door and status.",
            [
                _line({"model": name, "door": door, "status": str(status)}, count, "_total")
                for name in names for (door, status), count in tallies[name].requests.items()
            ],
        ),
        _histograms("skerry_serve_request_seconds", "From request to answer.", "seconds", tallies, "latency"),
        _histograms("skerry_serve_queue_seconds", "Before the run began.", "seconds", tallies, "waiting"),
        _histograms("skerry_serve_batch_rows", "Rows of a run.", "", tallies, "batches"),
        _family(
            "skerry_serve_expired", "counter", "Requests whose deadline passed before they were run.",
            [_line({"model": name}, tallies[name].expired, "_total") for name in names],
        ),
        _family(
            "skerry_serve_cancelled", "counter", "Requests whose client left before they were run.",
            [_line({"model": name}, tallies[name].cancelled, "_total") for name in names],
        ),
        _family(
            "skerry_serve_queued_rows", "gauge", "Rows that wait for a model.",
            [_line({"model": name}, gauges[name].queued) for name in names],
        ),
        _family(
            "skerry_serve_in_flight", "gauge", "Requests without an answer yet.",
            [_line({"model": name}, gauges[name].in_flight) for name in names],
        ),
        *_process(process),
    ]  # fmt: skip
    return "".join(families) + "# EOF\n"


def _process(process: Mapping[str, float]) -> Iterator[str]:
    memory = [_line({}, process["resident_bytes"])] if "resident_bytes" in process else []
    yield _family("process_resident_memory_bytes", "gauge", "Memory of the process in RAM.", memory, "bytes")
    busy = [_line({}, process["cpu_seconds"], "_total")] if "cpu_seconds" in process else []
    yield _family("process_cpu_seconds", "counter", "CPU time of the process, user and system.", busy, "seconds")


def _histograms(name: str, note: str, unit: str, tallies: Mapping[str, ModelTally], field: str) -> str:
    lines: list[str] = []
    for model, tally in tallies.items():
        buckets: Buckets = getattr(tally, field)
        seen = 0
        for end, count in zip((*map(repr, buckets.ends), "+Inf"), buckets.counts, strict=True):
            seen += count
            lines.append(_line({"model": model, "le": end}, seen, "_bucket"))
        lines += (_line({"model": model}, seen, "_count"), _line({"model": model}, buckets.total, "_sum"))
    return _family(name, "histogram", note, lines, unit)


def _family(name: str, kind: str, note: str, lines: Iterable[str], unit: str = "") -> str:
    """Write one metric family, or nothing when it has no samples."""
    body = "".join(f"{name}{line}" for line in lines)
    if not body:
        return ""
    return f"# TYPE {name} {kind}\n" + (f"# UNIT {name} {unit}\n" if unit else "") + f"# HELP {name} {note}\n" + body


def _line(labels: Labels, value: float, ending: str = "") -> str:
    pairs = ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items())
    return f"{ending}{{{pairs}}} {value!r}\n" if pairs else f"{ending} {value!r}\n"


def _escape(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
