"""Options of a runtime: what was given is read into its struct, or refused in the same words by all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from skerry.spec.errors import SpecError
from skerry.spec.ports import Options
from skerry.spec.words import did_you_mean

Chosen = TypeVar("Chosen", bound=Options)


def read_options(runtime: str, kind: type[Chosen], options: Mapping[str, Any] | None) -> Chosen:
    """Return the options of a runtime; raises ``SpecError`` for one that is unknown or wrong."""
    given, known = dict(options or {}), kind.__struct_fields__
    unknown = [key for key in given if key not in known]
    if unknown:
        raise SpecError(
            f"the {runtime} runtime has no option {unknown[0]!r}",
            expected=f"one of {', '.join(known)}",
            hint=did_you_mean(unknown[0], known),
        )
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise SpecError(f"options of the {runtime} runtime: {error}") from error


def require_threads(threads: int) -> None:
    """Raise ``SpecError`` for a number of threads that cannot run a model."""
    if threads < 1:
        raise SpecError(f"{threads} threads cannot run a model", expected="1 or more")
