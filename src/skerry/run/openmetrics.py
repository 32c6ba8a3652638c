"""OpenMetrics: a run's summary as text that Prometheus and its kin read, and the small server that hands it out.

Source: the OpenMetrics specification 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from skerry.spec.errors import UsageError
from skerry.spec.summary import LOSSES, Counts, Percentiles, RunSummary, StageSummary

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = Mapping[str, str | None]
Sample = tuple[str, Labels, float | None]
"""The ending of the sample's name, its labels, and its value; ``None`` for one that was not measured."""

STATUSES = ("running", "asleep", "done", "failed")


def render(summary: RunSummary, process: Mapping[str, float] | None = None) -> str:
    """Write a summary as OpenMetrics text.

    Parameters
    ----------
    summary:
        The run so far.
    process:
        ``resident_bytes`` and ``cpu_seconds`` of this process, where they are known.

    Returns
    -------
    str
        Families in a fixed order, ended by ``# EOF``. Latencies are in seconds, sizes in bytes, energy in joules.
    """
    families = [*_whole(summary), *_stages(summary.stages), *_models(summary), *_process(process or {})]
    return "".join(families) + "# EOF\n"


def process_load() -> dict[str, float]:
    """Return the memory and the CPU time of this process: ``resident_bytes`` and ``cpu_seconds``."""
    import psutil

    here = psutil.Process()
    times = here.cpu_times()
    return {"resident_bytes": float(here.memory_info().rss), "cpu_seconds": times.user + times.system}


def _whole(summary: RunSummary) -> Iterator[str]:
    names = {"pipeline": summary.pipeline, "release": summary.release, "model": summary.model}
    labels = {**names, "runtime": summary.runtime}
    yield _family("skerry_run", "info", "The pipeline, and the release that runs.", [("_info", labels, 1)])
    states = [("", {"skerry_run_status": name}, float(summary.status == name)) for name in STATUSES]
    yield _family("skerry_run_status", "stateset", "What the run does now.", states)
    yield counter("skerry_items_read", "Items that came in from all sources.", [({}, summary.items_in)])
    yield counter("skerry_items_emitted", "Records that stages made beyond those they took.", [({}, summary.emitted)])
    fates = [({"fate": fate}, count) for fate, count in _fates(summary)]
    yield counter("skerry_items", "Items by the fate that they met in the end.", fates)
    yield gauge("skerry_items_in_flight", "Items that have met no fate yet.", [({}, summary.in_flight)])
    yield _quantiles("skerry_item_latency", "From reading an item to its last fate.", [({}, summary.latency_ms)])
    yield gauge("skerry_ladder_rung", "The rung of the degrade ladder; 0 is the best variant.", [({}, summary.rung)])
    yield counter("skerry_run_seconds", "Time since the start.", [({}, summary.wall_s)], unit="seconds")
    yield counter("skerry_awake_seconds", "Time in which the pipeline was awake.", [({}, summary.awake_s)], "seconds")
    yield counter("skerry_energy_joules", "Energy used, where a counter exists.", [({}, summary.energy_j)], "joules")


def _stages(stages: Iterable[StageSummary]) -> Iterator[str]:
    stages = list(stages)
    taken = [(_node(stage), stage.items_in) for stage in stages]
    yield counter("skerry_records_in", "Records that came into a source, stage or sink.", taken)
    emitted = [(_node(stage), stage.emitted) for stage in stages if stage.emitted]
    yield counter("skerry_records_emitted", "Records that a stage sent on beyond those it took.", emitted)
    ends = [({**_node(stage), **labels}, count) for stage in stages for labels, count in _reasons(stage)]
    yield counter("skerry_records", "Records by fate and, for losses, by reason.", ends)
    waiting = [(_node(stage), stage.in_flight) for stage in stages]
    yield gauge("skerry_records_in_flight", "Records that are in a stage or wait for it.", waiting)
    latencies = [(_node(stage), stage.latency_ms) for stage in stages]
    yield _quantiles("skerry_stage_latency", "Time inside a stage.", latencies)
    restarts = [(_node(stage), stage.restarts) for stage in stages]
    yield counter("skerry_stage_restarts", "How often a source, stage or sink was brought up again.", restarts)
    yield from _queues(stages)
    yield from _routes(stages)
    counts = [({"sink": one.id, "name": name}, count) for one in stages for name, count in one.counters.items()]
    if counts:
        yield gauge("skerry_sink_counts", "What a sink counts of its own, such as what a hub acknowledged.", counts)


