"""The other side for real: `skerry serve` in a process of its own, asked in each of its protocols."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.spec.record import Record
from tests.system.parts import write_build, write_onnx

from .cloud import HARD, LABELS, a_cloud, routed_stage

PIPELINE = """\
skerry: 1
name: cloud
models: {{m: {{from: "onnx:x"}}}}
source: "memory:"
stages: [{{classify: {{model: m, labels: {labels}}}}}]
sinks: ["memory:"]
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the server, and return where it is."""
    folder = tmp_path_factory.mktemp("cloud")
    (folder / "pipeline.yaml").write_text(PIPELINE.format(labels=json.dumps(LABELS)))
    write_build(folder, "cloud", write_onnx(folder / "m.onnx"))
    words = [sys.executable, "-m", "skerry", "serve", str(folder), "--port", "0", "--json", "--linger", "0s"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"].rstrip("/")
        server.terminate()


@pytest.mark.parametrize(("path", "model"), [("/v2/models/m", ""), ("/v1/embeddings", "m")])
def test_labels_come_from_a_served_model(tmp_path: Path, url: str, path: str, model: str) -> None:
    with routed_stage(tmp_path, a_cloud(url + path, model=model, timeout="20s"), threshold=2.0) as stage:
        records = [Record({"text": text}) for text in (HARD, *LABELS.values())]
        stage.process_batch(records)
        assert {record.fields["answered_by"] for record in records} == {"cloud"}
        assert {record.fields["label"] for record in records} <= set(LABELS)
        assert all(0 <= record.fields["score"] <= 1 for record in records)
        state = stage.route.state()
        assert state.answered == 4 and not state.faults


def test_vectors_come_from_a_served_model_too(tmp_path: Path, url: str) -> None:
    cloud = a_cloud(f"{url}/v2/models/m", timeout="20s")
    with routed_stage(tmp_path, cloud, embeds=True, dimension=8) as stage:
        record = Record({"text": HARD})
        stage.process(record)
        assert record.fields["embedding"].shape == (8,) and record.fields["answered_by"] == "cloud"


def test_a_model_that_is_not_served_is_a_counted_fault(tmp_path: Path, url: str) -> None:
    with routed_stage(tmp_path, a_cloud(f"{url}/v2/models/other", timeout="20s")) as stage:
        record = Record({"text": HARD})
        stage.process(record)
        assert record.fields["answered_by"] == "local"
        assert list(stage.route.state().faults) == ["status_404"]
