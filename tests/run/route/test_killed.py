"""A run that is killed while hard records wait: every first answer that a sink holds gets its revision."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from skerry.cli.main import main
from skerry.testing.shaped_link import ShapedLink
from tests.system.parts import write_build, write_onnx

from .cloud import HARD, LABELS, as_json, cloud_server

PIPELINE = """\
skerry: 1
name: killed
models: {{m: {{from: "onnx:x"}}}}
source: file://lines.txt
stages:
  - classify:
      id: sort
      model: m
      labels: {labels}
      cloud:
        url: http://127.0.0.1:{port}/x
        data: texts.txt
        offline: queue
        breaker: {{failures: 1, pause: 200ms}}
sinks: ["jsonl://out.jsonl"]
sync: 10ms
privacy: {{text: public}}
"""
WAIT_S = 60.0


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def test_no_better_answer_is_lost_when_the_run_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_build(tmp_path, "killed", write_onnx(tmp_path / "m.onnx"))
    easy = list(LABELS.values()) * 60
    (tmp_path / "texts.txt").write_text("\n".join(easy))
    (tmp_path / "lines.txt").write_text("\n".join(f"{HARD} {number}" for number in range(20_000)))
    with cloud_server() as cloud, ShapedLink(("127.0.0.1", cloud.port)) as link:
        known = {text: label for label, text in LABELS.items()}
        cloud.answer = lambda _path, body: as_json({"label": known.get(body["text"], "login")})
        (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(labels=json.dumps(LABELS), port=link.port))
        assert main(["calibrate", str(tmp_path)]) == 0
        (tmp_path / ".skerry" / "killed" / "drift").touch()  # so that all of them are hard
        link.mode("refused")
        link.reset()
        words = [sys.executable, "-m", "skerry", "run", str(tmp_path), "--quiet"]
        with subprocess.Popen(words, start_new_session=True) as run:
            ends = time.monotonic() + WAIT_S
            while len(rows(tmp_path / "out.jsonl")) < 50:
                assert time.monotonic() < ends and run.poll() is None
                time.sleep(0.01)
            os.killpg(run.pid, signal.SIGKILL)
        first = {row["answer_id"] for row in rows(tmp_path / "out.jsonl")}
        assert len(first) >= 50 and None not in first

        link.mode("open")
        (tmp_path / "lines.txt").write_text("")
        assert main(["run", str(tmp_path), "--json"]) == 0
    route = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"][1]["route"]
    revised = {row["answer_id"] for row in rows(tmp_path / "out.jsonl") if row["revision"] == 1}
    assert first <= revised and route["waiting"] == 0
