"""``prune-ffn``: the neurons of every feed-forward that add least to its output are left out.

A neuron's importance is the mean magnitude of its activation on the user's texts times the length of its outgoing
weights, as in Sun et al.: A Simple and Effective Pruning Approach for Large Language Models (Wanda), 2024, by columns
instead of single weights. The width stays the same in every layer, since configurations know one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.samples import SHARE_OUT, chosen_texts
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.transformer import Transformer, refuses_transformer
from skerry.spec.errors import ModelKindError

_STEP = 32
"""Widths are multiples of this where they are larger: kernels work in such blocks."""


class Feedforward(msgspec.Struct, frozen=True):
    """The layers that make the neurons, more than one where they are gated, and the one that reads them."""

    ups: tuple[Any, ...]
    down: Any


class FfnSettings(Settings, frozen=True, kw_only=True):
    """What can be set: ``keep``, the share of the neurons that stay."""

    keep: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5


class PruneFfn:
    """Narrower feed-forwards."""

    name: ClassVar[str] = "prune-ffn"
    kind: ClassVar[Kind] = "prune"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "narrower feed-forwards: the neurons that matter least on the user's texts are left out"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return three shares."""
        return [plain(FfnSettings(keep=keep)) for keep in (0.75, 0.5, 0.25)]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the narrower model."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(FfnSettings, settings, self.name)
        transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
        narrow(transformer, workbench, told.keep)
        return forged(artifact, self, settings, target, transformer.save(target))


def narrow(transformer: Transformer, workbench: Workbench, share: float) -> None:
    """Keep a share of every feed-forward's neurons, in place; raises ``ModelKindError`` where they cannot be found."""
    name, width = transformer.width()
    found = _feedforwards(transformer, width)
    kept = _kept_width(width, share)
    for one, sums in zip(found, _activity(transformer, workbench, found), strict=True):
        importance = sums * one.down.weight.detach().norm(dim=0)
        places = importance.argsort(descending=True, stable=True)[:kept].sort().values
        _narrow(transformer.torch, one, places)
    setattr(transformer.config, name, kept)


def _kept_width(width: int, share: float) -> int:
    wanted = width * share
    step = _STEP if wanted >= _STEP else 1
    return min(max(round(wanted / step) * step, 1), width)


def _feedforwards(transformer: Transformer, width: int) -> list[Feedforward]:
    """Return the feed-forwards of all layers; raises ``ModelKindError`` where shapes do not tell which they are."""
    linear = transformer.torch.nn.Linear
    found: list[Feedforward] = []
    for layer in transformer.layers():
        ups: list[Any] = []
        for module in layer.modules():
            if isinstance(module, linear) and module.out_features == width and module.in_features != width:
                ups.append(module)
            elif isinstance(module, linear) and module.in_features == width and ups:
                found.append(Feedforward(tuple(ups), module))
                ups = []
        if ups:
            found = []
            break
    if not found or width == getattr(transformer.config, "hidden_size", 0):
        raise ModelKindError("the model's feed-forwards cannot be told apart", where=str(transformer.artifact.folder))
    return found


def _activity(transformer: Transformer, workbench: Workbench, found: list[Feedforward]) -> list[Any]:
    """Return for each feed-forward the summed magnitude of every neuron over the tokens of the texts."""
    sums: list[Any] = [0.0] * len(found)
    mask: list[Any] = [None]

    def watch(place: int) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            sums[place] = sums[place] + inputs[0][mask[0]].abs().sum(dim=0)

        return hook

    hooks = [one.down.register_forward_pre_hook(watch(place)) for place, one in enumerate(found)]
    ids = transformer.ids(chosen_texts(workbench, SHARE_OUT))
    with transformer.torch.no_grad():
        for row in ids:  # one text at a time, so that no padding is counted
            inputs = transformer.inputs([row])
            mask[0] = inputs["attention_mask"] != 0
            transformer.model(**inputs)
    for hook in hooks:
        hook.remove()
    return sums


def _narrow(torch: Any, one: Feedforward, places: Any) -> None:
    """Keep only some neurons of a feed-forward, in place."""
    for up in one.ups:
        up.weight = torch.nn.Parameter(up.weight.detach()[places].clone())
        if up.bias is not None:
            up.bias = torch.nn.Parameter(up.bias.detach()[places].clone())
        up.out_features = len(places)
    one.down.weight = torch.nn.Parameter(one.down.weight.detach()[:, places].clone())
    one.down.in_features = len(places)
