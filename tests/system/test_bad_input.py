"""Bad input in the files of a project: each is refused before anything runs, with what, where and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Skerry, Write
from .parts import write_build, write_null

HEAD = "name: bad\nsource: memory:?count=3\n"


def nothing_ran(folder: Path) -> bool:
    """Tell whether neither answers nor positions were written."""
    return not (folder / "out.jsonl").exists() and not list(folder.rglob("positions.json*"))


def test_an_unknown_stage(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(HEAD + "stages:\n  - clasify: {labels: [a, b]}\nsinks: [jsonl://out.jsonl]\n")
    skerry("run", path, "--json").refuses(10, "clasify", "classify", "pipeline.yaml:5:")
    assert nothing_ran(tmp_path)


def test_a_cyclic_graph(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    stages = "stages:\n  - pass: {id: a, after: b}\n  - pass: {id: b, after: a}\n"
    skerry("run", pipeline(HEAD + stages + "sinks: [jsonl://out.jsonl]\n"), "--json").refuses(
        12, "pipeline.yaml:", "a", "b"
    )
    assert nothing_ran(tmp_path)


def test_a_stage_after_nothing(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(HEAD + "stages:\n  - pass: {after: prase}\nsinks: ['memory:']\n")
    skerry("run", path, "--json").refuses(12, "prase", "pipeline.yaml:5:")


@pytest.mark.parametrize(
    "stage",
    [
        "hysteresis: {workers: 2, field: n, on: 2, off: 1}",
        "debounce: {workers: 2, holds: n > 1, count: 2}",
        "standardize: {workers: 2, fields: [n]}",
        "anomaly: {workers: 2, fields: [n]}",
        "resample: {workers: 2, fields: [n], every: 1s}",
        "window: {workers: 2, fields: [n], items: 2}",
    ],
)
def test_several_workers_for_a_stage_that_remembers(
    stage: str, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(HEAD + f"stages:\n  - {stage}\nsinks: [jsonl://out.jsonl]\n")
    name = stage.partition(":")[0]
    skerry("check", path, "--json").refuses(10, f"{name} keeps", "workers: 1", "pipeline.yaml:5:")
    assert nothing_ran(tmp_path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("# nothing but a remark\n", "is empty", id="a remark"),
        pytest.param("[]\n", "there are no labels", id="no labels"),
        pytest.param("just words\n", "holds a", id="a text"),
        pytest.param("a: [b\n", "labels.yaml:", id="no YAML"),
        pytest.param("\ud800", "cannot be read", id="no UTF-8"),
        pytest.param(None, "cannot be read", id="missing"),
    ],
)
def test_a_label_file_that_is_none(
    labels: str | None, said: str, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    write_build(tmp_path, "bad", write_null(tmp_path / "m.null.json"))
    if labels is not None:
        (tmp_path / "labels.yaml").write_bytes(labels.encode("utf-8", "surrogatepass"))
    path = pipeline(
        HEAD + "models: {m: {from: x}}\nstages:\n  - classify: {model: m, labels: labels.yaml}\n"
        "sinks: [jsonl://out.jsonl]\n"
    )
    done = skerry("run", path, "--json")
    done.refuses(25, said, "labels.yaml")
    done.balances()
    assert done.found["items_in"] == 0
    assert not (tmp_path / "out.jsonl").exists() or not (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(bytes(range(256)) * 40, "not UTF-8", id="binary"),
        pytest.param(b"skerry: 1\0name: x", "not YAML", id="a NUL"),
        pytest.param(b"skerry: 1\nname: x\nstages: " + b"- pass\n" * 200_000, "too large", id="huge"),
        pytest.param(b"skerry: 1\nname: " + b"[" * 600, "nested too deeply", id="open brackets"),
        pytest.param(b"skerry: 1\nname: " + b"[" * 150 + b"]" * 150, "nested too deeply", id="deep"),
        pytest.param(b"name: x\n- y\n", "not YAML", id="no YAML"),
        pytest.param(b"skerry: 2\nname: x\nsource: 'memory:'\n", "skerry is 2", id="of another version"),
    ],
)
def test_a_pipeline_file_that_is_none(content: bytes, said: str, skerry: Skerry, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_bytes(content)
    skerry("run", tmp_path, "--json").refuses(10, said, "pipeline.yaml", "expected: ")


def test_a_pipeline_file_without_an_end(skerry: Skerry) -> None:
    skerry("run", "/dev/zero", "--json").refuses(10, "too large")


@pytest.mark.parametrize("target", ["pipeline.yaml", "pipeline.yaml/pipeline.yaml", "none", "x" * 300])
def test_a_pipeline_file_that_is_not_there(target: str, skerry: Skerry, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").mkdir()
    skerry("run", target, "--json").refuses(11, target, "expected: ")
    skerry("run", tmp_path, "--json").refuses(11, "pipeline.yaml")


def laughs() -> str:
    """Return the billion laughs: nine lists of nine aliases each."""
    lists = ["l0: &l0 [" + "lol, " * 9 + "]"]
    lists += [f"l{depth}: &l{depth} [" + f"*l{depth - 1}, " * 9 + "]" for depth in range(1, 9)]
    return "\n".join(lists) + "\n"


def merges() -> str:
    """Return mappings that each hold the one before twice, and merge it twice."""
    lines = ["k0: &k0 {a: 1}"]
    lines += [f"k{n}: &k{n} {{l: *k{n - 1}, r: *k{n - 1}, <<: [*k{n - 1}, *k{n - 1}]}}" for n in range(1, 30)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("bomb", [laughs(), merges()], ids=["lists", "merged mappings"])
def test_aliases_that_multiply_end_quickly(bomb: str, skerry: Skerry, pipeline: Write) -> None:
    skerry("run", pipeline(f"name: x\n{bomb}"), "--json").refuses(10, "stands for more than", "aliases")


def test_aliases_and_merged_keys_that_are_meant(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(
        HEAD + "stages:\n  - filter: &rule {expression: index != 1}\n  - filter: {<<: *rule, id: again}\n"
        "sinks: ['memory:']\n"
    )
    done = skerry("run", path, "--json")
    assert done.code == 0, done.stderr
    done.balances()
    assert (done.found["items_out"], done.found["filtered"]) == (2, 1)


def test_a_wrong_value_in_what_was_merged_is_placed(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(HEAD + "stages:\n  - pass: &rule {wrokers: 2}\n  - pass: {<<: *rule, id: b}\nsinks: ['memory:']\n")
    skerry("run", path, "--json").refuses(10, "wrokers", "pipeline.yaml:5:")