def _routes(stages: Iterable[StageSummary]) -> Iterator[str]:
    """Who answered at stages that may ask a cloud; nothing where there are none."""
    routes = [({"stage": stage.id}, stage.route) for stage in stages if stage.route is not None]
    if not routes:
        return
    answers: list[tuple[dict[str, str], int]] = []
    for node, route in routes:
        answers.append(({**node, "by": "cloud", "reason": "hard"}, route.answered))
        answers.append(({**node, "by": "cache", "reason": "hard"}, route.cached))
        answers += [({**node, "by": "local", "reason": reason}, count) for reason, count in route.local.items()]
    yield counter("skerry_route_answers", "Answers by who gave them, and why.", answers)
    faults = [({**node, "reason": reason}, count) for node, route in routes for reason, count in route.faults.items()]
    yield counter("skerry_route_faults", "Exchanges with a cloud that gave no answer.", faults)
    traffic = [(node, route.bytes) for node, route in routes]
    yield counter("skerry_route_bytes", "Bytes to and from a cloud, about.", traffic, "bytes")
    money = [(node, route.money) for node, route in routes]
    yield counter("skerry_route_money", "What asking cost, in the money of the file.", money)
    waiting = [(node, route.waiting) for node, route in routes]
    yield gauge("skerry_route_waiting", "Records that wait for a better answer.", waiting)
    alarmed = [(node, int(route.alarmed)) for node, route in routes]
    yield gauge("skerry_route_alarmed", "Whether drift is suspected, and no local answer counts as sure.", alarmed)


def _queues(stages: Iterable[StageSummary]) -> Iterator[str]:
    queues = [(_node(stage), stage.queue) for stage in stages if stage.queue is not None]
    items = [({**node, "policy": queue.policy}, queue.items) for node, queue in queues]
    yield gauge("skerry_queue_items", "Records that wait before a stage.", items)
    room = [(node, queue.max_items) for node, queue in queues]
    yield gauge("skerry_queue_limit_items", "Records that a queue can hold.", room)
    held = [(node, queue.bytes) for node, queue in queues]
    yield gauge("skerry_queue_bytes", "Bytes, as read, that wait before a stage.", held, unit="bytes")
    bytes_room = [(node, queue.max_bytes) for node, queue in queues]
    yield gauge("skerry_queue_limit_bytes", "Bytes, as read, that a queue can hold.", bytes_room, unit="bytes")


def _models(summary: RunSummary) -> Iterator[str]:
    models = summary.models
    infos: list[Sample] = [
        ("_info", {"model": name, "variant": state.variant, "runtime": state.runtime, "shadow": state.shadow}, 1)
        for name, state in models.items()
    ]
    yield _family("skerry_model", "info", "The variant of each model that answers now.", infos)
    swaps = [({"model": name}, state.swaps) for name, state in models.items()]
    yield counter("skerry_model_swaps", "How often a model's variant was swapped.", swaps)
    shadowed = {name: state for name, state in models.items() if state.shadow is not None}
    seen = [({"model": name}, state.shadow_items) for name, state in shadowed.items()]
    yield counter("skerry_shadow_items", "Items that the shadow variant answered too.", seen)
    agreement = [({"model": name}, state.shadow_agreement) for name, state in shadowed.items()]
    yield gauge("skerry_shadow_agreement_ratio", "Mean cosine of the shadow's answers and the used ones.", agreement)


def _process(process: Mapping[str, float]) -> Iterator[str]:
    resident, busy = process.get("resident_bytes"), process.get("cpu_seconds")
    yield gauge("process_resident_memory_bytes", "Memory of the process in RAM.", [({}, resident)], unit="bytes")
    yield counter("process_cpu_seconds", "CPU time of the process, user and system.", [({}, busy)], "seconds")


