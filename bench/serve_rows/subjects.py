"""The subjects: the tiny model and MiniLM, with the bare loops that the servers are compared with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.engine_rows import minilm
from bench.peers.bare import MODEL, TOKENIZER
from bench.serve_rows import tiny
from bench.serve_rows.servers import BENTOML, LITSERVE, Subject, variables_of


class Prepared(NamedTuple):
    """A subject, and what answers one item without a server."""

    subject: Subject
    bare: Callable[[Any], object]


@contextmanager
def tiny_model(count: int) -> Iterator[Prepared]:
    """Write the tiny model; items are lists of four numbers."""
    with TemporaryDirectory(prefix="skerry-bench-") as folder:
        model = tiny.write_model(Path(folder) / "tiny.onnx")
        items = [[math.sin(place + column) for column in range(tiny.SIZE)] for place in range(count)]
        subject = Subject(
            name="tiny model",
            folder=model,
            variables=variables_of({tiny.MODEL: model}),
            modules={LITSERVE: "bench.serve_rows.tiny_litserve", BENTOML: "bench.serve_rows.tiny_bentoml:Adder"},
            path="/v2/models/tiny/infer",
            ours=lambda item: {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": item}]},
            theirs=lambda item: {"x": item},
            items=items,
        )
        yield Prepared(subject, tiny.Tiny(tiny.open_session(model)).add)


@contextmanager
def small_encoder(count: int) -> Iterator[Prepared]:
    """Build MiniLM where it is not built yet; items are texts. Raises ``minilm.ModelMissingError``."""
    built = minilm.provide()
    lines = minilm.texts(min(count, 256))
    with TemporaryDirectory(prefix="skerry-bench-") as place:
        folder = Path(place) / "minilm"
        folder.mkdir()
        (folder / "model.onnx").symlink_to(built.model)
        (folder / "tokenizer.json").symlink_to(built.tokenizer)
        subject = Subject(
            name="MiniLM",
            folder=folder,
            variables=variables_of({MODEL: built.model, TOKENIZER: built.tokenizer}),
            modules={LITSERVE: "bench.peers.litserve_server", BENTOML: "bench.peers.bentoml_server:Encoder"},
            path="/v2/models/minilm/infer",
            # The whole vector comes back, 1,536 bytes; the peers send one number, as they do for bench-engine.
            ours=_text_request,
            theirs=lambda item: {"text": item},
            items=[lines[number % len(lines)] for number in range(count)],
        )
        yield Prepared(subject, built.bare.embed)


def _text_request(item: object) -> object:
    return {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [item]}],
        "parameters": {"binary_data_output": True},
    }


SUBJECTS = {"tiny": functools.partial(tiny_model, 200), "minilm": functools.partial(small_encoder, 96)}
"""Each with the requests of one round at one connection."""
