"""A task of a search: a technique that is still to be applied to a form."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from skerry.build.artifact import Artifact, Step


class Task(NamedTuple):
    """A technique to be applied to an artifact; without settings, the settings are to be found first."""

    artifact: Artifact
    technique: Any
    settings: dict[str, Any] | None = None
    circumstances: str = ""
    rank: int = 0  # of the settings, among those of the technique

    def planned(self) -> Artifact:
        """Return the artifact with the step that is still to be done."""
        step = Step(
            technique=self.technique.name, version=self.technique.version, settings=self.settings or {},
            circumstances=self.circumstances,
        )  # fmt: skip
        form = getattr(self.technique, "makes", self.artifact.form)
        return msgspec.structs.replace(self.artifact, form=form, steps=(*self.artifact.steps, step))
