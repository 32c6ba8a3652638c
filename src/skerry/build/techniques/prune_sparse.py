"""``prune-sparse``: single weights of dense layers are set to 0, anywhere or two of every four.

A weight's importance is its magnitude times the length of its input over the user's texts (Sun et al.: A Simple and
Effective Pruning Approach for Large Language Models (Wanda), 2024), compared within a row. The masks are plain ones:
torchao 0.18 holds 2:4 tensors on CUDA only ("Only CUDA tensors are currently supported"), and its own
``WandaSparsifier`` does what these lines do.

Zeros are computed with like any other number by the CPU kernels that were measured, so nothing is gained there; see
``docs/techniques.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.samples import SHARE_OUT, chosen_texts
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.transformer import Transformer, refuses_transformer
from skerry.spec.errors import ModelKindError

_GROUP, _KEPT = 4, 2


class SparseSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    pattern:
        ``2:4`` keeps two of every four weights of a row, what sparse tensor cores take; ``any`` the best ones of a row.
    keep:
        Of ``any``: the share of the weights that stay.
    by:
        ``inputs`` weighs by what the texts send through a weight too, ``magnitude`` by its size alone.
    """

    pattern: Literal["any", "2:4"] = "any"
    keep: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5
    by: Literal["inputs", "magnitude"] = "inputs"


class PruneSparse:
    """Zeros among the weights of dense layers."""

    name: ClassVar[str] = "prune-sparse"
    kind: ClassVar[Kind] = "prune"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "zeros among the weights, anywhere or 2:4; no runtime on a CPU here is faster or smaller"
    toolchain: ClassVar[str | None] = None
    late: ClassVar[bool] = True
    doubtful: ClassVar[bool] = True
    """It gained nothing on the CPUs that were measured; a search measures it, and says what it gained."""

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return half of the weights: one is enough to measure that nothing is gained, or on what device it is."""
        require_accepted(self.refuses(artifact), self.name)
        return [plain(SparseSettings(pattern="2:4"))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the model with zeros; as large as before."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(SparseSettings, settings, self.name)
        transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
        sparsify(transformer, workbench, told)
        return forged(artifact, self, settings, target, transformer.save(target))


def sparsify(transformer: Transformer, workbench: Workbench, told: SparseSettings) -> None:
    """Set weights of the layers' dense layers to 0, in place; raises ``ModelKindError`` where none has the shape."""
    linear, step = transformer.torch.nn.Linear, _GROUP if told.pattern == "2:4" else 1
    found = [
        module
        for layer in transformer.layers() for module in layer.modules()
        if isinstance(module, linear) and module.in_features % step == 0
    ]  # fmt: skip
    if not found:
        raise ModelKindError("the model has no dense layers that can be pruned", where=str(transformer.artifact.folder))
    lengths = _lengths(transformer, workbench, found) if told.by == "inputs" else [1.0] * len(found)
    for module, length in zip(found, lengths, strict=True):
        importance = module.weight.detach().abs() * length
        mask = _two_of_four(importance) if told.pattern == "2:4" else _best(importance, told.keep)
        module.weight = transformer.torch.nn.Parameter(module.weight.detach() * mask)


def _best(importance: Any, share: float) -> Any:
    """Return a mask with ones at the most important places of each row."""
    count = max(round(importance.shape[1] * share), 1)
    return _ones_at(importance, importance.argsort(dim=1, descending=True, stable=True)[:, :count])


def _two_of_four(importance: Any) -> Any:
    """Return a mask with two ones in every four places of a row."""
    groups = importance.reshape(-1, _GROUP)
    mask = _ones_at(groups, groups.argsort(dim=1, descending=True, stable=True)[:, :_KEPT])
    return mask.reshape(importance.shape)


def _ones_at(like: Any, places: Any) -> Any:
    return like.new_zeros(like.shape).scatter_(1, places, 1.0)


def _lengths(transformer: Transformer, workbench: Workbench, found: list[Any]) -> list[Any]:
    """Return for each dense layer the length of every input over the tokens of the texts, of shape (inputs,)."""
    sums: list[Any] = [0.0] * len(found)

    def watch(place: int) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            seen = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[place] = sums[place] + seen.square().sum(dim=0)

        return hook

    hooks = [module.register_forward_pre_hook(watch(place)) for place, module in enumerate(found)]
    with transformer.torch.no_grad():
        for row in transformer.ids(chosen_texts(workbench, SHARE_OUT)):  # one at a time, so that no padding is counted
            transformer.model(**transformer.inputs([row]))
    for hook in hooks:
        hook.remove()
    return [one**0.5 for one in sums]
