"""A toolchained technique: one whose work is done by a converter in an environment of its own."""

from __future__ import annotations

from typing import Any

from skerry.build.technique import Workbench
from skerry.spec.errors import DependencyError


def ask_converter(
    technique: str, toolchain: str, script: str, request: dict[str, Any], workbench: Workbench
) -> dict[str, Any]:
    """Return a converter's answer; see :mod:`skerry.build.toolchain` for requests, answers and errors.

    Raises ``DependencyError`` with the command that installs the toolchain where it is missing or not to be used.
    """
    hint = f"skerry toolchain install {toolchain}"
    if workbench.toolchain is None:
        raise DependencyError(
            f"{technique} needs the toolchain {toolchain}, and this build uses none", where=technique, hint=hint
        )
    try:
        return workbench.toolchain(toolchain, script, request)
    except DependencyError as error:
        if error.hint.startswith(hint):
            raise
        also = f"; {error.hint}" if error.hint else ""
        raise DependencyError(
            error.message, where=error.where or technique, expected=error.expected, hint=hint + also
        ) from error
