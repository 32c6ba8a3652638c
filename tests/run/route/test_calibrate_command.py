"""`skerry calibrate`, `check` and `run` on a project whose stage may ask a cloud, as the command line calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.cli.main import main
from tests.system.parts import write_build, write_onnx

from .cloud import CloudServer, as_json, cloud_server

WORDS = {"failure": "disk failed error", "login": "user logged session", "install": "package installed upgraded"}
FILE = """\
skerry: 1
name: triage
models:
  m: {{from: "onnx:x"}}
source: file://lines.txt
stages:
  - classify:
      id: sort
      model: m
      labels: {labels}
      temperature: 0.5
      cloud:
        url: {url}
        data: {data}
        max_quality_loss: 0.05
        {more}
sinks: ["jsonl://out.jsonl"]
privacy: {{{privacy}}}
"""


@pytest.fixture
def cloud() -> Iterator[CloudServer]:
    def say(_path: str, body: Any) -> Any:
        first = body["text"].split()[0]
        return as_json({"label": next(label for label, words in WORDS.items() if first in words), "score": 0.95})

    with cloud_server() as server:
        server.answer = say
        yield server


def write(folder: Path, url: str, *, data: str = "texts.txt", privacy: str = "text: public", more: str = "") -> Path:
    labels = "{failure: disk failed error, login: user logged session, install: package installed upgraded}"
    (folder / "pipeline.yaml").write_text(
        FILE.format(url=url, data=data, privacy=privacy, more=more or "timeout: 5s", labels=labels)
    )
    return folder


def texts(count: int) -> list[str]:
    """Return texts that name what they are about, every tenth of them so that the local side cannot see it."""
    words = list(WORDS.values())
    hard = [" ".join((words * 2)[turn + place].split()[0] for place in range(3)) for turn in range(3)]
    easy = [f"{group} {group} number {number}" for number in range(count) for group in words]
    return [hard[number % len(hard)] if number % 10 == 9 else easy[number] for number in range(count)]


@pytest.fixture
def project(tmp_path: Path, cloud: CloudServer) -> Path:
    write_build(tmp_path, "triage", write_onnx(tmp_path / "m.onnx"))
    (tmp_path / "texts.txt").write_text("\n".join(texts(240)) + "\n")
    (tmp_path / "lines.txt").write_text("\n".join(texts(60)) + "\n")
    return write(tmp_path, cloud.url())


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_threshold_is_measured_written_down_and_used(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(project), "--json"]) == 115
    assert "skerry calibrate" in capsys.readouterr().out

    assert main(["calibrate", str(project), "--json"]) == 0
    (found,) = said(capsys)["calibrated"]
    assert found["kind"] == "disagreement" and found["count"] == 240
    assert found["loss"] <= found["bound"] <= 0.05 and 0 < found["local_share"] < 1
    assert set(found["digests"]) == {"local", "stage", "cloud", "data", "remote"}
    assert found["curve"] and found["made"] >= "2026"
    assert (project / ".skerry" / "triage" / "calibration" / "sort.json").is_file()

    assert main(["run", str(project), "--json"]) == 0
    route = next(stage for stage in said(capsys)["stages"] if stage["id"] == "sort")["route"]
    assert route["items"] == 60 and route["answered"] + sum(route["local"].values()) == 60
    assert route["answered"] > 0 and route["local"]["sure"] > 0
    by = [json.loads(line)["answered_by"] for line in (project / "out.jsonl").read_text().splitlines()]
    assert by.count("cloud") == route["answered"]


def test_the_closing_words_tell_who_answered(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(project)]) == 0
    assert "local answers with a margin of at least" in capsys.readouterr().out
    assert main(["run", str(project)]) == 0
    told = capsys.readouterr().out
    assert "asked elsewhere" in told and "answers by the cloud" in told and "both ways" in told


def test_right_answers_make_the_loss_a_signed_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"text": text, "label": next(k for k, v in WORDS.items() if text.split()[0] in v)} for text in texts(240)]
    (project / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write(project, read_url(project), data="texts.jsonl")
    assert main(["calibrate", str(project), "--json", "--loss", "4%", "--certainty", "95%"]) == 0
    (found,) = said(capsys)["calibrated"]
    assert (found["kind"], found["max_quality_loss"], found["certainty"]) == ("signed", 0.04, 0.95)
    assert main(["run", str(project), "--json"]) == 0  # it is stricter than the file, and serves


def test_a_right_answer_that_no_side_could_give_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides would be wrong at each, so that nothing would seem to be lost by never asking."""
    write(project, read_url(project), data="texts.jsonl")
    for wrong in ("Install", 3, None):
        lines = [{"text": text, "label": wrong} for text in texts(240)]
        (project / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
        assert main(["calibrate", str(project)]) == 10
        told = capsys.readouterr().err
        assert "is none of the stage's" in told and "failure, login, install" in told
    assert not (project / ".skerry" / "triage" / "calibration").exists()


def read_url(project: Path) -> str:
    line = next(line for line in (project / "pipeline.yaml").read_text().splitlines() if "url:" in line)
    return line.split(": ", 1)[1]


def test_too_few_texts_are_refused_with_the_number_that_is_missing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "texts.txt").write_text("\n".join(texts(20)))
    assert main(["calibrate", str(project)]) == 116
    told = capsys.readouterr().err
    assert "20 texts are too few" in told and "more" in told
    assert not (project / ".skerry" / "triage" / "calibration").exists()


