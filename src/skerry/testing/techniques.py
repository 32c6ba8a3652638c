"""The technique contract: what every technique must do, as checks that anybody can run over theirs.

With pytest, one test runs them all::

    import pytest
    from skerry.testing.techniques import CHECKS, Specimen

    @pytest.fixture
    def specimen(tmp_path):
        return Specimen(technique=MyTechnique, artifact=..., refused=..., workbench=..., folder=tmp_path)

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check, specimen):
        check(specimen)

A check returns when the promise is kept and raises :class:`ContractError` when it is broken.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.technique import Kind, Technique, Workbench
from skerry.run.digest import file_digest
from skerry.run.encoder import load_encoder
from skerry.spec.errors import SkerryError, SpecError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.ports import Array

TEXTS = ("a text", "another one that is longer", "", "a b c")
"""What the vectors of a made model are looked at on."""


class ContractError(AssertionError):
    """A technique breaks a promise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specimen:
    """A model and what is needed to try a technique on it.

    Attributes
    ----------
    technique:
        The class.
    artifact:
        A small sound model that the technique takes.
    refused:
        A form that it does not take.
    workbench:
        Some 60 texts, a seed, and the teacher where the technique needs one.
    folder:
        An empty folder for what is made.
    settings:
        Settings that take little time; ``{}`` has to be valid in any case.
    is_exact:
        Whether the same seed gives the same bytes; otherwise, equal vectors.
    """

    technique: type[Technique]
    artifact: Artifact
    refused: Artifact
    workbench: Workbench
    folder: Path
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_exact: bool = True

    def apply(self, name: str = "made", settings: dict[str, Any] | None = None) -> Artifact:
        """Apply the technique in a fresh folder."""
        target = self.folder / name
        target.mkdir()
        told = self.settings if settings is None else settings
        return self.technique().apply(self.artifact, told, self.workbench, target)


def it_says_what_it_is(specimen: Specimen) -> None:
    """It has a name, a kind, a version from 1, one line about itself, and a toolchain or none."""
    kind = specimen.technique
    _require(kind.name == kind.name.lower() and " " not in kind.name and bool(kind.name), "the name is no name")
    _require(kind.kind in get_args(Kind), f"the kind {kind.kind!r} is none")
    _require(isinstance(kind.version, int) and kind.version >= 1, "the version is no number from 1")
    _require(bool(kind.summary) and "\n" not in kind.summary, "the summary is not one line")
    _require(kind.toolchain is None or bool(kind.toolchain), "the toolchain has no name")


def refusing_is_pure(specimen: Specimen) -> None:
    """``refuses`` answers from the artifact alone, twice the same, even where no file is."""
    technique = specimen.technique()
    nowhere = msgspec.structs.replace(specimen.artifact, folder=specimen.folder / "nowhere")
    _require(technique.refuses(nowhere) == "", "refuses() looks at files, or refuses what it takes")
    reason = technique.refuses(specimen.refused)
    _require(bool(reason), "refuses() says nothing of a form that it does not take")
    _require(reason == technique.refuses(specimen.refused), "refuses() changes its mind")


def refused_forms_are_not_applied(specimen: Specimen) -> None:
    """``apply`` raises for an artifact that ``refuses`` refuses, and leaves nothing behind."""
    target = specimen.folder / "refused"
    target.mkdir()
    _require_raises(lambda: specimen.technique().apply(specimen.refused, {}, specimen.workbench, target), SkerryError)
    _require(not any(target.iterdir()), "something was written for an artifact that is refused")


def candidates_are_plain_and_the_same(specimen: Specimen) -> None:
    """``candidates`` gives lists of plain JSON values, all different, the same each time, and changes nothing."""
    before = _digests(specimen.artifact)
    technique = specimen.technique()
    found = technique.candidates(specimen.artifact, specimen.workbench)
    _require(json.loads(json.dumps(found)) == found, "candidates() gives values that JSON does not")
    texts = [json.dumps(one, sort_keys=True) for one in found]
    _require(len(set(texts)) == len(texts), "two candidates are the same")
    _require(technique.candidates(specimen.artifact, specimen.workbench) == found, "candidates() changes its mind")
    _require(_digests(specimen.artifact) == before, "candidates() changed the model")


def the_first_candidate_works(specimen: Specimen) -> None:
    """Settings that ``candidates`` gives are ones that ``apply`` takes; the specimen's own are laid over them."""
    found = specimen.technique().candidates(specimen.artifact, specimen.workbench)
    if found:
        _require_sound(specimen, specimen.apply(settings={**found[0], **specimen.settings}))


def it_makes_a_sound_model(specimen: Specimen) -> None:
    """The result lies in the target, has its step added, and gives finite vectors of the dimension it tells."""
    made = specimen.apply()
    _require_sound(specimen, made)
    steps = specimen.artifact.steps
    _require(made.steps[: len(steps)] == steps and len(made.steps) == len(steps) + 1, "no step, or several, were added")
    step = made.steps[-1]
    kind = specimen.technique
    _require((step.technique, step.version) == (kind.name, kind.version), f"the step tells {step.technique}")
    _require(step.settings == specimen.settings, f"the step tells the settings {step.settings}")
    _require(made.source == specimen.artifact.source, "the source was changed")


