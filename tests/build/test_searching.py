"""A search of a whole project: a small real encoder, real trials, a release that runs, and its reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skerry.build.cache import Cache
from skerry.build.findings import read_json
from skerry.build.model_search import Wish
from skerry.build.progress import Progress
from skerry.build.searching import Searched, missing_toolchains, search_project
from skerry.build.texts import own_texts
from skerry.run.models import open_models, read_manifest
from skerry.spec.errors import ModelKindError
from skerry.spec.reading import read_project
from tests.build.conftest import write_model

PIPELINE = """\
skerry: 1
name: small
source: "memory:"
models:
  tiny:
    from: model
    data: {calibrate: texts.txt}
    budget: {quality: {metric: agreement@10, min: 0.2}}
stages:
  - embed: {model: tiny}
sinks: ["memory:"]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_model(folder / "model")
    (folder / "texts.txt").write_text("\n".join(own_texts(most=120).lines))
    (folder / "pipeline.yaml").write_text(PIPELINE)
    return folder


def search(project: Path) -> Searched:
    wish = Wish(seconds=12.0, toolchains=False)
    return search_project(read_project(project), Cache(project / "cache"), Progress(None), wish)


def test_a_search_makes_a_release_that_answers_and_reports(project: Path) -> None:
    found = search(project)
    findings = found.models["tiny"]
    assert findings.chosen is not None
    [command] = findings.environment.commands
    assert "--threads" not in command
    assert "--prune" not in command
    assert {used.split for used in findings.environment.texts} == {"calibrate", "select", "report"}
    manifest = read_manifest(project / ".skerry" / "small")
    assert [variant.technique for variant in manifest.models["tiny"].variants] == list(findings.ladder)
    models = open_models(project / ".skerry" / "small", manifest, read_project(project).pipeline.models)
    for variant in manifest.models["tiny"].variants:
        models["tiny"].swap(variant.name)
        assert models("tiny").embed(["one", "two"]).shape == (2, 32)
    models.close()
    reports = project / ".skerry" / "small" / "reports" / "tiny"
    assert read_json((reports / "report.json").read_bytes()) == findings
    assert "<svg" in (reports / "report.html").read_text()
    assert "model-index" in (reports / "README.md").read_text()


def test_what_was_made_for_short_texts_is_not_taken_for_long_ones(project: Path) -> None:
    longest = search(project).models["tiny"]
    manifest = read_manifest(project / ".skerry" / "small").models["tiny"]
    file = project / "pipeline.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("from: model", "from: model\n    max_tokens: 8"))
    try:
        assert file.read_text() != whole
        shorter = search(project).models["tiny"]
        assert read_manifest(project / ".skerry" / "small").models["tiny"].max_tokens == 8 < manifest.max_tokens
    finally:
        file.write_text(whole)
    assert {each.digest for each in shorter.candidates}.isdisjoint(each.digest for each in longest.candidates)


def test_a_second_search_measures_nothing_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = search(project)

    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("it was measured again")

    monkeypatch.setattr("skerry.build.measuring.Trials", refuse)
    second = search(project)
    assert second.models["tiny"].chosen == first.models["tiny"].chosen
    assert not second.changed or json.loads((project / ".skerry/small/manifest.json").read_text())


def test_a_null_model_has_nothing_to_search_for(tmp_path: Path) -> None:
    from skerry.runtimes.null import NullModel, write_null_model

    write_null_model(tmp_path / "a.null.json", NullModel(dimension=8))
    text = PIPELINE.replace("from: model", "from: a.null.json\n    task: 'null'").replace("calibrate: texts.txt", "")
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(ModelKindError, match="nothing to search for"):
        search(tmp_path)


def test_toolchains_that_are_not_there_are_named_and_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKERRY_CACHE", str(tmp_path / "cache"))
    assert {"litert", "openvino"} <= set(missing_toolchains(("convert", "quantize")))
    assert not (tmp_path / "cache").exists()
