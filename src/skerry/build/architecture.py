"""An architecture: what ``config.json`` tells of a model before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.errors import ModelCorruptError, ModelKindError, ModelMissingError, SpecError
from skerry.spec.words import did_you_mean

CONFIG = "config.json"

TOWERS = ("text", "vision", "audio")
"""The things that models compare, each by a part of its own: where two of ``text_config`` and so on are there."""

_SHIFTED: dict[str, int] = {"camembert": 2, "mpnet": 2, "roberta": 2, "xlm-roberta": 2, "xlm-roberta-xl": 2, "xmod": 2}
"""Families that number positions from behind that of the padding, so that the first ones hold no token."""


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration tells.

    Attributes
    ----------
    family:
        The ``model_type``.
    parts:
        The graphs that the model has: none where it is one whole.
    positions:
        By part (the empty name for the whole), the most tokens that it takes; 0 where nothing is told.
    texts:
        The parts (the empty name for the whole) that take tokens of text.
    """

    family: str
    parts: tuple[str, ...]
    positions: dict[str, int]
    texts: frozenset[str]

    def chosen(self, part: str | None, where: Path) -> str:
        """Return the part that is meant, empty for the whole.

        Raises ``SpecError`` where one has to be named, or the one that is named is not there.
        """
        if not self.parts:
            if part is not None:
                raise SpecError(f"a model of the kind {self.family} has no part {part!r}", where=str(where),
                                expected="no `part`")  # fmt: skip
            return ""
        if part is None:
            raise SpecError(
                f"this model ({self.family}) has several parts", where=str(where), expected=_named(self.parts)
            )
        if part not in self.parts:
            raise SpecError(
                f"this model ({self.family}) has no part {part!r}", where=str(where), expected=_named(self.parts),
                hint=did_you_mean(part, self.parts),
            )  # fmt: skip
        return part


def read_architecture(folder: Path) -> Architecture:
    """Read ``config.json``.

    Raises
    ------
    ModelMissingError
        There is none.
    ModelCorruptError
        It is damaged.
    ModelKindError
        The model needs code of its own, or the file names no architecture.
    """
    path = folder / CONFIG
    config = read_json(path)
    _require_no_code(config, path)
    family = str(config.get("model_type", ""))
    if not family:
        raise ModelKindError(
            "the architecture (none) cannot be built", where=str(path), expected="a model_type",
            hint="an ONNX export of it can be named instead",
        )  # fmt: skip
    towers = {name: config[f"{name}_config"] for name in TOWERS if isinstance(config.get(f"{name}_config"), dict)}
    if len(towers) > 1:
        return Architecture(
            family=family, parts=tuple(towers),
            positions={name: _positions(inner, family) for name, inner in towers.items()},
            texts=frozenset(name for name in towers if name == "text"),
        )  # fmt: skip
    if config.get("is_encoder_decoder"):
        most = _positions(config, family)
        speaks = "num_mel_bins" in config or "vocab_size" not in config
        return Architecture(
            family=family, parts=("encoder", "decoder"), positions={"encoder": most, "decoder": most},
            texts=frozenset(() if speaks else ("encoder",)),
        )  # fmt: skip
    takes_text = "vocab_size" in config and "image_size" not in config
    return Architecture(
        family=family,
        parts=(),
        positions={"": _positions(config, family)},
        texts=frozenset(("",) if takes_text else ()),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; raises ``ModelMissingError`` or ``ModelCorruptError``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise ModelMissingError(f"the folder holds no {path.name}", where=str(path.parent)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelCorruptError(f"this file is damaged: {error}", where=str(path)) from error


def _require_no_code(config: Mapping[str, Any], path: Path) -> None:
    """Raise ``ModelKindError`` for a model that is only described by a program beside its weights."""
    named = config.get("auto_map")
    if not named:
        return
    file = str(next(iter(named.values()), "") if isinstance(named, dict) else named).partition("--")[2]
    raise ModelKindError(
        "the model brings an architecture of its own as a program, which is never run",
        where=str(path),
        expected="an architecture of the package transformers",
        hint=f"export it to ONNX where you trust {file or 'that program'}; if transformers knows the architecture by"
        " itself, take auto_map out of the file",
    )


def _positions(config: Mapping[str, Any], family: str) -> int:
    names = ("max_position_embeddings", "max_target_positions", "n_positions")
    told = next((config[name] for name in names if isinstance(config.get(name), int)), 0)
    return max(0, told - _SHIFTED.get(family, 0))


def _named(parts: tuple[str, ...]) -> str:
    return " or ".join(f"`part: {part}`" for part in parts)
