"""Settings: what a technique is told, checked before any work, and noted in what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from skerry.build.artifact import Artifact, Step
from skerry.spec.errors import ModelKindError, SpecError
from skerry.spec.words import did_you_mean


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every technique's settings: each field has a default, so that ``{}`` is valid."""


Kind = TypeVar("Kind", bound=Settings)


def read_settings(kind: type[Kind], given: dict[str, Any], technique: str) -> Kind:
    """Return checked settings; raises ``SpecError`` naming the one that is wrong."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for name in given:
        if name not in known:
            raise SpecError(
                f"there is no setting {name!r}", where=technique, expected=f"one of {', '.join(known) or '(none)'}",
                hint=did_you_mean(str(name), known),
            )  # fmt: skip
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise SpecError(f"a setting is wrong: {error}", where=technique) from error


def plain(settings: Settings) -> dict[str, Any]:
    """Return settings as plain JSON values, defaults included."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))
    return found


def require_accepted(reason: str, technique: str) -> None:
    """Raise ``ModelKindError`` with what ``refuses`` said, if it said something."""
    if reason:
        raise ModelKindError(f"{technique} cannot be applied: {reason}")


def forged(
    artifact: Artifact, technique: Any, settings: dict[str, Any], target: Path, files: tuple[str, ...], **changes: Any
) -> Artifact:
    """Return the artifact that ``technique`` made of another: ``files`` in ``target``, the first of them the model."""
    step = Step(technique=technique.name, version=technique.version, settings=dict(settings))
    return msgspec.structs.replace(
        artifact, folder=target, file=files[0], files=files, steps=(*artifact.steps, step), **changes
    )
