"""The example hybrid-triage: edge and cloud through a shaped link, with its own pipeline file and texts."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.main import main
from skerry.spec.summary import RunSummary
from skerry.testing.shaped_link import ShapedLink
from tests.examples.conftest import EXAMPLES, LEFT_OUT, Copy, Running, edit, free_port, read_lines
from tests.run.route.cloud import CloudServer, as_json, cloud_server
from tests.system import parts

Start = Callable[..., Running]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the texts of the example, collected once."""
    folder = tmp_path_factory.mktemp("texts") / "data"
    runpy.run_path(str(EXAMPLES / "hybrid-triage" / "prepare.py"))["write_texts"](folder)
    return folder


@pytest.fixture
def prepared(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the example with its texts, and in the place of the small model one that nobody trained."""
    example = tmp_path / "hybrid-triage"
    shutil.copytree(
        EXAMPLES / "hybrid-triage", example, ignore=shutil.ignore_patterns("small", "data", ".skerry", "out")
    )
    shutil.copytree(texts, example / "data")
    monkeypatch.setattr(parts, "DIMENSION", 256)
    parts.write_build(example, "hybrid-triage", parts.write_onnx(tmp_path / "m.onnx"))
    edit(example / ".skerry" / "hybrid-triage" / "manifest.json", ('"m"', '"small"'))
    return example


def knowing(example: Path) -> Callable[[str, Any], Any]:
    """Return a cloud that knows the right answer to every text to calibrate on, and guesses the others."""
    known = {line["text"]: line["label"] for line in read_lines(example / "data" / "calibrate.jsonl")}

    def say(path: str, body: Any) -> Any:
        if not path.endswith("/infer"):
            return as_json({"name": "large", "versions": ["1"], "outputs": [{"name": "label"}, {"name": "score"}]})
        texts = body["inputs"][0]["data"]
        labels = [known.get(text, "network") for text in texts]
        return as_json({"outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [len(texts)], "data": labels},
            {"name": "score", "datatype": "FP32", "shape": [len(texts)], "data": [0.9] * len(texts)},
        ]})  # fmt: skip

    return say


def run(example: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run it, and return the closing object and what it says of the route."""
    assert main(["run", str(example), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    balance = msgspec.convert(found, RunSummary, strict=False)
    assert not balance.imbalance()
    return found, found["stages"][1]["route"]


def test_it_answers_here_and_there_and_follows_up(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with cloud_server() as cloud:
        cloud.answer = knowing(prepared)
        with ShapedLink(("127.0.0.1", cloud.port), rate_bits_per_s=20e6, round_trip_s=0.01) as link:
            edit(
                prepared / "pipeline.yaml", ("8087", str(link.port)), ("max_quality_loss: 2%", "max_quality_loss: 10%")
            )
            assert main(["check", str(prepared)]) == 0
            assert main(["calibrate", str(prepared)]) == 0
            assert link.sent > 100_000  # 2,000 texts
            capsys.readouterr()

            link.mode("refused")  # the boat does not come
            link.reset()
            found, route = run(prepared, capsys)
            assert found["items_in"] == 600 and route["answered"] == 0
            assert route["local"]["sure"] > 0 and route["waiting"] > 0
            first = read_lines(prepared / "out" / "sorted.jsonl")
            assert len(first) == 600 and {row["answered_by"] for row in first} == {"local"}

            link.mode("open")  # and now it does
            found, route = run(prepared, capsys)
            assert found["items_in"] == 0 and found["emitted"] == route["revised"] > 0
            later = read_lines(prepared / "out" / "sorted.jsonl")[600:]
            ids = {row["answer_id"]: row["text"] for row in first if row["answer_id"]}
            assert {row["answer_id"]: row["text"] for row in later}.items() <= ids.items()
            assert {(row["revision"], row["answered_by"]) for row in later} == {(1, "cloud")}


@pytest.mark.soak
def test_it_does_what_its_readme_says_in_under_two_minutes(copy: Copy, start: Start) -> None:
    example = copy("hybrid-triage")
    port = str(free_port())
    edit(example / "pipeline.yaml", ("8087", port))
    build = start("-m", "skerry", "build", example / "cloud")
    assert build.process.wait(110) == 0, build.err
    cloud = start(example / "cloud.py", "--port", port)
    cloud.await_text(cloud._out, "the cloud is at")
    calibrate = start("-m", "skerry", "calibrate", example, "--json")
    assert calibrate.process.wait(110) == 0, calibrate.err
    (evidence,) = json.loads(calibrate.out)["calibrated"]
    assert (evidence["kind"], evidence["count"]) == ("signed", 2000)
    assert evidence["bound"] <= 0.02 and 0.05 < evidence["local_share"] < 1

    found = start("-m", "skerry", "run", example, "--json").result()
    route = found["stages"][1]["route"]
    assert route["items"] == found["items_in"] == 600
    assert 0 < route["answered"] < 600 and 0 < route["agreed"] <= route["answered"]
    assert 0 < route["bytes"] < 20e6 and 0 < route["money"] < 1
    rows = read_lines(example / "out" / "sorted.jsonl")
    assert sum(row["answered_by"] == "cloud" for row in rows) == route["answered"]
    cloud.process.terminate()
    assert cloud.process.wait(30) == 0
    assert re.search(r"over the link: [\d,]+ bytes there", cloud.out)


def test_what_leaves_is_redacted(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps({"text": "mail ada@example.org about the broken socket"})
    (prepared / "data" / "to-sort.jsonl").write_text(text + "\n")
    with cloud_server() as cloud:
        cloud.answer = knowing(prepared)
        edit(prepared / "pipeline.yaml", ("8087", str(cloud.port)), ("max_quality_loss: 2%", "max_quality_loss: 10%"))
        assert main(["calibrate", str(prepared)]) == 0
        (prepared / ".skerry" / "hybrid-triage" / "drift").touch()  # so that it is asked for
        capsys.readouterr()
        _, route = run(prepared, capsys)
        assert route["alarmed"] and route["answered"] == 1
    sent = sent_texts(cloud)
    assert "mail [email] about the broken socket" in sent and not [one for one in sent if "ada@" in one]


def sent_texts(cloud: CloudServer) -> list[str]:
    """Return every text that came to the cloud."""
    return [text for path, body in cloud.asked if path.endswith("/infer") for text in body["inputs"][0]["data"]]


def test_the_copies_leave_out_what_is_prepared() -> None:
    assert LEFT_OUT("", [".skerry", "out"]) == {".skerry", "out"}
