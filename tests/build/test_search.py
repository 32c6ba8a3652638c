"""The search: what is made in which order, who is measured how long, what fails alone, what is found again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest

from skerry.build.artifact import Artifact, Step
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import Discarded, Failed, Measured
from skerry.build.halving import Rung
from skerry.build.progress import Progress
from skerry.build.search import Search, making_s
from skerry.build.technique import Kind, LateError, Workbench
from skerry.spec.budget import Budget, Quality
from skerry.spec.errors import DependencyError, ModelKindError
from skerry.spec.units import Size

RUNGS = (Rung(texts=10, runs=10, seconds=0.1), Rung(texts=20, runs=20, seconds=0.2))


class Shrinking:
    """A technique that writes a file of as many bytes as its setting says."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "for tests"

    def __init__(
        self, name: str, kind: Kind, sizes: list[int], form: str = "onnx", toolchain: str | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.sizes = sizes
        self.form = form
        self.toolchain = toolchain
        self.error: Exception | None = None
        self.applied: list[str] = []

    def refuses(self, artifact: Artifact) -> str:
        return "" if artifact.form == ("transformer" if self.kind == "convert" else "onnx") else "another form"

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        return [{"size": size} for size in self.sizes]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        self.applied.append(f"{artifact.name()} → {self.name}({settings['size']})")
        if self.error is not None:
            raise self.error
        (target / "model.bin").write_bytes(b"x" * settings["size"])
        step = Step(technique=self.name, version=1, settings=settings)
        return msgspec.structs.replace(
            artifact,
            form=self.form,
            folder=target,
            file="model.bin",
            files=("model.bin",),
            steps=(*artifact.steps, step),
        )


class Trier:
    """Answers with a speed that grows as the file shrinks, and a quality that falls with it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.failing: dict[str, Failure] = {}

    def run(self, candidate: Artifact, rung: Rung, *, threads: int = 1, starts: int = 1) -> Figures | Failure:
        self.calls.append((candidate.name(), rung.texts))
        if candidate.name() in self.failing:
            return self.failing[candidate.name()]
        exact = Estimate.exact
        return Figures(
            quality={"agreement@10": exact(min(1.0, candidate.size / 1000))},
            latency_p50_ms=exact(candidate.size / 100), latency_p99_ms=exact(candidate.size / 50),
            speedup=exact(1000 / candidate.size * threads), size_bytes=candidate.size, peak_bytes=1000,
        )  # fmt: skip


@pytest.fixture
def origin(tmp_path: Path) -> Artifact:
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return Artifact(
        form="transformer", folder=folder, file="config.json", files=("config.json",), source="sha256:0",
        tokenizer=folder / "tokenizer.json",
    )  # fmt: skip


Make = Callable[..., Search]


@pytest.fixture
def make(tmp_path: Path, origin: Artifact) -> Make:
    def made(*techniques: Shrinking, **settings: Any) -> Search:
        forbidden = settings.pop("forbidden", frozenset())
        workbench = Workbench(texts=("a", "b"), forbidden=forbidden, progress=Progress(None))
        defaults: dict[str, Any] = {
            "budget": Budget(quality=Quality(min=0.5)), "runtimes": frozenset({"onnxruntime"}), "seconds": 60.0,
            "rungs": RUNGS,
        }  # fmt: skip
        named = {technique.name: technique for technique in techniques}
        return Search(origin, named, workbench, Cache(tmp_path / "cache"), **{**defaults, **settings})

    return made


def test_techniques_are_composed_and_the_fastest_within_the_budget_wins(make: Make) -> None:
    found = make(Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", [800, 600, 400])).run(Trier())
    assert found.chosen == "export(size=1000) → shrink(size=600)"
    assert found.ladder == (found.chosen, "export(size=1000) → shrink(size=400)")
    assert set(found.artifacts) >= set(found.ladder)
    assert not found.near_misses


class Weights(Shrinking):
    """A technique that takes a transformer's weights and gives others."""

    def refuses(self, artifact: Artifact) -> str:
        return "" if artifact.form == "transformer" else "another form"


def test_what_is_pruned_is_taught_and_then_made_use_of(make: Make) -> None:
    prune = Weights("prune", "prune", [900, 800], form="transformer")
    teach = Weights("teach", "distill", [700, 600], form="transformer")
    export = Shrinking("export", "convert", [500])
    found = make(prune, teach, export).run(Trier())
    assert not any(name.startswith("prune(size=900) → export") for name in found.artifacts)
    made = list(found.artifacts)
    first, second = "prune(size=900) → teach(size=700) → export(size=500)", "prune(size=900) → teach(size=600)"
    assert first in made and not any(name.startswith(second) for name in made[: made.index(first)])


def test_of_first_choices_what_prunes_most_is_taught_first(make: Make) -> None:
    little = Weights("little", "prune", [900, 300], form="transformer")
    much = Weights("much", "prune", [500], form="transformer")
    teach, export = Weights("teach", "distill", [200], form="transformer"), Shrinking("export", "convert", [1000])
    make(little, much, teach, export).run(Trier())
    pruned = [each.removesuffix(" → teach(200)").replace("size=", "") for each in teach.applied]
    assert pruned[0] == "original"  # which changes the model least
    assert pruned[1:] == ["much(500)", "little(900)", "little(300)"]


@pytest.mark.parametrize(("took", "students"), [(10.0, 2), (20.0, 1)])
def test_another_student_is_taught_only_where_half_of_the_time_is_left(
    make: Make, monkeypatch: pytest.MonkeyPatch, took: float, students: int
) -> None:
    now = 0.0

    class Slow(Weights):
        def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
            nonlocal now
            now += took
            return super().apply(artifact, settings, workbench, target)

    monkeypatch.setattr("skerry.build.search.time", SimpleNamespace(monotonic=lambda: now))
    prune = Weights("prune", "prune", [900, 300], form="transformer")
    teach, export = Slow("teach", "distill", [200], form="transformer"), Shrinking("export", "convert", [1000])
    teach.candidates = lambda artifact, workbench: [{"size": 200}] if artifact.steps else []  # type: ignore[method-assign]
    make(prune, teach, export, seconds=60.0).run(Trier())
    assert len(teach.applied) == students


def test_a_long_search_keeps_twenty_minutes_for_measuring() -> None:
    assert making_s(600) == 300
    assert making_s(7200) == 6000


def test_a_longer_trial_is_for_the_best(make: Make) -> None:
    trier = Trier()
    sizes = list(range(900, 500, -100))
    found = make(Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", sizes), threads=(1, 2)).run(
        trier
    )
    long = [name for name, texts in trier.calls if texts == 20]
    assert 0 < len(long) < len([name for name, texts in trier.calls if texts == 10])
    assert found.chosen is not None
    assert found.chosen.endswith("× 2 threads")


def test_one_that_was_left_behind_wins_where_no_finalist_is_beyond_doubt(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unsure(Trier):
        def run(self, candidate: Artifact, rung: Rung, *, threads: int = 1, starts: int = 1) -> Figures | Failure:
            answer = super().run(candidate, rung, threads=threads, starts=starts)
            assert isinstance(answer, Figures)
            quality = answer.quality["agreement@10"].value
            return msgspec.structs.replace(
                answer, quality={"agreement@10": Estimate(value=quality, low=quality - 0.15, high=quality)}
            )

    monkeypatch.setattr("skerry.build.search.time", SimpleNamespace(monotonic=lambda: 0.0))  # as fast as can be
    techniques = Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", [800, 600])
    trier = Unsure()
    found = make(*techniques, seconds=0.2).run(trier)  # time for one at the last rung
    assert [name for name, texts in trier.calls if texts == 20] == ["export(size=1000) → shrink(size=600)"]
    assert found.chosen == "export(size=1000) → shrink(size=800)"


def test_what_is_too_large_is_not_measured(make: Make) -> None:
    trier = Trier()
    found = make(
        Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", [300]), budget=Budget(size=Size(500))
    ).run(trier)
    assert {name for name, _ in trier.calls} == {"export(size=1000) → shrink(size=300)"}
    large = next(each for each in found.candidates if each.name == "export(size=1000)")
    assert isinstance(large.outcome, Discarded)
    assert "over the limit" in large.outcome.reason


def test_when_nothing_keeps_the_budget_the_nearest_says_what_to_relax(make: Make) -> None:
    found = make(Shrinking("export", "convert", [1000]), budget=Budget(memory=Size(800))).run(Trier())
    assert found.chosen == "export(size=1000)"
    assert found.near_misses[0].relaxations[0].limit == "memory"


def test_when_everything_is_too_large_the_smallest_tell_by_how_much(make: Make) -> None:
    sizes = [900, 800, 700, 600]
    techniques = Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", sizes)
    found = make(*techniques, budget=Budget(size=Size(100))).run(Trier())
    assert found.chosen == "export(size=1000) → shrink(size=600)"
    assert found.near_misses[0].relaxations[0].written == "600 B"
    assert sorted(found.artifacts) == [f"export(size=1000) → shrink(size={size})" for size in (600, 700, 800)]


def test_what_fails_fails_alone(make: Make) -> None:
    broken, missing = Shrinking("broken", "quantize", [500]), Shrinking("missing", "quantize", [500])
    broken.error = ModelKindError("does not work on this model")
    missing.error = DependencyError("needs a package", hint="pip install it")
    trier = Trier()
    trier.failing["export(size=1000) → shrink(size=700)"] = Failure(kind="out-of-memory", reason="300 MB")
    found = make(
        Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", [700, 600]), broken, missing
    ).run(trier)
    outcomes = {each.name.rpartition(" → ")[2]: each.outcome for each in found.candidates}
    assert outcomes["broken(size=500)"] == Failed(kind="failed", reason="does not work on this model")
    assert outcomes["missing(size=500)"] == Failed(kind="refused", reason="needs a package (pip install it)")
    assert outcomes["shrink(size=700)"] == Failed(kind="out of memory", reason="300 MB", rung=1)
    assert isinstance(outcomes["shrink(size=600)"], Measured)


def test_whole_models_come_before_changed_ones_and_the_time_is_kept(make: Make) -> None:
    class Slow(Shrinking):
        def apply(self, *arguments: Any) -> Artifact:
            time.sleep(0.3)
            return super().apply(*arguments)

        def refuses(self, artifact: Artifact) -> str:
            return "" if artifact.form == "transformer" else "another form"

    prune = Slow("prune", "prune", [900, 800, 700, 600], form="transformer")
    export = Shrinking("export", "convert", [1000])
    found = make(prune, export, seconds=0.9).run(Trier())
    assert "export(size=1000)" in found.artifacts
    late = [each for each in found.candidates if isinstance(each.outcome, Discarded) and each.outcome.by == "time"]
    assert late
    assert len(prune.applied) < 4


def test_a_search_with_too_little_time_still_finds_a_form(make: Make) -> None:
    class Slow(Shrinking):
        def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
            time.sleep(0.1)
            return super().candidates(artifact, workbench)

    found = make(Slow("export", "convert", [900, 1000]), seconds=0.05).run(Trier())
    assert found.chosen == "export(size=900)"
    assert [each.name for each in found.candidates if isinstance(each.outcome, Discarded)] == ["export(size=1000)"]


def test_what_a_search_had_no_time_for_is_left_out_when_it_is_asked_for_again(make: Make) -> None:
    class Slow(Shrinking):
        def apply(self, *arguments: Any) -> Artifact:
            time.sleep(0.3)
            return super().apply(*arguments)

    first, second, longer = (Slow("export", "convert", [900, 800, 700, 600]) for _ in range(3))
    one = make(first, seconds=0.8).run(Trier())
    assert 1 <= len(first.applied) < 4
    other = make(second, seconds=0.8).run(Trier())
    assert not second.applied
    assert [each.outcome for each in other.candidates] == [each.outcome for each in one.candidates]
    make(longer, seconds=60.0).run(Trier())
    assert len(longer.applied) == 4 - len(first.applied)


def test_a_conversion_that_was_broken_off_is_no_failure_of_the_model(make: Make) -> None:
    export = Shrinking("export", "convert", [900])
    export.error = LateError("its conversion was broken off after 30 s")
    found = make(export).run(Trier())
    assert found.candidates[-1].outcome == Discarded(reason="its conversion was broken off after 30 s", by="time")


def test_what_was_made_before_is_found_again(make: Make) -> None:
    first, second = Shrinking("export", "convert", [1000]), Shrinking("export", "convert", [1000])
    one, other = make(first).run(Trier()), make(second).run(Trier())
    assert first.applied
    assert not second.applied
    assert one.chosen == other.chosen
    assert one.artifacts[str(one.chosen)].path == other.artifacts[str(other.chosen)].path


def test_settings_that_read_alike_are_candidates_of_their_own(make: Make) -> None:
    class Excluding(Shrinking):
        def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
            return [{"size": 1000, "exclude": ["a"]}, {"size": 1000, "exclude": ["b"]}]

    found = make(Excluding("export", "convert", [])).run(Trier())
    assert sorted(found.artifacts) == ["export(exclude=1, size=1000)", "export(exclude=1, size=1000) #2"]
    assert {each.steps[-1].settings["exclude"][0] for each in found.candidates} == {"a", "b"}


def test_what_was_made_by_another_toolchain_is_not_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    export = Shrinking("export", "convert", [1000], toolchain="litert")
    make(export).run(Trier())
    monkeypatch.setattr("skerry.build.toolchain.place", lambda name: Path(f"{name}-of-other-pins"))
    make(export).run(Trier())
    assert len(export.applied) == 2


@pytest.mark.parametrize("changed", [{"seconds": 90.0}, {"forbidden": frozenset({"seen"})}])
def test_what_was_taught_for_a_shorter_time_or_other_texts_is_not_taken(make: Make, changed: dict[str, Any]) -> None:
    export = Shrinking("export", "convert", [1000])
    teach = Shrinking("teach", "distill", [800], form="transformer")
    teach.refuses = lambda artifact: ""  # type: ignore[method-assign] # it takes the model as it was given
    make(export, teach).run(Trier())
    make(export, teach).run(Trier())
    assert len(teach.applied) == 1
    make(export, teach, **changed).run(Trier())
    assert len(teach.applied) == 2
    assert len(export.applied) == 3  # of the given model once, and of each student


def test_a_form_with_another_tokenizer_is_no_rung_of_the_ladder(make: Make) -> None:
    class Trimming(Shrinking):
        def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
            (target / "tokenizer.json").write_text("{}")
            made = super().apply(artifact, settings, workbench, target)
            return msgspec.structs.replace(made, tokenizer=target / "tokenizer.json")

    found = make(Shrinking("export", "convert", [1000]), Trimming("trim", "quantize", [400])).run(Trier())
    assert found.front == ("export(size=1000)", "export(size=1000) → trim(size=400)")
    assert found.ladder == ("export(size=1000)",)


def test_nothing_measured_is_nothing_chosen(make: Make) -> None:
    found = make(Shrinking("export", "convert", [1000], form="tensorrt")).run(Trier())
    assert found.chosen is None
    assert found.ladder == ()


def test_what_is_late_comes_after_changed_models(make: Make) -> None:
    order: list[str] = []

    class Told(Shrinking):
        def apply(self, *arguments: Any) -> Artifact:
            order.append(self.name)
            return super().apply(*arguments)

        def refuses(self, artifact: Artifact) -> str:
            return "" if artifact.form == "transformer" and not artifact.steps else "another form"

    slow = Told("a-slow", "convert", [900])
    slow.late = True  # type: ignore[attr-defined]
    make(slow, Told("prune", "prune", [800], form="transformer"), Told("z-export", "convert", [1000])).run(Trier())
    assert order == ["z-export", "prune", "a-slow"]


def test_nothing_is_made_for_a_runtime_that_is_not_here(make: Make) -> None:
    engine = Shrinking("engine", "quantize", [100], form="tensorrt")
    engine.makes = "tensorrt"  # type: ignore[attr-defined]
    found = make(Shrinking("export", "convert", [1000, 900]), engine).run(Trier())
    assert not engine.applied
    [left] = [each for each in found.candidates if isinstance(each.outcome, Discarded)]
    assert (left.name, left.runtime) == ("engine", "tensorrt")
    assert isinstance(left.outcome, Discarded) and left.outcome.by == "device"
    assert "runtime tensorrt is not usable" in left.outcome.reason


def test_a_step_in_doubt_bears_a_note_of_what_it_gained(make: Make) -> None:
    class Zeros(Shrinking):
        def refuses(self, artifact: Artifact) -> str:
            return "" if artifact.form == "transformer" else "another form"

    zeros = Zeros("zeros", "prune", [1000], form="transformer")
    zeros.doubtful = True  # type: ignore[attr-defined]
    found = make(zeros, Shrinking("export", "convert", [1000])).run(Trier())
    notes = {each.name: each.note for each in found.candidates}
    assert notes["export(size=1000)"] == ""
    assert notes["zeros(size=1000) → export(size=1000)"] == (
        "zeros gains no speed (1.00×, 1.00 to 1.00, without it 1.00×, 1.00 to 1.00)"
        " and no room (0.0 MB, without it 0.0) on onnxruntime here"
    )
