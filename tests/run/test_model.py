"""The model handle: swaps, sleep, shadow and ladder, over null models."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.digest import file_digest
from skerry.run.model import ModelHandle
from skerry.run.models import Models, open_models, read_manifest
from skerry.run.shadow import QUEUE_ITEMS, Shadow
from skerry.spec.errors import ModelCorruptError, ModelError, ModelMissingError
from skerry.spec.manifest import Manifest, ModelManifest, Variant
from skerry.spec.pipeline import Model
from skerry.spec.ports import Array
from skerry.spec.units import Share

VARIANTS = tuple(Variant(name=name, runtime="null", file=name) for name in ("best", "good", "cheap"))


class Spy:
    """A model whose vectors are its place on the ladder, and which notes how it is treated."""

    alive: int = 0
    lock = threading.Lock()

    def __init__(self, variant: Variant, broken: bool = False) -> None:
        self.number = float(VARIANTS.index(variant))
        self.broken = broken
        self.closed = False
        self.dimension = 2
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def warm_up(self) -> None:
        if self.broken:
            raise ModelError("broken")

    def embed(self, texts: Sequence[str]) -> Array:
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(10)
        assert not self.closed, "used after it was closed"
        answer = np.full((len(texts), 2), self.number, dtype=np.float32)
        assert not self.closed, "closed while in use"
        return answer

    def infer(self, texts: Sequence[str]) -> dict[str, list[Array]]:
        return {"out": list(self.embed(texts))}

    def close(self) -> None:
        self.closed = True


class Loader:
    def __init__(self) -> None:
        self.loaded: list[Spy] = []
        self.broken: set[str] = set()

    def __call__(self, variant: Variant) -> Spy:
        spy = Spy(variant, variant.name in self.broken)
        self.loaded.append(spy)
        return spy


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def handle(loader: Loader) -> ModelHandle:
    return ModelHandle("m", VARIANTS, loader)


class TestSwap:
    def test_nothing_is_loaded_before_it_is_needed(self, handle: ModelHandle, loader: Loader) -> None:
        assert not loader.loaded
        assert handle.embed(["a"])[0, 0] == 0
        assert handle.dimension == 2
        assert len(loader.loaded) == 1

    def test_later_calls_use_the_new_variant_and_the_old_is_closed(self, handle: ModelHandle, loader: Loader) -> None:
        handle.load()
        handle.swap("cheap")
        assert handle.embed(["a"])[0, 0] == 2
        assert handle.infer(["a"])["out"][0][0] == 2
        assert [spy.closed for spy in loader.loaded] == [True, False]
        assert (handle.variant, handle.rung, handle.state().swaps) == ("cheap", 2, 1)

    def test_a_call_under_way_finishes_on_the_old_one(self, handle: ModelHandle, loader: Loader) -> None:
        handle.load()
        old = loader.loaded[0]
        old.gate = threading.Event()
        answers: list[float] = []
        thread = threading.Thread(target=lambda: answers.append(float(handle.embed(["a"])[0, 0])))
        thread.start()
        assert old.entered.wait(10)
        handle.swap("good")
        assert handle.embed(["b"])[0, 0] == 1
        assert not old.closed
        old.gate.set()
        thread.join(10)
        assert answers == [0.0]
        assert old.closed

    def test_a_failed_swap_keeps_the_old_one(self, handle: ModelHandle, loader: Loader) -> None:
        handle.load()
        loader.broken = {"good"}
        with pytest.raises(ModelError, match="broken"):
            handle.swap("good")
        assert handle.embed(["a"])[0, 0] == 0
        assert handle.state().swaps == 0
        assert [spy.closed for spy in loader.loaded] == [False, True]

    def test_unknown_variant(self, handle: ModelHandle) -> None:
        with pytest.raises(ModelMissingError, match="cheap"):
            handle.swap("cheep")

    def test_steps_stay_on_the_ladder(self, handle: ModelHandle) -> None:
        for rung, name in ((1, "good"), (9, "cheap"), (-1, "best")):
            handle.step_to(rung)
            assert handle.variant == name

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.sampled_from(["best", "good", "cheap", "", "broken"]), min_size=1, max_size=20))
    def test_threads_never_meet_a_closed_model(self, moves: list[str]) -> None:
        loader = Loader()
        handle = ModelHandle("m", VARIANTS, loader)
        stop = threading.Event()
        wrong: list[Exception] = []

        def work() -> None:
            try:
                while not stop.is_set():
                    vectors = handle.embed(["a", "b", "c"])
                    assert len(set(vectors.ravel().tolist())) == 1, "one batch, two variants"
            except (ModelError, AssertionError) as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for move in moves:
            if move == "broken":
                loader.broken = {"good"}
            elif not move:
                handle.unload()
            else:
                try:
                    handle.swap(move)
                except ModelError:
                    assert move in loader.broken
        loader.broken = set()
        stop.set()
        for thread in threads:
            thread.join(10)
        handle.close()
        # An unloaded handle that was told to take the broken variant may fail a call; nothing else may go wrong.
        assert all(isinstance(error, ModelError) and error.message == "broken" for error in wrong)
        assert all(spy.closed for spy in loader.loaded)


class TestSleep:
    def test_unloading_frees_and_the_next_call_loads(self, handle: ModelHandle, loader: Loader) -> None:
        handle.load()
        handle.unload()
        assert loader.loaded[0].closed
        assert handle.embed(["a"])[0, 0] == 0
        assert len(loader.loaded) == 2

    def test_a_swap_while_unloaded_is_only_noted(self, handle: ModelHandle, loader: Loader) -> None:
        handle.swap("good")
        assert not loader.loaded
        handle.load()
        assert handle.embed(["a"])[0, 0] == 1

    def test_a_closed_handle_says_so(self, handle: ModelHandle) -> None:
        handle.load()
        handle.close()
        handle.close()
        with pytest.raises(ModelError, match="closed"):
            handle.embed(["a"])


class TestShadow:
    def test_takes_its_share_and_agrees(self, loader: Loader) -> None:
        handle = ModelHandle("m", VARIANTS, loader, shadow="cheap", shadow_share=0.25)
        handle.swap("good")  # the spy's vectors of the best variant are zeros
        for _ in range(10):
            handle.embed(["a", "b", "c", "d"])
        wait_for(lambda: handle.state().shadow_items == 10)
        assert handle.state().shadow == "cheap"
        assert handle.state().shadow_agreement == pytest.approx(1.0)
        assert handle.shadow_dropped == 0
        handle.close()
        assert all(spy.closed for spy in loader.loaded)

    def test_is_not_asked_when_it_answers_itself(self, loader: Loader) -> None:
        handle = ModelHandle("m", VARIANTS, loader, shadow="best", shadow_share=1.0)
        handle.swap("best")
        handle.embed(["a"])
        assert len(loader.loaded) == 1
        handle.close()

    def test_is_no_rung_of_the_ladder(self, loader: Loader) -> None:
        handle = ModelHandle("m", VARIANTS, loader, shadow="best")
        assert (handle.variant, handle.rung, [variant.name for variant in handle.rungs]) == (
            "good",
            0,
            ["good", "cheap"],
        )
        handle.step_to(1)
        assert handle.variant == "cheap"
        assert ModelHandle("m", VARIANTS[:1], loader, shadow="best").variant == "best"

    def test_never_delays_and_counts_what_it_dropped(self, loader: Loader) -> None:
        gate = threading.Event()

        def load() -> Spy:
            gate.wait(10)
            return loader(VARIANTS[1])

        shadow = Shadow(1.0, load)
        shadow.offer(["x"] * 200, np.ones((200, 2), dtype=np.float32))
        assert shadow.dropped == 200 - QUEUE_ITEMS
        gate.set()
        wait_for(lambda: shadow.items == QUEUE_ITEMS)
        shadow.close()

    def test_rests_and_goes_on(self, loader: Loader) -> None:
        shadow = Shadow(1.0, lambda: loader(VARIANTS[1]))
        for count in (1, 2):
            shadow.offer(["x"], np.ones((1, 2), dtype=np.float32))
            wait_for(lambda count=count: shadow.items == count)  # type: ignore[misc]
            shadow.rest()
        assert [spy.closed for spy in loader.loaded] == [True, True]
        shadow.close()
        shadow.offer(["x"], np.ones((1, 2), dtype=np.float32))
        assert len(loader.loaded) == 2

    def test_one_that_cannot_be_loaded_harms_nothing(self, loader: Loader) -> None:
        loader.broken = {"cheap"}
        handle = ModelHandle("m", VARIANTS, loader, shadow="cheap", shadow_share=1.0)
        assert handle.embed(["a"])[0, 0] == 0
        wait_for(lambda: len(loader.loaded) == 2 and loader.loaded[1].closed)
        assert handle.embed(["a"])[0, 0] == 0
        assert handle.state().shadow_agreement is None
        handle.close()

    @settings(max_examples=25, deadline=None)
    @given(st.floats(0, 1), st.lists(st.integers(1, 7), max_size=20))
    def test_the_share_is_exact_however_items_are_batched(self, share: float, sizes: list[int]) -> None:
        loader = Loader()
        shadow = Shadow(share, lambda: loader(VARIANTS[1]))
        for size in sizes:
            shadow.offer(["x"] * size, np.zeros((size, 2)))
        wait_for(lambda: shadow.items + shadow.dropped == int(np.floor(sum(sizes) * share)))
        shadow.close()


def wait_for(condition: object) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        pause.wait(0.005)
    raise AssertionError("it never happened")


def write_build(folder: Path) -> Manifest:
    variants = []
    for number, name in enumerate(("best", "cheap")):
        path = folder / f"{name}.null.json"
        path.write_text(json.dumps({"skerry_null": 1, "dimension": 4, "delay": f"{number}us"}))
        variants.append(Variant(name=name, runtime="null", file=path.name, digest=file_digest(path)))
    model = ModelManifest(source="null", task="null", dimension=4, variants=tuple(variants))
    manifest = Manifest(name="p", release="sha256:0", models={"m": model})
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return manifest


class TestOpenModels:
    def open(self, folder: Path, **options: object) -> Models:
        model = Model(from_="null", task="null", **options)  # type: ignore[arg-type]
        return open_models(folder, read_manifest(folder), {"m": model})

    def test_models_are_loaded_when_asked_for(self, tmp_path: Path) -> None:
        write_build(tmp_path)
        models = self.open(tmp_path)
        assert list(models) == ["m"]
        assert models("m").embed(["hello", "b"]).shape == (2, 4)
        assert models.last_rung == 1
        models.step_to(1)
        assert models.states()["m"].variant == "cheap"
        models.unload()
        models.load()
        models.close()

    def test_a_shadow_answers_beside(self, tmp_path: Path) -> None:
        write_build(tmp_path)
        models = self.open(tmp_path, shadow="cheap", shadow_share=Share(1.0))
        models("m").embed(["hello", "b"])
        wait_for(lambda: models.states()["m"].shadow_items == 2)
        assert models.states()["m"].shadow_agreement == pytest.approx(1.0)
        assert models.last_rung == 0
        models.close()

    def test_not_built(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissingError, match="run `skerry build PIPELINE` first"):
            read_manifest(tmp_path)
        manifest = write_build(tmp_path)
        with pytest.raises(ModelMissingError, match="other was not built"):
            open_models(tmp_path, manifest, {"other": Model(from_="null")})
        with pytest.raises(ModelMissingError, match="there is no model 'x'"):
            self.open(tmp_path)("x")
        with pytest.raises(ModelMissingError, match="runtime onnxruntime"):
            self.open(tmp_path, runtime="onnxruntime")
        with pytest.raises(ModelMissingError, match="no variant 'chep'"):
            self.open(tmp_path, shadow="chep")
        (tmp_path / "cheap.null.json").unlink()
        with pytest.raises(ModelMissingError, match="cheap"):
            self.open(tmp_path)

    def test_damaged(self, tmp_path: Path) -> None:
        write_build(tmp_path)
        models = self.open(tmp_path)
        (tmp_path / "cheap.null.json").write_text('{"skerry_null": 1, "dimension": 5}')
        handle = models("m")
        with pytest.raises(ModelCorruptError, match="digest"):
            handle.swap("cheap")
        assert handle.embed(["still here"]).shape == (1, 4)
        models.close()
        (tmp_path / "manifest.json").write_text('{"name": 1}')
        with pytest.raises(ModelCorruptError, match="damaged"):
            read_manifest(tmp_path)