def only_the_target_is_written(specimen: Specimen) -> None:
    """The model that was given stays as it was, and nothing is left beside the target."""
    before = _digests(specimen.artifact)
    tokenizer = file_digest(specimen.artifact.vocabulary)
    specimen.apply()
    _require(_digests(specimen.artifact) == before, "the model that was given was changed")
    _require(file_digest(specimen.artifact.vocabulary) == tokenizer, "the tokenizer that was given was changed")
    _require({path.name for path in specimen.folder.iterdir()} == {"made"}, "something was left beside the target")


def the_same_seed_gives_the_same(specimen: Specimen) -> None:
    """Applied twice it makes the same files, or where it says that it cannot, the same vectors up to rounding."""
    import numpy as np

    one, other = specimen.apply("one"), specimen.apply("other")
    if specimen.is_exact:
        _require(list(_digests(one).values()) == list(_digests(other).values()), "two runs made different files")
    else:
        pair = vectors(one, TEXTS), vectors(other, TEXTS)
        _require(bool(np.allclose(*pair, atol=1e-5)), "two runs made models that answer differently")


def empty_settings_are_valid(specimen: Specimen) -> None:
    """Each setting has a default: ``{}`` is taken, unless it would take long (then the specimen's are)."""
    if specimen.technique.kind != "distill":
        _require_sound(specimen, specimen.apply(settings={}))


def bad_settings_are_told(specimen: Specimen) -> None:
    """A setting that does not exist raises ``SpecError`` that names it, before anything is written."""
    target = specimen.folder / "bad"
    target.mkdir()
    technique = specimen.technique()
    error = _require_raises(
        lambda: technique.apply(specimen.artifact, {"no_such_setting": 1}, specimen.workbench, target), SpecError
    )
    _require("no_such_setting" in str(error), f"the message does not name the setting: {error}")
    for name, value in _defaults(specimen).items():
        wrong: Any = {} if not isinstance(value, dict) else 1
        error = _require_raises(
            lambda name=name, wrong=wrong: technique.apply(  # type: ignore[misc]
                specimen.artifact, {name: wrong}, specimen.workbench, target
            ),
            SpecError,
        )
        _require(name in str(error), f"the message does not name the setting {name}: {error}")
    _require(not any(target.iterdir()), "something was written for wrong settings")


CHECKS: tuple[Callable[[Specimen], None], ...] = (
    it_says_what_it_is,
    refusing_is_pure,
    refused_forms_are_not_applied,
    candidates_are_plain_and_the_same,
    the_first_candidate_works,
    it_makes_a_sound_model,
    only_the_target_is_written,
    the_same_seed_gives_the_same,
    empty_settings_are_valid,
    bad_settings_are_told,
)
"""Every check, in the order in which a new technique meets them."""


def vectors(artifact: Artifact, texts: Sequence[str]) -> Array:
    """Return the vectors that a model gives for texts, float32 of shape (texts, dimension), whatever its form.

    Raises ``ContractError`` for a form that nothing here runs.
    """
    if artifact.form == "transformer":
        return _transformer_vectors(artifact, texts)
    if artifact.form not in RUNTIMES:
        raise ContractError(f"nothing runs a model of the form {artifact.form}")
    manifest = ModelManifest(
        source=artifact.source, task=artifact.task, tokenizer=str(artifact.vocabulary), max_tokens=artifact.max_tokens,
        pooling=artifact.pooling, normalize=artifact.normalize,
    )  # fmt: skip
    encoder = load_encoder(
        artifact.folder, manifest, Variant(name="made", runtime=RUNTIMES[artifact.form], file=artifact.file)
    )
    try:
        return encoder.embed(texts)
    finally:
        encoder.close()


def _transformer_vectors(artifact: Artifact, texts: Sequence[str]) -> Array:
    import numpy as np

    from skerry.build.techniques.transformer import Transformer

    transformer = Transformer(artifact)
    answers = transformer.run(transformer.ids(texts))
    return np.concatenate([transformer.pooled(*pair).numpy() for pair in answers])


def _require_sound(specimen: Specimen, made: Artifact) -> None:
    import numpy as np

    _require(made.folder.parent == specimen.folder, "the artifact does not lie in the target")
    missing = [name for name in made.files if not (made.folder / name).is_file()]
    _require(not missing, f"files are told that are not there: {missing}")
    _require(made.file in made.files and made.size > 0, "its file is not among its files, or they are empty")
    found = vectors(made, TEXTS)
    _require(bool(np.isfinite(found).all()), "the vectors hold numbers that are none")
    _require(found.shape == (len(TEXTS), made.dimension), f"the vectors have the shape {found.shape}")
    lengths = np.linalg.norm(found, axis=1)
    _require(not made.normalize or bool(np.allclose(lengths, 1.0, atol=1e-3)), "the vectors are not of length 1")


def _defaults(specimen: Specimen) -> dict[str, Any]:
    """Return the settings that the technique is known to have: those of its candidates and of the specimen."""
    found = specimen.technique().candidates(specimen.artifact, specimen.workbench)
    return {name: value for one in (*found, specimen.settings) for name, value in one.items()}


def _digests(artifact: Artifact) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(artifact.folder.iterdir()) if path.is_file()}


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise ContractError(broken)


def _require_raises(call: Callable[[], Any], kind: type[SkerryError]) -> SkerryError:
    try:
        call()
    except kind as error:
        return error
    raise ContractError(f"no {kind.__name__} was raised")
