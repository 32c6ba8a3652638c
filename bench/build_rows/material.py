"""The material: the model in the forms that peers start from, and the texts that everybody answers."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.environments import ROOT, SILENT, clean_variables
from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.evaluation import evaluation_set
from skerry.build.importing import find_origin
from skerry.build.texts import own_texts
from skerry.run.models import read_manifest
from skerry.run.tokens import VocabularyTokens
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.reading import read_project

HOME = ROOT / ".cache" / "bench" / "build"
MODEL = "model"
"""The name that the model has in every pipeline here."""
BUILD_S = 9000.0
"""How long a search may take in all: two hours of it may be distillation."""
CALIBRATION_TEXTS = 300
"""What peers that calibrate get: NNCF's own default."""

_PIPELINE = """\
skerry: 1
name: {name}
source: "memory:"
models:
  {model}:
    from: "{source}"
{settings}
stages:
  - embed: {{model: {model}}}
sinks: ["memory:"]
"""


class BuildFailedError(Exception):
    """``skerry build`` failed; the text says why in one line."""


class Material(NamedTuple):
    """The model that was given, and its fp32 graph for ONNX Runtime, which everything is compared with."""

    folder: Path
    fp32: Artifact

    @property
    def tokens(self) -> VocabularyTokens:
        """Its tokenizer."""
        return VocabularyTokens(self.fp32.vocabulary, self.fp32.max_tokens)


def project(name: str, source: str, settings: Sequence[str] = ()) -> Path:
    """Write a pipeline with one model and return its folder; ``settings`` are lines of the model's part."""
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"    {line}" for line in settings)
    (folder / "pipeline.yaml").write_text(
        _PIPELINE.format(name=folder.name, model=MODEL, source=source, settings=lines), encoding="utf-8"
    )
    return folder


def build(folder: Path, *options: str) -> float:
    """Run ``skerry build`` as anybody would and return the seconds it took; raises ``BuildFailedError``."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "skerry", "build", str(folder), *options], capture_output=True, text=True,
        timeout=BUILD_S, check=False, stdin=subprocess.DEVNULL,
        env=clean_variables() | SILENT | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        told = [line for line in said if line.startswith("skerry: ")]
        raise BuildFailedError(f"skerry build failed: {(told or said)[-1]}")
    return time.monotonic() - begin


def provide(source: str) -> Material:
    """Return the model as Skerry exports it; the first time takes half a minute. Raises ``BuildFailedError``."""
    folder = project("baseline", source)
    build(folder, "--keep-fp32")
    fp32 = next(form for form in released(folder) if form.name == "fp32")
    model = read_project(folder).pipeline.models[MODEL]
    return Material(find_origin(model, folder).path, fp32.artifact)


class Form(NamedTuple):
    """A variant of a release, as it can be measured: its name, what was done to it, and the files."""

    name: str
    technique: str
    artifact: Artifact


def released(project_folder: Path) -> list[Form]:
    """Return the variants that the last build of a project wrote, best first; none where nothing was built."""
    release = next(iter((project_folder / ".skerry").glob("*/manifest.json")), None)
    return [] if release is None else forms(release.parent)


def forms(release: Path) -> list[Form]:
    """Return the variants of the first text model in a release folder, best first."""
    manifest = next(model for model in read_manifest(release).models.values() if model.tokenizer is not None)
    return [Form(variant.name, variant.technique, _artifact(release, manifest, variant))
            for variant in manifest.variants]  # fmt: skip


def _artifact(release: Path, manifest: ModelManifest, variant: Variant) -> Artifact:
    assert manifest.tokenizer is not None
    path = (release / variant.file).absolute()
    beside = sorted(other.name for other in path.parent.glob(f"{path.stem}.*"))
    return Artifact(
        form=next(form for form, runtime in RUNTIMES.items() if runtime == variant.runtime), folder=path.parent,
        file=path.name, files=tuple(beside), source=manifest.source, task="embedding",
        tokenizer=(release / manifest.tokenizer).absolute(), pooling="none" if variant.pooled else manifest.pooling,
        normalize=manifest.normalize and not variant.pooled,
        max_tokens=manifest.max_tokens, dimension=manifest.dimension,
    )  # fmt: skip


def held_out() -> tuple[str, ...]:
    """Return the frozen evaluation set: sentences that nothing was calibrated, selected or tuned by."""
    return evaluation_set().texts.lines


def calibration(material: Material) -> list[list[int]]:
    """Return the token ids that peers may calibrate on: docstrings, as Skerry's own search has them."""
    return [[int(token) for token in row] for row in material.tokens.many(own_texts(CALIBRATION_TEXTS).lines)]


def texts_of(tokens: VocabularyTokens, length: int, lines: Sequence[str], most: int = 100) -> list[str]:
    """Return texts of exactly ``length`` tokens, both special ones included: beginnings of the lines, whole words.

    Short lines are joined with those that follow. A line of which no beginning has that length is left out.
    """
    found = (_beginning(tokens, length, words) for words in _stretches(lines, length))
    return list(itertools.islice((text for text in found if text), most))


def _stretches(lines: Sequence[str], length: int) -> Iterator[list[str]]:
    """Yield lists of at least ``length`` words, each made of lines of its own."""
    words: list[str] = []
    for line in lines:
        words += line.split()
        if len(words) >= length:
            yield words
            words = []


def _beginning(tokens: VocabularyTokens, length: int, words: list[str]) -> str:
    for count in range(1, len(words) + 1):
        text = " ".join(words[:count])
        taken = len(tokens.one(text))
        if taken >= length:
            return text if taken == length else ""
    return ""