def test_a_laxer_wish_than_the_file_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(project), "--loss", "0.5"]) == 2
    assert main(["calibrate", str(project), "--certainty", "50%"]) == 2
    assert main(["calibrate", str(project), "--stage", "other"]) == 2
    assert main(["calibrate", str(project), "--loss", "2"]) == 2
    capsys.readouterr()


def test_a_cloud_that_does_not_answer_is_no_calibration(
    project: Path, cloud: CloudServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.run.route.comparison._PAUSE_S", 0.0)
    cloud.answer = lambda _path, _body: (200, "text/html", b"<html>")
    assert main(["calibrate", str(project)]) == 115
    assert "captive portal" in capsys.readouterr().err


def test_a_calibration_for_other_data_is_stale(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(project)]) == 0
    (project / "texts.txt").write_text("\n".join(texts(300)))
    assert main(["run", str(project)]) == 115
    assert "stale" in capsys.readouterr().err


PLACE = "pipeline.yaml:12:7"


@pytest.mark.parametrize(
    ("privacy", "more", "words"),
    [
        ("", "", ("does not say whether it may", "public", PLACE)),
        ("texts: public", "", ("does not say", "texts", PLACE)),
        ("text: personal", "", ("never be asked", "redact", PLACE)),
        ("text: public", "timeout: 0s", ("above 0",)),
        ("text: public", "offlne: queue", ("offlne", "offline")),
        ("text: public", "money_per_day: 3", ("cost",)),
        ("text: public", "money_per_day: .nan\n        cost: {request: 1}", ("finite",)),
        ("text: public", "money_per_day: 1\n        cost: {request: .nan}", ("finite",)),
        ("text: public", "redact: [name]", ("name",)),
    ],
)
def test_check_refuses_what_may_not_leave_and_says_where(
    project: Path, capsys: pytest.CaptureFixture[str], privacy: str, more: str, words: tuple[str, ...]
) -> None:
    write(project, read_url(project), privacy=privacy, more=more)
    assert main(["check", str(project)]) == 10
    told = capsys.readouterr().err
    assert all(word in told for word in words), told


MAPS = "  - map: {set: {text: 'message + \"!\"'}}\n"
COPIES = "  - map: {set: {copy: message}}\n  - map: {set: {text: copy}}\n"


@pytest.mark.parametrize(
    ("stages", "code"),
    [
        (MAPS, 10), (COPIES, 10), ("  - redact: {fields: [copy]}\n" + COPIES, 10),
        ("  - redact: {fields: [message]}\n" + COPIES, 0), ("  - redact: {}\n" + MAPS, 0),
        (COPIES + "  - redact: {fields: [text]}\n", 0), ("""  - map: {set: {text: '"message"'}}\n""", 0),
    ],
)  # fmt: skip
def test_what_is_made_of_a_personal_field_is_no_more_public_than_that(
    project: Path, capsys: pytest.CaptureFixture[str], stages: str, code: int
) -> None:
    write(project, read_url(project), privacy="text: public, message: personal")
    file = project / "pipeline.yaml"
    file.write_text(file.read_text().replace("stages:\n", "stages:\n" + stages))
    assert main(["check", str(project)]) == code
    told = capsys.readouterr().err
    assert code == 0 or "'text' is made of 'message', which is personal" in told


@pytest.mark.parametrize("more", ["redact: [email]", "consent: agreed"])
def test_check_takes_what_may_leave_and_warns_of_a_missing_calibration(
    project: Path, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    write(project, read_url(project), privacy="text: personal", more=more)
    assert main(["check", str(project)]) == 0
    told = capsys.readouterr().out
    assert "skerry calibrate" in told


@pytest.mark.parametrize("url", ["http://cloud.example/x", "ftp://127.0.0.1/x", "nonsense"])
def test_check_refuses_a_url_that_will_not_do(project: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    write(project, url)
    assert main(["check", str(project)]) == 10
    assert "pipeline.yaml:13" in capsys.readouterr().err


def test_a_stage_without_a_model_cannot_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pipeline.yaml").write_text(
        "skerry: 1\nname: a\nsource: 'memory:'\nstages: [{filter: {expression: 'true', cloud: {url: 'https://x/y'}}}]\n"
    )
    assert main(["check", str(tmp_path)]) == 10
    assert "cannot ask a cloud" in capsys.readouterr().err


def test_a_project_without_a_cloud_has_nothing_to_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pipeline.yaml").write_text("skerry: 1\nname: a\nsource: 'memory:'\n")
    assert main(["calibrate", str(tmp_path)]) == 2
    assert "has no `cloud`" in capsys.readouterr().err
