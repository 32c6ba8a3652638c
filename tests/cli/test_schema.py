"""The JSON Schema takes what Skerry takes, and refuses what Skerry refuses."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.init import TEMPLATES, write_project
from skerry.cli.schema import pipeline_schema
from skerry.cli.typeschema import key_notes, plain_value
from skerry.spec.document import load_document, parse_document
from skerry.spec.plugins import plugins
from skerry.spec.reading import project_from
from skerry.spec.units import Bound, Duration, Share, Size

from .conftest import Skerry

ROOT = Path(__file__).parents[2]
GOOD: dict[str, Any] = {
    "skerry": 1,
    "name": "whole",
    "sources": ["tail:///var/log/syslog", {"from": "sys:", "every": "200ms", "queue": {"policy": "latest"}}],
    "models": {"m": {"from": "pkg://m", "budget": {"quality": {"min": 0.9}, "size": "25 MB", "latency_p99": "10ms"}}},
    "deadline": "200 ms",
    "stages": [
        "pass",
        {"parse": "(?P<a>x)"},
        {"redact": None},
        {"filter": {"expression": "a > 1", "on_error": "stop", "id": "kept"}},
        {"classify": {"model": "m", "labels": ["yes", "no"], "batch": 4, "after": ["kept"]}},
        {"use": "mine:function", "with": {"limit": 3}, "workers": 2, "process": True},
    ],
    "sinks": ["stdout:", {"stdout": None}, {"to": "sqlite:///x.db?table=a", "max_size": "3MB", "fields": ["a"]}],
    "ladder": {"temperature": "70C", "battery": 0.3},
    "duty": {"awake": "3s", "every": "5min"},
    "privacy": {"a": "personal"},
}


def errors(document: Any) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: it is in the dev group")
    schema = pipeline_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    change(document)
    return document


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "a time without a unit": lambda file: file.update(deadline="200"),
    "a time with the unit of a size": lambda file: file.update(deadline="200MB"),
    "an unknown key": lambda file: file.update(nam="x"),
    "no name": lambda file: file.pop("name"),
    "another version": lambda file: file.update(skerry=2),
    "source and sources": lambda file: file.update(source="sys:"),
    "an unknown stage": lambda file: file["stages"].append({"prase": "x"}),
    "an unknown option": lambda file: file["stages"].append({"filter": {"expresion": "x"}}),
    "a stage that needs options": lambda file: file["stages"].append("parse"),
    "two kinds in one stage": lambda file: file["stages"].append({"pass": None, "redact": None}),
    "an unknown sink": lambda file: file["sinks"].append("stdot:"),
    "an unknown option of a sink": lambda file: file["sinks"].append({"to": "sqlite://x", "tabel": "x"}),
    "an unknown policy": lambda file: file["sources"][1]["queue"].update(policy="drop"),
    "a source that comes after something": lambda file: file["sources"][1].update(after="x"),
    "a share above one": lambda file: file["ladder"].update(battery=1.5),
    "a model from nowhere": lambda file: file["models"].update(other={}),
    "a privacy level that is none": lambda file: file["privacy"].update(a="secret"),
}


def test_what_is_right_is_taken_by_both() -> None:
    project_from(parse_document(json.dumps(GOOD)), ROOT / "pipeline.yaml")
    assert errors(GOOD) == []


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused(what: str) -> None:
    assert errors(changed(WRONG[what]))


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_starter_is_valid(template: str, tmp_path: Path) -> None:
    write_project(tmp_path, template)
    assert errors(load_document(tmp_path / "pipeline.yaml").data) == []


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/*/pipeline*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_every_example_is_valid(path: Path) -> None:
    assert errors(load_document(path).data) == []


def documented() -> list[tuple[str, str]]:
    """Return every whole pipeline that a page shows."""
    pages = [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    blocks = [
        (page.name, block)
        for page in pages
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S)
    ]
    return [(name, block) for name, block in blocks if block.lstrip().startswith("skerry: 1")]


@pytest.mark.parametrize(
    ("page", "text"), documented(), ids=[f"{name}-{n}" for n, (name, _) in enumerate(documented())]
)
def test_every_pipeline_in_the_documentation_is_valid(page: str, text: str) -> None:
    assert errors(parse_document(text, page).data) == []


def test_the_command_prints_it(skerry: Skerry) -> None:
    done = skerry("schema")
    assert done.returncode == 0
    assert done.stderr == "", "every built-in plugin can be imported"
    assert json.loads(done.stdout) == json.loads(json.dumps(pipeline_schema()))


def test_every_plugin_is_in_it() -> None:
    kinds = pipeline_schema()["$defs"]["stage"]["anyOf"][1]["properties"]
    assert kinds.keys() == plugins("skerry.stages").keys()


def test_what_cannot_be_imported_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from skerry.spec import plugins as registry

    broken = EntryPoint(name="broken", value="no_such_module:Stage", group="skerry.stages")
    found = {**plugins("skerry.stages"), "broken": broken}
    original = registry.plugins
    monkeypatch.setattr(registry, "plugins", lambda group: found if group == "skerry.stages" else original(group))
    left_out: list[str] = []
    schema = pipeline_schema(lambda name, why: left_out.append(name))
    assert left_out == ["stage broken"]
    assert "broken" not in schema["$defs"]["stage"]["anyOf"][1]["properties"]


def test_defaults_are_written_as_users_write_them() -> None:
    values = [Duration(0.2), Duration(10.0), Duration(300.0), Size(64e6), Size(2**20), Share(0.05), Bound(">=", 0.95)]
    assert [plain_value(value) for value in values] == ["200ms", "10s", "5m", "64MB", "1MiB", "5%", ">= 0.95"]


def test_every_default_in_the_schema_is_valid_itself() -> None:
    pytest.importorskip("jsonschema", reason="jsonschema is not installed: it is in the dev group")
    import jsonschema

    schema = pipeline_schema()
    checked = 0
    for part in _parts(schema):
        if "default" in part:
            checked += 1
            jsonschema.Draft202012Validator({**part, "$defs": schema["$defs"]}).validate(part["default"])
    assert checked > 50


def _parts(schema: Any) -> list[dict[str, Any]]:
    """Return every mapping in a schema."""
    inner = list(schema.values()) if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    return ([schema] if isinstance(schema, dict) else []) + [part for value in inner for part in _parts(value)]


def test_what_a_key_is_for_comes_from_the_class() -> None:
    class Example(msgspec.Struct):
        """An example.

        Parameters
        ----------
        on, off:
            Where it switches,
            and back.
        """

        on: int
        off: int
        other: int
        """Said after the key."""

    assert key_notes(Example) == {
        "on": "Where it switches, and back.", "off": "Where it switches, and back.", "other": "Said after the key."
    }  # fmt: skip
