"""Models that cannot be used: missing, damaged, or with tensors that text does not give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Skerry, Write
from .parts import write_build, write_null, write_onnx, write_tokenizer

PIPELINE = (
    "name: bad\nsource: {from: 'memory:', items: [{text: one two}, {text: three}, {text: ''}]}\n"
    "models: {m: {from: x}}\nstages:\n  - STAGE\nsinks: [{to: 'jsonl://out.jsonl', fields: [text]}]\n"
)
EMBED = PIPELINE.replace("STAGE", "embed: {model: m}")


def read_nothing(folder: Path) -> bool:
    """Tell whether nothing was read: no answers, no positions."""
    return not list(folder.rglob("positions.json*")) and not (folder / "out.jsonl").exists()


def test_a_real_model_works(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    """What the other tests break is whole to begin with."""
    write_build(tmp_path, "bad", write_onnx(tmp_path / "m.onnx"))
    done = skerry("run", pipeline(EMBED), "--json")
    assert (done.code, done.found["items_out"], done.found["runtime"]) == (0, 3, "onnxruntime"), done.stderr
    done.balances()


def test_a_model_that_was_not_built(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    skerry("run", pipeline(EMBED), "--json").refuses(21, "not built yet", "manifest.json", "skerry build")
    assert read_nothing(tmp_path)


def test_a_model_whose_file_is_gone(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    write_build(tmp_path, "bad", write_null(tmp_path / "m.null.json")).unlink()
    skerry("run", pipeline(EMBED), "--json").refuses(21, "m.null.json", "skerry build")
    assert read_nothing(tmp_path)


def test_a_source_of_a_model_that_is_missing(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a\nb\n")
    path = pipeline(EMBED.replace("from: x", "from: none.onnx, data: {evaluate: texts.txt}"))
    skerry("build", path, "--json").refuses(21, "none.onnx")
    assert not (tmp_path / ".skerry" / "bad" / "manifest.json").exists()


def test_a_source_of_a_model_that_is_corrupt(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{one} {other} c\n" for one in "abcdefgh" for other in "abcdefgh"))
    write_tokenizer(tmp_path / "tokenizer.json")
    whole = write_onnx(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
    path = pipeline(EMBED.replace("from: x", "from: m.onnx, data: {evaluate: texts.txt}"))
    skerry("build", path, "--json").refuses(22, "m.onnx")
    assert not (tmp_path / ".skerry" / "bad" / "manifest.json").exists()


@pytest.mark.parametrize("harm", ["a flipped byte", "cut off", "emptied"])
def test_a_file_that_is_not_what_was_built(harm: str, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    file = write_build(tmp_path, "bad", write_onnx(tmp_path / "m.onnx"))
    whole = file.read_bytes()
    flipped = whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:]
    file.write_bytes({"a flipped byte": flipped, "cut off": whole[:1000], "emptied": b""}[harm])
    done = skerry("run", pipeline(EMBED), "--json")
    done.refuses(22, "m.onnx")
    done.balances()
    assert read_nothing(tmp_path)


@pytest.mark.parametrize("content", [b"\x08\x09\x12\x04junk" * 50, b"", b"{}"], ids=["junk", "empty", "JSON"])
def test_a_file_that_never_was_a_model(content: bytes, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    write_build(tmp_path, "bad", tmp_path / "m.onnx")
    done = skerry("run", pipeline(EMBED), "--json")
    assert done.code in {22, 23}, done.stderr
    done.refuses(done.code, "m.onnx")
    assert read_nothing(tmp_path)


def test_a_manifest_that_is_damaged(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    file = write_build(tmp_path, "bad", write_null(tmp_path / "m.null.json"))
    (file.parent / "manifest.json").write_bytes((file.parent / "manifest.json").read_bytes()[:40])
    skerry("run", pipeline(EMBED), "--json").refuses(22, "manifest.json", "skerry build")
    assert read_nothing(tmp_path)


def test_inputs_that_text_does_not_give(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    write_build(tmp_path, "bad", write_onnx(tmp_path / "m.onnx", {"input_ids": "pixels"}))
    done = skerry("run", pipeline(EMBED), "--json")
    done.refuses(23, "pixels", "input_ids", "m.onnx")
    done.balances()
    assert read_nothing(tmp_path)


@pytest.mark.parametrize("policy", ["drop", "stop", "dead_letter"])
def test_an_output_that_the_model_does_not_have(policy: str, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    write_build(tmp_path, "bad", write_onnx(tmp_path / "m.onnx"))
    stage = f"infer: {{model: m, outputs: [last_hiden_state], on_error: {policy}}}"
    path = pipeline(PIPELINE.replace("STAGE", stage) + "dead_letter: jsonl://dead.jsonl\n")
    done = skerry("run", path, "--json")
    done.balances()
    if policy == "stop":
        done.refuses(50, "last_hiden_state", "last_hidden_state")
    else:
        assert done.code == 0, done.stderr
        assert done.stage("infer")["reasons"] == {"failed": {"TensorError": 3}}
    if policy == "dead_letter":
        dead = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
        assert [row["text"] for row in dead] == ["one two", "three", ""]
        assert all("last_hidden_state" in row["_error"] for row in dead)
