"""Parts: models to serve, a server in a thread, and a plain client."""

from __future__ import annotations

import gc
import http.client
import json
import logging
import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from skerry.run.encoder import load_encoder
from skerry.run.serve.options import ServeOptions
from skerry.run.serve.servable import Inputs, Outputs, Servable
from skerry.run.serve.server import Server
from skerry.run.serve.texts import TextServable
from skerry.runtimes.tensors import InputCheck
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.ports import Array, TensorSpec
from skerry.spec.units import Duration

PATIENCE_S = 30.0


class Adder:
    """Adds 1 to float32 (batch, 4); every run is noted, and can be held up."""

    takes_text = False
    platform = "test"

    def __init__(self, name: str = "adder") -> None:
        self.name = name
        self.inputs = (TensorSpec("x", "float32", ("batch", 4)),)
        self.outputs = (TensorSpec("y", "float32", ("batch", 4)),)
        self._check = InputCheck(self.inputs, name)
        self.runs: list[int] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.has_begun = threading.Event()
        self.is_closed = False

    def admit(self, inputs: Inputs) -> int:
        self._check(inputs)
        return len(inputs["x"])

    def group(self, inputs: Inputs) -> Hashable:
        return 1

    def run(self, requests: Sequence[Inputs], wanted: frozenset[str]) -> list[Outputs]:
        self.has_begun.set()
        assert self.may_run.wait(PATIENCE_S)
        self.runs.append(len(requests))
        if any((request["x"] < -1e6).any() for request in requests):
            raise RuntimeError("this row spoils the run")
        return [{"y": request["x"] + 1} for request in requests]

    def close(self) -> None:
        self.is_closed = True


def text_model(folder: Path, name: str = "words", **manifest: Any) -> TextServable:
    """Return an encoder of 8 dimensions without a vocabulary, over the null runtime."""
    folder.mkdir(exist_ok=True)
    (folder / "best.null.json").write_text(json.dumps({"skerry_null": 1, "dimension": 8}))
    built = ModelManifest(**{"source": "null", "task": "null", "dimension": 8, **manifest})
    encoder = load_encoder(folder, built, Variant(name="best", runtime="null", file="best.null.json"))
    return TextServable(name, encoder, "null")


@contextmanager
def serving(*servables: Servable, **options: Any) -> Iterator[Server]:
    """Run a server in a thread while the block lasts, on free ports."""
    gc.collect()  # clients of gevent must not be collected by the server's thread
    settings: dict[str, Any] = {"port": 0, "linger": Duration(0.0), "drain": Duration(5.0), **options}
    server = Server(list(servables), ServeOptions(**settings), logging.getLogger("skerry.tests"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert server.started.wait(PATIENCE_S)
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    server: Server, path: str, body: Any = None, *, method: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask once, on a connection of its own; a body that is no bytes is sent as JSON."""
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE_S)
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method or ("GET" if body is None else "POST"), path, data, {**kind, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def question(*rows: Sequence[float], **more: Any) -> dict[str, Any]:
    """Return the JSON of a request to :class:`Adder`."""
    flat = [number for row in rows for number in row]
    return {"inputs": [{"name": "x", "shape": [len(rows), 4], "datatype": "FP32", "data": flat}], **more}


def numbers(rows: int = 2) -> Array:
    """Return float32 (rows, 4)."""
    return np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)


def wait_for(server: Server, name: str, value: int) -> None:
    """Wait until a metric of the adder has a value."""
    ends = time.monotonic() + PATIENCE_S
    wanted = f'{name}{{model="adder"}} {value}\n'
    while wanted not in ask(server, "/metrics").body.decode():
        assert time.monotonic() < ends
        time.sleep(0.01)
