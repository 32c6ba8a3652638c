"""``skerry serve`` as a process: where it listens, how it ends, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.certificates import make_certificate
from tests.cli.conftest import TIMEOUT_S, Skerry, command

MODEL = {
    "skerry_null": 1,
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.null.json"
    path.write_text(json.dumps(MODEL))
    return path


@contextmanager
def serving(*words: str | Path, environment: dict[str, str] | None = None) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Run the command while the block lasts; yield its process and what it said of itself."""
    process = subprocess.Popen(
        command("serve", *words, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=TIMEOUT_S)[1]
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def get(url: str, context: ssl.SSLContext | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_sigterm_says_not_ready_then_ends_with_0(model: Path) -> None:
    with serving(model, "--port", "0", "--linger", "500ms") as (process, said):
        assert said["models"] == ["numbers"] and said["grpc"] is None
        assert get(f"{said['url']}/v2/health/ready") == (200, {"ready": True})
        process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + TIMEOUT_S
        while get(f"{said['url']}/v2/health/ready") != (503, {"ready": False}):
            assert time.monotonic() < ends
        assert process.wait(TIMEOUT_S) == 0
        with pytest.raises(OSError):
            get(f"{said['url']}/v2/health/live")


def test_ctrl_c_ends_with_0(model: Path) -> None:
    with serving(model, "--port", "0", "--grpc-port", "0") as (process, said):
        assert said["grpc"].startswith("127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0


def test_a_container_of_kserve_tells_it_port_and_name(model: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"PORT": str(port), "MODEL_NAME": "from-kserve"}
    with serving(model.parent, "--host", "0.0.0.0", "--insecure", environment=environment) as (_, said):
        assert said["url"] == f"http://0.0.0.0:{port}"
        status, found = get(f"http://127.0.0.1:{port}/v2/models/from-kserve/ready")
        assert (status, found) == (200, {"name": "from-kserve", "ready": True})


def test_tls_by_files(model: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    triton = pytest.importorskip("tritonclient.grpc")
    words = ("--port", "0", "--grpc-port", "0", "--certificate", certificate, "--key", key)
    with serving(model, *words) as (_, said):
        assert said["url"].startswith("https://")
        client = triton.InferenceServerClient(said["grpc"], ssl=True, root_certificates=str(certificate))
        assert client.is_model_ready("numbers")
        client.close()
        context = ssl.create_default_context(cafile=certificate)
        assert get(f"{said['url']}/v2/health/ready", context) == (200, {"ready": True})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--host", "0.0.0.0"], 10, "--insecure"),
        (["--certificate", "a.pem"], 10, "a certificate and its key"),
        (["--certificate", "a.pem", "--key", "b.pem"], 10, "cannot be used"),
        (["--port", "70000"], 2, "0 to 65535"),
        (["--queue", "0"], 2, "above 0"),
        (["--max-body", "lots"], 2, "a size with a unit"),
        (["--variant", "best"], 2, "no variants"),
    ],
)
def test_what_is_refused(skerry: Skerry, model: Path, words: list[str], code: int, said: str) -> None:
    done = skerry("serve", model, *words)
    assert done.returncode == code and said in done.stderr


def test_a_port_that_is_taken(skerry: Skerry, model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = skerry("serve", model, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2 and "cannot listen on" in done.stderr


def test_a_missing_build(skerry: Skerry, pipeline: Callable[[str], Path]) -> None:
    path = pipeline('skerry: 1\nname: a\nsource: "memory:"\nmodels: {m: {from: "null:", task: "null"}}\nsinks: []\n')
    assert skerry("serve", path).returncode in {10, 21}
