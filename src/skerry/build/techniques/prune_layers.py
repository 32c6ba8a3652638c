"""``prune-layers``: whole encoder layers are left out.

Which layers matter little is told by how much they turn their inputs (Men et al.: ShortGPT: Layers in Large Language
Models are More Redundant Than You Expect, 2024); layers at even distances are the usual start of a distillation (Sanh
et al.: DistilBERT, 2019). Without distillation afterwards the vectors are poor.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.prune_ffn import narrow
from skerry.build.techniques.samples import SHARE_OUT, chosen_texts
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.transformer import Transformer, refuses_transformer
from skerry.spec.errors import ModelKindError

_SHARES = (2 / 3, 1 / 2, 1 / 3)
_NARROW = 0.25
"""The share of neurons that stay where feed-forwards are narrowed too. Deep and narrow students learn more in the same
time than shallow and wide ones that are as fast: docs/experiments.md."""


class LayersSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    keep:
        The numbers of the layers that stay, from 0; empty for every other one.
    width:
        The share of the neurons of feed-forwards that stay, as ``prune-ffn`` chooses them.
    """

    keep: tuple[int, ...] = ()
    width: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0


class PruneLayers:
    """Some of the encoder's layers."""

    name: ClassVar[str] = "prune-layers"
    kind: ClassVar[Kind] = "prune"
    version: ClassVar[int] = 3
    summary: ClassVar[str] = "fewer layers: those that turn the vectors most, or at even distances"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return two thirds, half and a third of the layers at even distances and by influence; takes seconds.

        The first is the one that gains most where it is taught afterwards: two thirds of the layers, and narrower.
        """
        require_accepted(self.refuses(artifact), self.name)
        transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
        count = len(transformer.layers())
        ranked = _by_influence(transformer, workbench, count)
        found: list[tuple[int, ...]] = []
        for share in _SHARES:
            wanted = max(round(count * share), 1)
            if wanted < count:
                found += [_even(count, wanted), tuple(sorted(ranked[:wanted]))]
        plainly = [plain(LayersSettings(keep=keep)) for keep in dict.fromkeys(found)]
        return [plain(LayersSettings(keep=found[0], width=_NARROW)), *plainly] if found else []

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Write the shorter model."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(LayersSettings, settings, self.name)
        transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
        layers = transformer.layers()
        keep = told.keep or _even(len(layers), max(len(layers) // 2, 1))
        if sorted(set(keep)) != list(keep) or not 0 <= keep[0] <= keep[-1] < len(layers):
            raise ModelKindError(
                f"there are no layers {list(keep)}", where=str(artifact.folder),
                expected=f"rising numbers from 0 to {len(layers) - 1}",
            )  # fmt: skip
        for number in reversed([place for place in range(len(layers)) if place not in keep]):
            del layers[number]
        transformer.config.num_hidden_layers = len(keep)
        _shorten_lists(transformer.config, keep)
        if told.width < 1.0:
            narrow(transformer, workbench, told.width)
        return forged(artifact, self, settings, target, transformer.save(target))


def _even(count: int, wanted: int) -> tuple[int, ...]:
    """Return layers at even distances, the first and the last among them: one makes tokens' vectors, one is pooled.

    Between two, the later one is taken: students of them learn better.

    >>> _even(6, 4)
    (0, 2, 4, 5)
    """
    if wanted == 1:
        return (count - 1,)
    return tuple(math.ceil(place * (count - 1) / (wanted - 1)) for place in range(wanted))


def _by_influence(transformer: Transformer, workbench: Workbench, count: int) -> list[int]:
    """Return the layers' numbers, the one first that turns the vectors of tokens most: 1 minus the mean cosine."""
    torch = transformer.torch
    turned = [0.0] * count
    ids = transformer.ids(chosen_texts(workbench, SHARE_OUT))
    for inputs, answer in transformer.run(ids, output_hidden_states=True):
        kept = inputs["attention_mask"] != 0
        for number in range(count):
            before, after = answer.hidden_states[number][kept], answer.hidden_states[number + 1][kept]
            turned[number] += float((1 - torch.nn.functional.cosine_similarity(before, after, dim=1)).sum())
    return sorted(range(count), key=lambda number: (-turned[number], number))


def _shorten_lists(config: Any, keep: tuple[int, ...]) -> None:
    """Cut what the configuration lists layer by layer."""
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list) and len(kinds) > keep[-1]:
        config.layer_types = [kinds[number] for number in keep]