def _node(stage: StageSummary) -> dict[str, str | None]:
    return {"stage": stage.id, "kind": stage.kind, "role": stage.role}


def _fates(counts: Counts) -> list[tuple[str, int]]:
    return [("out", counts.items_out), *((fate.value, getattr(counts, fate.value)) for fate in LOSSES)]


def _reasons(stage: StageSummary) -> Iterator[tuple[dict[str, str | None], int]]:
    """Yield each fate's count split by reason; what has no reason stands under an empty one."""
    for fate, count in _fates(stage):
        reasons = dict(stage.reasons.get(fate, {}))
        rest = count - sum(reasons.values())
        if rest > 0 or not reasons:
            reasons[""] = reasons.get("", 0) + rest
        for reason, share in reasons.items():
            yield {"fate": fate, "reason": reason}, share


def counter(name: str, note: str, values: Iterable[tuple[Labels, float | None]], unit: str = "") -> str:
    """Write one counter: values that only rise, with their labels; ``None`` for one that was not measured."""
    return _family(name, "counter", note, [("_total", labels, value) for labels, value in values], unit)


def gauge(name: str, note: str, values: Iterable[tuple[Labels, float | None]], unit: str = "") -> str:
    """Write one gauge: values of now, with their labels; ``None`` for one that was not measured."""
    return _family(name, "gauge", note, [("", labels, value) for labels, value in values], unit)


def _quantiles(name: str, note: str, values: Iterable[tuple[Labels, Percentiles]]) -> str:
    """Write latencies in milliseconds as a summary in seconds."""
    samples: list[Sample] = []
    for labels, found in values:
        for quantile, value in (("0.5", found.p50), ("0.99", found.p99)):
            samples.append(("", {**labels, "quantile": quantile}, None if value is None else value / 1e3))
    return _family(f"{name}_seconds", "summary", note, samples, "seconds")


def _family(name: str, kind: str, note: str, samples: Iterable[Sample], unit: str = "") -> str:
    """Write one metric family, or nothing when none of its samples was measured."""
    lines = [
        f"{name}{ending}{_labels(labels)} {_number(value)}\n" for ending, labels, value in samples if value is not None
    ]
    if not lines:
        return ""
    head = f"# TYPE {name} {kind}\n" + (f"# UNIT {name} {unit}\n" if unit else "")
    return f"{head}# HELP {name} {_escape(note)}\n" + "".join(lines)


def _labels(labels: Labels) -> str:
    pairs = [f'{name}="{_escape(value)}"' for name, value in labels.items() if value is not None]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(text: str) -> str:
    # A lone surrogate, which a name read from a damaged file can hold, has no form in UTF-8.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)


class MetricsServer:
    """A small HTTP server in a thread of its own: ``/metrics`` for collectors, ``/healthz`` for supervisors.

    ``/healthz`` answers 200 while the pipeline runs, sleeps or is done, and 503 after it failed.

    Parameters
    ----------
    summary:
        Called for every request; returns the run so far.
    address:
        Where to listen; the default is this machine only.
    port:
        0 takes any free port, told by :attr:`url`.

    Raises
    ------
    UsageError
        The address or port cannot be listened on.
    """

    def __init__(self, summary: Callable[[], RunSummary], *, address: str = "127.0.0.1", port: int = 0) -> None:
        from http.server import ThreadingHTTPServer

        try:
            self._server = ThreadingHTTPServer((address, port), _handler(summary))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen on {address}:{port} for metrics: {error}",
                expected="an address of this machine and a free port",
                hint="--metrics-port 0 takes any free one",
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="skerry-metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the metrics."""
        host, port = self._server.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}/metrics"

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _handler(summary: Callable[[], RunSummary]) -> type[BaseHTTPRequestHandler]:
    """Return a request handler class that answers from ``summary``."""
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10  # seconds a client may be silent, so that idle ones do not pile up threads
        server_version = "skerry"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE, render(summary(), process_load()))
            elif path == "/healthz":
                status = summary().status
                self._answer(503 if status == "failed" else 200, "text/plain; charset=utf-8", f"{status}\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", "there are /metrics and /healthz\n")

        def _answer(self, code: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing: a collector asks every few seconds."""

    return Handler
