"""Starter projects are valid and run as they are; what is wrong in a file is said with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.cli.init import TEMPLATES, project_name

from .conftest import Skerry

Write = Callable[[str], Path]
SMALL = "skerry: 1\nname: small\nsource: memory:?count=3\nstages: [pass]\nsinks: [memory:]\n"


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_starter_is_valid_and_runs_as_it_is(template: str, skerry: Skerry, tmp_path: Path) -> None:
    made = skerry("init", "starter", "--template", template)
    assert made.returncode == 0, made.stderr
    checked = skerry("check", "starter")
    assert checked.returncode == 0, checked.stderr
    assert "warnings" not in checked.stdout
    ran = skerry("run", "starter", "--for", "3s", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["pipeline"] == "starter"
    assert found["items_in"] >= 5
    assert found["failed"] == found["dropped"] == found["expired"] == 0
    assert list((tmp_path / "starter" / "out").iterdir())


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_model_section_of_a_starter_is_right_too(template: str, skerry: Skerry, tmp_path: Path) -> None:
    """What is commented out must work when somebody takes the comment signs away."""
    skerry("init", "starter", "--template", template)
    path = tmp_path / "starter" / "pipeline.yaml"
    live, _, commented = path.read_text().partition("# models:")
    models, _, stage = ("# models:" + commented).partition("#   - classify:")
    text = live + "".join(line.removeprefix("# ") + "\n" for line in models.splitlines() if line != "#")
    if stage:
        classify = "  - classify:\n" + "".join(line.removeprefix("# ") + "\n" for line in stage.splitlines()[1:])
        text = text.replace("stages:\n", f"stages:\n{classify}", 1)
    path.write_text(text)
    done = skerry("check", "starter", "--json")
    assert done.returncode == 0, done.stderr
    assert [warning["message"] for warning in json.loads(done.stdout)["warnings"]] == ["the models were not built yet"]


def test_init_overwrites_nothing(skerry: Skerry, tmp_path: Path) -> None:
    skerry("init", "starter")
    mine = tmp_path / "starter" / "pipeline.yaml"
    mine.write_text("mine")
    refused = skerry("init", "starter", "--template", "sensor")
    assert refused.returncode == 2
    assert "pipeline.yaml" in refused.stderr
    assert mine.read_text() == "mine"
    assert skerry("init", "starter", "--force").returncode == 0
    assert mine.read_text() != "mine"


def test_init_says_where_it_cannot_write(skerry: Skerry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = skerry("init", "file/below")
    assert done.returncode == 2
    assert "cannot write" in done.stderr


@pytest.mark.parametrize(
    ("folder", "name"), [("my project", "my-project"), ("a.b_c-1", "a.b_c-1"), ("日本", "starter")]
)
def test_a_project_is_named_after_its_folder(folder: str, name: str, tmp_path: Path) -> None:
    assert project_name(tmp_path / folder) == name


def test_check_shows_the_threads(skerry: Skerry, pipeline: Write) -> None:
    done = skerry("check", pipeline(SMALL))
    assert done.returncode == 0
    assert "memory-in → pass" in done.stdout


def test_check_writes_nothing(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    skerry("check", pipeline(SMALL))
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]


def test_check_json_names_every_part(skerry: Skerry, pipeline: Write) -> None:
    found = json.loads(skerry("check", pipeline(SMALL), "--json").stdout)
    assert found["valid"] is True
    assert (found["sources"], found["stages"], found["sinks"]) == (["memory-in"], ["pass"], ["memory-out"])
    assert {name for thread in found["threads"] for name in thread["nodes"]} == {"memory-in", "pass", "memory-out"}


WRONG = {
    "a typo in a key": ("stages: [pass]", "stagse: [pass]", 10, "did you mean 'stages'?", "4:"),
    "an unknown stage": ("[pass]", "[pas]", 10, "did you mean 'pass'?", "4:"),
    "an unknown source": ("memory:?count=3", "memry://x", 10, "did you mean 'memory'?", "3:"),
    "a wrong option": ("stages: [pass]", "stages:\n  - filter: {expresion: x}", 10, "did you mean 'expression'?", "5:"),
    "an expression that is none": ("stages: [pass]", "stages:\n  - filter: 'a >'", 10, "filter", ""),
    "a wrong unit": ("stages: [pass]", "deadline: 3 bananas\nstages: [pass]", 10, "10ms", "4:"),
    "a cycle": (
        "[pass]", "\n  - pass: {id: a, after: b}\n  - pass: {id: b, after: a}", 12, "cycle", "5:"
    ),
    "a model that is not declared": ("[pass]", "\n  - embed: {model: nobody}", 10, "nobody", "5:"),
    "a wrong dead letter": ("stages:", "dead_letter: nowhere://x\nstages:", 10, "nowhere", "4:"),
    "a function that is not there": ("[pass]", "\n  - use: nothing_here:function", 10, "nothing_here", "5:"),
    "a label file that is not there": (
        "[pass]", "\n  - classify: {model: m, labels: nope.yaml}\nmodels: {m: {from: 'pkg://x'}}", 25, "nope.yaml", ""
    ),
    "plain nonsense": (SMALL, "]", 10, "not YAML", "1:"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_its_place(what: str, skerry: Skerry, pipeline: Write) -> None:
    right, wrong, code, said, place = WRONG[what]
    path = pipeline(SMALL.replace(right, wrong))
    done = skerry("check", path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert (f"{path}:{place}" if place else "") in done.stderr


def test_what_may_come_later_is_a_warning(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(
        "skerry: 1\nname: later\nsource: tail://not-yet.log\nsinks: [memory:]\n"
        "models: {m: {from: no-model, data: {evaluate: no-data.jsonl}}}\n"
    )
    done = skerry("check", path, "--json")
    assert done.returncode == 0
    warnings = [warning["message"] for warning in json.loads(done.stdout)["warnings"]]
    assert [word for word in ("not built", "not-yet.log", "no-model", "no-data.jsonl") if word in str(warnings)] == [
        "not built", "not-yet.log", "no-model", "no-data.jsonl"
    ]  # fmt: skip


def test_a_users_function_is_checked_from_its_own_folder(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(SMALL.replace("[pass]", "\n  - use: mine:double\n    with: {times: 3}"))
    (tmp_path / "mine.py").write_text("def double(fields, times): return fields\n")
    assert skerry("check", path).returncode == 0
    (tmp_path / "mine.py").write_text("def double(fields): return fields\n")
    done = skerry("check", path)
    assert done.returncode == 10
    assert "times" in done.stderr


def test_one_of_several_logs_is_enough(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline("skerry: 1\nname: logs\nsource: {from: tail://a.log, also: [logs/*.log]}\nsinks: ['memory:']\n")
    assert "no a.log, nor logs/*.log" in skerry("check", path).stdout
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b.log").write_text("")
    assert "warnings" not in skerry("check", path).stdout


def test_a_file_with_a_dead_letter_is_valid_and_its_options_are_checked(skerry: Skerry, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(SMALL + "dead_letter: jsonl://dead.jsonl\n")
    assert skerry("check", str(path)).returncode == 0
    path.write_text(SMALL + "dead_letter: jsonl://dead.jsonl?rotat=1MB\n")
    refused = skerry("check", str(path))
    assert refused.returncode == 10
    assert "rotate" in refused.stderr
