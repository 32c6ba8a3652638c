"""OpenMetrics: text that a strict parser takes, and the server that hands it out."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.openmetrics import CONTENT_TYPE, MetricsServer, process_load, render
from skerry.spec.errors import UsageError
from skerry.spec.summary import ModelState, Percentiles, QueueState, RunSummary, StageSummary

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
SAMPLE = re.compile(rf"(?P<name>{NAME})(?P<labels>\{{{LABEL}(?:,{LABEL})*\}})? (?P<value>[0-9.e+-]+|NaN|[+-]Inf)")
ENDINGS = {
    "counter": {"_total"}, "gauge": {""}, "info": {"_info"}, "stateset": {""}, "summary": {""},
}  # fmt: skip
COUNTS = st.integers(min_value=0, max_value=10**12)
NAMES = st.text(max_size=12)


def check_grammar(text: str) -> dict[str, float]:
    """Check OpenMetrics text against what the specification says of families; return its samples by name and labels."""
    assert text.endswith("# EOF\n")
    samples: dict[str, float] = {}
    families: set[str] = set()
    family, kind = "", ""
    for line in text.removesuffix("# EOF\n").split("\n")[:-1]:
        if line.startswith("# TYPE "):
            family, kind = line.split(" ")[2:]
            assert family not in families, "families stand together"
            families.add(family)
        elif line.startswith("# UNIT "):
            assert line.split(" ")[2] == family
            assert family.endswith("_" + line.split(" ")[3])
        elif line.startswith("# HELP "):
            assert line.split(" ")[2] == family
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found["name"].removeprefix(family) in ENDINGS[kind]
            key = found["name"] + (found["labels"] or "")
            assert key not in samples, "no sample is there twice"
            samples[key] = float(found["value"])
    return samples


def strict(text: str) -> None:
    """Let the reference parser of Prometheus read it, where it is installed."""
    parser = pytest.importorskip(
        "prometheus_client.openmetrics.parser", reason="prometheus-client is not installed: it is in the dev group"
    )
    list(parser.text_string_to_metric_families(text))


WHOLE = RunSummary(
    pipeline='odd "name"\\\n', release="sha256:1", model="int8", runtime="onnxruntime", items_in=10, items_out=5,
    dropped=3, failed=2, wall_s=1.5, awake_s=1.0, energy_j=0.5, latency_ms=Percentiles(1.0, 2.0),
    models={"m": ModelState(variant="int8", runtime="ort", shadow="fp32", shadow_items=3, shadow_agreement=0.9)},
    stages=[
        StageSummary(
            id="classify", kind="classify", role="stage", items_in=10, items_out=5, dropped=3, failed=2,
            reasons={"dropped": {"queue full": 2}, "failed": {"TensorError": 2}}, latency_ms=Percentiles(1.0, 2.0),
            queue=QueueState(items=1, bytes=2, max_items=3, max_bytes=4, policy="block"), restarts=1,
        ),
        StageSummary(id="out", kind="jsonl", role="sink", items_in=5, items_out=5),
    ],
)  # fmt: skip


@pytest.mark.parametrize("summary", [WHOLE, RunSummary(pipeline="new")], ids=["whole", "new"])
def test_a_strict_parser_takes_it(summary: RunSummary) -> None:
    text = render(summary, process_load())
    check_grammar(text)
    strict(text)


def test_the_numbers_are_those_of_the_summary() -> None:
    samples = check_grammar(render(WHOLE, {"resident_bytes": 5.0, "cpu_seconds": 0.25}))
    stage = 'stage="classify",kind="classify",role="stage"'
    assert samples["skerry_items_read_total"] == 10
    assert samples['skerry_items_total{fate="dropped"}'] == 3
    assert samples[f'skerry_records_total{{{stage},fate="dropped",reason="queue full"}}'] == 2
    assert samples[f'skerry_records_total{{{stage},fate="dropped",reason=""}}'] == 1, "what has no reason is not lost"
    assert samples[f'skerry_stage_latency_seconds{{{stage},quantile="0.99"}}'] == 0.002
    assert samples[f'skerry_queue_items{{{stage},policy="block"}}'] == 1
    assert samples["skerry_energy_joules_total"] == 0.5
    assert samples["process_resident_memory_bytes"] == 5


def test_what_was_not_measured_is_left_out() -> None:
    text = render(RunSummary(pipeline="new"))
    assert not [word for word in ("latency", "energy", "process_", "queue", "None") if word in text]


@st.composite
def summaries(draw: st.DrawFn) -> RunSummary:
    ids = draw(st.lists(NAMES, unique=True, max_size=4))
    stages = [
        StageSummary(
            id=name, kind=draw(NAMES), role="stage", items_in=draw(COUNTS), dropped=draw(COUNTS),
            reasons={"dropped": draw(st.dictionaries(NAMES, COUNTS, max_size=3))},
            latency_ms=Percentiles(draw(st.none() | st.floats(min_value=0, allow_nan=False))),
        )
        for name in ids
    ]  # fmt: skip
    return RunSummary(pipeline=draw(NAMES), release=draw(st.none() | NAMES), stages=stages, items_in=draw(COUNTS))


@given(summaries())
def test_any_names_and_numbers_keep_the_grammar(summary: RunSummary) -> None:
    check_grammar(render(summary))


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    running = MetricsServer(lambda: WHOLE)
    yield running
    running.close()


def get(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_server_hands_it_out(server: MetricsServer) -> None:
    code, kind, text = get(server.url)
    assert (code, kind) == (200, CONTENT_TYPE)
    samples = check_grammar(text)
    assert samples["process_resident_memory_bytes"] > 1e6


def test_it_listens_on_this_machine_only(server: MetricsServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")


def test_other_paths_are_not_found(server: MetricsServer) -> None:
    assert get(server.url.replace("/metrics", "/other"))[0] == 404


@pytest.mark.parametrize(("status", "code"), [("running", 200), ("asleep", 200), ("done", 200), ("failed", 503)])
def test_health_is_the_status(status: str, code: int) -> None:
    server = MetricsServer(lambda: RunSummary(pipeline="x", status=status))  # type: ignore[arg-type]
    try:
        assert get(server.url.replace("/metrics", "/healthz"))[::2] == (code, f"{status}\n")
    finally:
        server.close()


def test_a_port_that_is_taken_is_said(server: MetricsServer) -> None:
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(UsageError, match="cannot listen"):
        MetricsServer(lambda: WHOLE, port=port)


def test_closing_twice_is_no_error() -> None:
    server = MetricsServer(lambda: WHOLE)
    server.close()
    server.close()


def test_every_family_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    families = re.findall(r"^# TYPE (\S+) ", render(WHOLE, process_load()), re.MULTILINE)
    assert len(families) > 20
    assert [name for name in families if f"`{name}`" not in page] == []
