"""A model handle: a text model whose variant can be changed between two batches, while others use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from skerry.run.shadow import Shadow
from skerry.spec.errors import ModelError, ModelMissingError
from skerry.spec.manifest import Variant
from skerry.spec.ports import Array, TensorSpec, TextModel
from skerry.spec.summary import ModelState
from skerry.spec.words import did_you_mean


class LoadedModel(TextModel, Protocol):
    """A text model in memory."""

    def warm_up(self) -> None:
        """Run once, so that the first real answer is not the slow one."""

    def close(self) -> None:
        """Free it."""


class _Tenancy:
    """A loaded variant and how many calls are using it; the last one to leave a retired one closes it."""

    __slots__ = ("model", "retired", "users", "variant")

    def __init__(self, variant: Variant, model: LoadedModel) -> None:
        self.variant = variant
        self.model = model
        self.users = 0
        self.retired = False


class ModelHandle:
    """A text model (:class:`skerry.spec.ports.TextModel`) over the variants of a build; safe to call from any thread.

    Nothing is loaded before it is needed. A swap loads and warms up the new variant beside the old one (both are in
    memory meanwhile), then every later call uses the new one; calls under way finish on the old one, which is
    closed when the last of them ends. A swap that fails leaves everything as it was.

    Parameters
    ----------
    name:
        The model's name in the pipeline file.
    variants:
        Best first. Those that are no shadow are the rungs of the degrade ladder; the first of them answers at the
        beginning.
    load:
        Loads a variant, without warming it up.
    dimension:
        How many numbers a vector has; 0 where only the loaded model knows.
    shadow:
        The name of a variant that answers a ``shadow_share`` (0 to 1) of the items beside the one in use. It may be
        swapped in, and is not asked as a shadow then.
    takes_text:
        Whether it is asked with texts; a model of tensors is asked with the arrays of items (:meth:`infer` alone).

    Raises
    ------
    ModelMissingError
        There are no variants, or none of the name ``shadow``.
    """

    def __init__(
        self,
        name: str,
        variants: Sequence[Variant],
        load: Callable[[Variant], LoadedModel],
        *,
        dimension: int = 0,
        shadow: str | None = None,
        shadow_share: float = 0.05,
        takes_text: bool = True,
    ) -> None:
        if not variants:
            raise ModelMissingError(f"the model {name} has no variants", hint="run `skerry build PIPELINE` first")
        self.name = name
        self.takes_text = takes_text
        self.variants = tuple(variants)
        self._load = load
        self._dimension = dimension
        self._lock = threading.Lock()  # guards what follows, for moments only
        self._changing = threading.RLock()  # held while a variant is loaded: one change at a time
        self._tenancy: _Tenancy | None = None
        self._shadow_variant = None if shadow is None else self._find(shadow)
        self.rungs = tuple(variant for variant in variants if variant is not self._shadow_variant) or self.variants
        self._variant = self.rungs[0]
        self._swaps = 0
        self._closed = False
        self._shadow_share = shadow_share
        self._shadow: Shadow | None = None
        if self._shadow_variant is not None:
            self._shadow = Shadow(shadow_share, self._load_shadow)

    @property
    def dimension(self) -> int:
        """How many numbers a vector has; loads the model where the build did not say it."""
        if not self._dimension:
            tenancy = self._enter()
            try:
                self._dimension = tenancy.model.dimension
            finally:
                self._leave(tenancy)
        return self._dimension

    @property
    def variant(self) -> str:
        """The name of the variant that answers, or will once it is loaded."""
        return self._variant.name

    @property
    def generation(self) -> int:
        """Changes with every swap: what was computed by another generation does not go with new answers."""
        return self._swaps

    @property
    def rung(self) -> int:
        """The place of that variant on the ladder; 0 is the best, or a shadow that was swapped in."""
        return self.rungs.index(self._variant) if self._variant in self.rungs else 0

    @property
    def shadow_dropped(self) -> int:
        """How many items the shadow should have taken but had no room for."""
        return 0 if self._shadow is None else self._shadow.dropped

    def embed(self, texts: Sequence[str]) -> Array:
        """Return one pooled vector per text, all by one variant: float32 of shape (len(texts), dimension).

        Raises ``ModelError`` when the handle was closed, and whatever loading raises where the model is not loaded.
        """
        tenancy = self._enter()
        try:
            vectors = tenancy.model.embed(texts)
        finally:
            self._leave(tenancy)
        if self._shadow is not None and tenancy.variant is not self._shadow_variant:
            self._shadow.offer(texts, vectors)
        return vectors

    def infer(self, texts: Sequence[Any]) -> dict[str, list[Array]]:
        """Return the model's raw outputs by name, a list with one array per text (or item), all by one variant."""
        tenancy = self._enter()
        try:
            return tenancy.model.infer(texts)
        finally:
            self._leave(tenancy)

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return what a model of tensors takes, by the variant in use; loads it. An encoder tells nothing."""
        tenancy = self._enter()
        try:
            return tuple(getattr(tenancy.model, "inputs", ()))
        finally:
            self._leave(tenancy)

    def load(self) -> None:
        """Load and warm up the variant in use, unless it is; raises the error that tells what is wrong with it."""
        with self._changing:
            if self._tenancy is None:
                self._install(self._loaded(self._variant))

    def unload(self) -> None:
        """Free the memory, as for a sleep; calls under way finish. The next call, or ``load``, loads again."""
        with self._changing:
            self._install(None)
        if self._shadow is not None:
            self._shadow.rest()

    def swap(self, name: str) -> None:
        """Let another variant answer from now on.

        An unloaded model only notes the choice. Raises ``ModelMissingError`` when there is no such variant, and
        whatever loading it raises; the old one then goes on.
        """
        variant = self._find(name)
        with self._changing:
            if variant is self._variant:
                return
            fresh = self._loaded(variant) if self._tenancy is not None else None
            self._variant = variant
            self._swaps += 1  # before the first answer of the new one, so that nobody takes it for the old one's
            if fresh is not None:
                self._install(fresh)

    def step_to(self, rung: int) -> None:
        """Swap to a rung of the ladder; beyond its ends, to the last or the first. Raises what ``swap`` does."""
        self.swap(self.rungs[min(max(rung, 0), len(self.rungs) - 1)].name)

    def state(self) -> ModelState:
        """Return which variant answers, and how its shadow agrees."""
        shadow, variant = self._shadow, self._shadow_variant
        return ModelState(
            variant=self._variant.name,
            runtime=self._variant.runtime,
            swaps=self._swaps,
            shadow=variant.name if variant else None,
            shadow_items=shadow.items if shadow else 0,
            shadow_agreement=shadow.agreement if shadow else None,
            shadow_dropped=self.shadow_dropped,
        )

    def close(self) -> None:
        """Free everything for good, after the calls under way; safe to call twice."""
        with self._changing:
            self._closed = True
            self._install(None)
        if self._shadow is not None:
            self._shadow.close()

    def _find(self, name: str) -> Variant:
        names = [variant.name for variant in self.variants]
        if name not in names:
            raise ModelMissingError(
                f"the model {self.name} has no variant {name!r}",
                expected=f"one of {', '.join(names)}",
                hint=did_you_mean(name, names),
            )
        return self.variants[names.index(name)]

    def _loaded(self, variant: Variant) -> _Tenancy:
        if self._closed:
            raise ModelError(f"the model {self.name} was closed")
        return _Tenancy(variant, self._warm(variant))

    def _load_shadow(self) -> LoadedModel:
        assert self._shadow_variant is not None
        return self._warm(self._shadow_variant)

    def _warm(self, variant: Variant) -> LoadedModel:
        model = self._load(variant)
        try:
            model.warm_up()
        except BaseException:
            model.close()
            raise
        return model

    def _install(self, fresh: _Tenancy | None) -> None:
        """Put ``fresh`` in the place of the present tenancy, and close that one if nobody is using it."""
        with self._lock:
            old, self._tenancy = self._tenancy, fresh
            idle = old is not None and not old.users
            if old is not None:
                old.retired = True
        if old is not None and idle:
            old.model.close()

    def _enter(self) -> _Tenancy:
        while True:
            with self._lock:
                tenancy = self._tenancy
                if tenancy is not None:
                    tenancy.users += 1
                    return tenancy
            self.load()

    def _leave(self, tenancy: _Tenancy) -> None:
        with self._lock:
            tenancy.users -= 1
            last = tenancy.retired and not tenancy.users
        if last:
            tenancy.model.close()
