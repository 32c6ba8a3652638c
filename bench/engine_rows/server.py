"""A server: a peer that serves MiniLM on loopback, in a process and an environment of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.engine_rows.minilm import MiniLM
from bench.environments import ROOT, SILENT, Environment, clean_variables
from bench.peers.bare import MODEL, TOKENIZER

READY_S = 90.0
"""How long a server may take to give its first answer; a cold disk and two cores are slow."""
_END_S = 10.0

_SERVICE = "bench.peers.bentoml_server:Encoder"
COMMANDS: dict[str, Sequence[str]] = {
    "litserve": ("-m", "bench.peers.litserve_server", "{port}"),
    "bentoml": ("-m", "bentoml", "serve", _SERVICE, "--host", "127.0.0.1", "--port", "{port}"),
}


class ServerMissingError(Exception):
    """A server did not come up; the text says why in one line."""


class PromptConnection(http.client.HTTPConnection):
    """A connection that sends small messages at once: header and body are two, and must not wait for each other."""

    def connect(self) -> None:
        """Open the connection, also when it is opened anew because the server closed it."""
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Client:
    """A connection that is kept, over which texts are posted one at a time."""

    def __init__(self, port: int, path: str) -> None:
        self._connection = PromptConnection("127.0.0.1", port, timeout=30)
        self._path = path

    def post(self, text: str) -> bytes:
        """Post one text and return the body of the answer; raises ``OSError`` when it is no success."""
        body = json.dumps({"text": text}).encode()
        self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise OSError(f"status {answer.status}: {content[:100]!r}")
        return content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def serving(environment: Environment, minilm: MiniLM) -> Iterator[Client]:
    """Run a peer's server while the block lasts; raises ``ServerMissingError`` when it does not come up."""
    port = free_port()
    command = [str(environment.python), *(part.format(port=port) for part in COMMANDS[environment.name])]
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as folder:
        said = Path(folder) / "said.txt"
        variables = clean_variables() | SILENT | _variables(minilm, folder)
        with said.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            client = _await_answer(process, port, said)
            yield client
            client.close()
        finally:
            end(process)


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _variables(minilm: MiniLM, folder: str) -> dict[str, str]:
    return {
        MODEL: str(minilm.model), TOKENIZER: str(minilm.tokenizer), "PYTHONPATH": str(ROOT), "BENTOML_HOME": folder,
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def _await_answer(process: subprocess.Popen[bytes], port: int, said: Path) -> Client:
    """Post until there is an answer; return the client that got it."""
    ends = time.monotonic() + READY_S
    while time.monotonic() < ends and process.poll() is None:
        client = Client(port, "/predict")
        try:
            client.post("The first answer is the slow one.")
            return client
        except (OSError, http.client.HTTPException):
            client.close()
            time.sleep(0.25)
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    raise ServerMissingError(f"its server did not answer: {lines[-1] if lines else 'it said nothing'}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and the workers that it started: they share its process group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.2)  # for its workers; the second round ends those that stay
    process.wait()
