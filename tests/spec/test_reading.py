"""Reading a pipeline file: what is wrong is placed by line and column, with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.spec.document import parse_document
from skerry.spec.errors import GraphError, SpecError, SpecMissingError
from skerry.spec.reading import Project, project_from, read_project

HEAD = """\
skerry: 1
name: test
source: tail:///var/log/x
models: {m: {from: a}}
"""


def read(text: str) -> Project:
    return project_from(parse_document(text, "p.yaml"), Path("/home/p.yaml"))


def test_a_whole_file_becomes_entries_and_a_graph() -> None:
    project = read(
        HEAD
        + """\
deadline: 200ms
dead_letter: jsonl://dead.jsonl
stages:
  - parse: {regex: 'a'}
  - filter: "score > 0.5"
  - classify:
      model: m
      on_error: dead_letter
      batch: 4
  - use: mine:function
    with: {limit: 3}
    workers: 2
sinks:
  - stdout:
  - {to: "sqlite:///s.db", fields: [label], queue: {items: 10, policy: drop_oldest}}
"""
    )
    assert [entry.id for entry in project.stages] == ["parse", "filter", "classify", "function"]
    assert project.stages[1].options == "score > 0.5"
    assert project.stages[2].common.batch == 4
    assert project.stages[2].options == {"model": "m"}
    assert project.stages[3].options == {"limit": 3}
    assert project.stages[3].common.workers == 2
    assert [entry.uri for entry in project.sinks] == ["stdout:", "sqlite:///s.db"]
    assert project.sinks[1].common.queue is not None
    assert project.graph.order == ("tail-in", "parse", "filter", "classify", "function", "stdout-out", "sqlite-out")
    assert project.graph.feeds["function"] == ("stdout-out", "sqlite-out")
    assert project.release_folder == Path("/home/.skerry/test")


WRONG = {
    "a unit": (
        "deadline: 200 parsecs",
        "p.yaml:5:11: deadline is '200 parsecs'",
        "a time with a unit",
    ),
    "a typo": ("deadlin: 1s", "p.yaml:5:1: unknown key 'deadlin'", "did you mean 'deadline'?"),
    "a choice": (
        "stages:\n  - parse: {regex: a, on_error: retri}",
        "p.yaml:6:33: stages[0].parse.on_error is 'retri'",
        "did you mean 'retry'?",
    ),
    "a number": ("stages:\n  - parse: {workers: two}", "stages[0].parse.workers is 'two'", "a whole number"),
    "no model": ("stages:\n  - classify: {model: n}", "p.yaml:6:23: there is no model 'n'", "one of m"),
    "two kinds": ("stages:\n  - parse: {}\n    filter: {}", "p.yaml:7:5: a stage has one kind", "one key"),
    "no dead letter": ("stages:\n  - parse: {on_error: dead_letter}", "which is not declared", "dead_letter: jsonl"),
    "no function": ("stages:\n  - use: mine", "use: 'mine' names no function", "module:function"),
    "a taken id": ("stages:\n  - parse: {id: a}\n  - parse: {id: a}", "the id 'a' is taken", "an id of its own"),
    "a path as id": (
        "stages:\n  - parse: {id: ../../x}",
        "the id '../../x' cannot be a folder name",
        "letters, digits",
    ),
    "no sink": ("sinks: [{too: x}]", "p.yaml:5:9: this is no sink", "`to: URI`"),
    "no gate": ("duty: {awake: 1s, gate: g}\nstages: [parse]", "there is no stage 'g' to be the gate", "one of parse"),
    "two sources": ("sources: [a, b]", "either `source` or `sources`", "source: tail"),
    "a list": ("stages: {parse: {}}", "p.yaml:5:1: stages is {'parse': {}}", "a list"),
    "no YAML": ("stages: [", "this is not YAML", "YAML 1.2"),
    "twice": ("name: again", 'duplicate key "name"', "YAML 1.2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_placed_and_what_is_right_is_said(case: str) -> None:
    text, message, remedy = WRONG[case]
    with pytest.raises(SpecError) as caught:
        read(HEAD + text)
    assert message in str(caught.value)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 10


GRAPHS = {
    "cycle": ("stages:\n- parse: {id: a, after: b}\n- parse: {id: b, after: a}", "the stages form a cycle: b → a → b"),
    "unknown": ("stages:\n- parse: {id: a}\n- parse: {id: b, after: aa}", "b comes after 'aa', which does not exist"),
    "dangling": (
        "stages:\n- parse: {id: a}\n- parse: {id: b, after: tail-in}\nsinks: [{to: 'stdout:', after: a}]",
        "b leads nowhere",
    ),
    "twice": ("stages:\n- parse: {id: a}\n- parse: {id: b, after: [a, a]}", "b takes the same node twice"),
    "itself": ("stages:\n- parse: {id: a, after: a}", "the stages form a cycle: a → a"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_does_not_hold_together_is_refused(case: str) -> None:
    text, message = GRAPHS[case]
    with pytest.raises(GraphError) as caught:
        read(HEAD + text)
    assert message in str(caught.value)
    assert caught.value.exit_code == 12


def test_sinks_take_the_leaves_of_the_stages() -> None:
    project = read(
        HEAD
        + "stages:\n- parse: {id: a}\n- parse: {id: b}\n- parse: {id: c, after: a}\n"
        + "sinks: [stdout, {to: 'stdout:', after: a}]"
    )
    assert project.graph.takes["stdout-out"] == ("b", "c")
    assert project.graph.takes["stdout-out-2"] == ("a",)


def test_a_file_that_is_not_there_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(SpecMissingError, match="skerry init") as caught:
        read_project(tmp_path)
    assert caught.value.exit_code == 11
    (tmp_path / "pipeline.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8"):
        read_project(tmp_path)
    (tmp_path / "pipeline.yaml").write_text("")
    with pytest.raises(SpecError, match="empty"):
        read_project(tmp_path)


def test_yaml_words_of_another_age_stay_words() -> None:
    assert read("skerry: 1\nname: no\nsource: 'a:b'").name == "no"
