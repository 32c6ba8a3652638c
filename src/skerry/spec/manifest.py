"""A manifest: what `skerry build` chose, variant by variant, and the digests to check it by."""

from __future__ import annotations

from typing import Literal

import msgspec

from skerry.spec.pipeline import Task


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One compressed form of a model: a file for one runtime.

    ``size`` is in bytes, ``digest`` is ``sha256:<hex>`` of the file, ``beside`` holds the digests of further files that
    the runtime looks for beside it (weights of their own), ``pooled`` tells that its graph pools and normalizes
    by itself, ``latency_p50_ms`` was measured at build time.
    """

    name: str
    runtime: str
    file: str
    digest: str = ""
    beside: dict[str, str] = {}
    size: int = 0
    pooled: bool = False
    technique: str = ""
    threads: int = 1
    latency_p50_ms: float | None = None
    agreement: float | None = None

    def files(self) -> dict[str, str]:
        """Return all its files with their digests."""
        return {self.file: self.digest, **self.beside}


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model in a build: where it came from, how text becomes vectors, and its variants, best first.

    The variants are the rungs of the degrade ladder: each is cheaper than the one before.
    """

    source: str
    task: Task
    dimension: int = 0
    tokenizer: str | None = None
    max_tokens: int = 256
    pooling: Literal["mean", "cls", "max", "none"] = "mean"
    normalize: bool = True
    variants: tuple[Variant, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``.skerry/<name>/manifest.json``: every model of a pipeline by its name there."""

    skerry: Literal[1] = 1
    name: str
    release: str
    """``sha256:<hex>`` over the pipeline file and every variant's digest: two equal builds have the same."""
    models: dict[str, ModelManifest] = {}
