"""What the system tests are made of: processes of the real command line, what came of them, and small real models."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60
FATES = ("items_out", "filtered", "absorbed", "dropped", "expired", "failed", "in_flight")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnop")]
DIMENSION = 8


class Outcome:
    """How a process ended and what it printed."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def found(self) -> dict[str, Any]:
        """The JSON object: the last line of stdout. (`splitlines` would cut at U+2028 too, which a text may hold.)"""
        found: dict[str, Any] = json.loads(self.stdout.rstrip("\n").rpartition("\n")[2])
        return found

    def stage(self, name: str) -> dict[str, Any]:
        """The counts of one source, stage or sink."""
        stages: dict[str, dict[str, Any]] = {stage["id"]: stage for stage in self.found["stages"]}
        return stages[name]

    def refuses(self, code: int, *said: str) -> None:
        """Assert an error: its exit code, and that stderr and the object both tell it in words, without a traceback."""
        assert self.code == code, (self.code, self.stderr)
        assert "Traceback" not in self.stderr
        assert len([line for line in self.stderr.splitlines() if line.startswith("skerry: ")]) == 1
        for words in said:
            assert words in self.stderr, (words, self.stderr)
        assert self.found["exit_code"] == code
        assert self.found["error"] in self.stderr
        assert self.found["kind"]

    def balances(self) -> None:
        """Assert the law of conservation for the whole and for every part, and that nothing is left under way."""
        for counts in (self.found, *self.found["stages"]):
            assert counts["items_in"] + counts["emitted"] == sum(counts[fate] for fate in FATES), counts
            assert counts["in_flight"] == 0, counts


class Started:
    """A process of the command line under way."""

    def __init__(self, words: tuple[str | Path, ...], folder: Path, **settings: Any) -> None:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        command = [sys.executable, "-m", "skerry", *map(str, words)]
        self.process = subprocess.Popen(command, cwd=folder, env=environment(), text=True, **pipes)

    def signal(self, *numbers: signal.Signals) -> None:
        """Send signals, far enough apart to be told apart."""
        for place, number in enumerate(numbers):
            if place:
                time.sleep(0.2)
            self.process.send_signal(number)

    def end(self) -> Outcome:
        """Wait for its end."""
        stdout, stderr = self.process.communicate(timeout=TIMEOUT_S)
        return Outcome(self.process.returncode, stdout or "", stderr or "")

    def kill(self) -> None:
        """End it for certain, without a word to it."""
        self.process.kill()
        self.process.communicate()


def environment() -> dict[str, str]:
    """Return the environment of a test's process: no network for the hub, lines of one width."""
    return {**os.environ, "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is there."""
    ends = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)


def size(path: Path) -> int:
    """Return the size of a file that may not be there yet."""
    return path.stat().st_size if path.exists() else 0


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file; every line of it has to be a whole one."""
    text = path.read_bytes()
    assert not text or text.endswith(b"\n"), "the last line is unfinished"
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def write_build(folder: Path, name: str, model: Path, **changes: Any) -> Path:
    """Put a model file where ``skerry build`` puts one, with the manifest that it writes, and return the file."""
    build = folder / ".skerry" / name
    build.mkdir(parents=True, exist_ok=True)
    file = build / model.name
    file.write_bytes(model.read_bytes())
    digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    runtime = "null" if model.name.endswith(".null.json") else "onnxruntime"
    variant = {"name": "only", "runtime": runtime, "file": file.name, "digest": digest}
    built = {"source": "test", "task": "embedding", "dimension": DIMENSION, "variants": [variant], **changes}
    manifest = {"skerry": 1, "name": name, "release": digest, "models": {"m": built}}
    (build / "manifest.json").write_text(json.dumps(manifest))
    return file


def write_null(path: Path, delay: str = "0s") -> Path:
    """Write a null model."""
    path.write_text(json.dumps({"skerry_null": 1, "dimension": DIMENSION, "delay": delay}))
    return path


def write_onnx(path: Path, inputs: Mapping[str, str] | None = None) -> Path:
    """Write a small real encoder: embedding look-up, product and mask; ``inputs`` renames the two that it takes."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed: pip install 'skerry[build]'")
    import numpy as np

    ids, mask = (dict(inputs or {}).get(name, name) for name in ("input_ids", "attention_mask"))
    helper, kinds = onnx.helper, onnx.TensorProto
    random = np.random.default_rng(0)
    constants = {
        "table": random.standard_normal((30_200, DIMENSION)).astype(np.float32),
        "weights": random.standard_normal((DIMENSION, DIMENSION)).astype(np.float32),
        "last": np.array([2], dtype=np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", ids], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "weights"], ["mixed"]),
            helper.make_node("Cast", [mask], ["floats"], to=kinds.FLOAT),
            helper.make_node("Unsqueeze", ["floats", "last"], ["column"]),
            helper.make_node("Mul", ["mixed", "column"], ["last_hidden_state"]),
        ],
        "encoder",
        [helper.make_tensor_value_info(name, kinds.INT64, ["batch", "tokens"]) for name in (ids, mask)],
        [helper.make_tensor_value_info("last_hidden_state", kinds.FLOAT, ["batch", "tokens", DIMENSION])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_tokenizer(path: Path) -> Path:
    """Write a small real ``tokenizer.json``."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'skerry[build]'")
    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))
    return path
