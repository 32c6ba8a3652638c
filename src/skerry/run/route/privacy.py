"""Privacy: which fields of a record may leave the device, and in what form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from skerry.run.stages.redact import RedactOptions, RedactStage
from skerry.spec.cloud import Cloud
from skerry.spec.document import Document, Keys
from skerry.spec.errors import SpecError
from skerry.spec.pipeline import Privacy, StageEntry
from skerry.spec.words import did_you_mean


class Gatekeeper:
    """Decides what of a record leaves the device.

    Fields called ``public`` or ``internal`` leave as they are. A ``personal`` one leaves as it is where the record's
    ``consent`` field is ``true``, redacted where ``redact`` names something, and otherwise not at all; nor does one
    without a label, whatever happens.

    Parameters
    ----------
    labels:
        The pipeline's ``privacy``.
    cloud:
        What is redacted, and the field that consents.
    """

    def __init__(self, labels: Mapping[str, Privacy], cloud: Cloud) -> None:
        self._labels, self._consent = dict(labels), cloud.consent
        self._redact = RedactStage(RedactOptions(kinds=list(cloud.redact))) if cloud.redact else None

    def sent(self, fields: Mapping[str, Any], name: str) -> str | None:
        """Return the text of a field as it may leave; ``None`` where it may not, or is none."""
        value, label = fields.get(name), self._labels.get(name)
        if not isinstance(value, str) or label is None:
            return None
        if label != "personal" or (self._consent is not None and fields.get(self._consent) is True):
            return value
        return self._redact.redact(value) if self._redact is not None else None


def check_privacy(document: Document, keys: Keys, cloud: Cloud, name: str, labels: Mapping[str, Privacy]) -> None:
    """Raise ``SpecError`` for a field that would be sent without a label, or that could never be sent.

    Parameters
    ----------
    keys:
        What leads to the stage's options in the file.
    name:
        The field whose text the stage would send.
    labels:
        The pipeline's ``privacy``.
    """
    if name not in labels:
        raise SpecError(
            f"the field {name!r} would leave the device, and `privacy` does not say whether it may",
            where=document.place_of_key((*keys, "cloud")),
            expected=f"privacy: {{{name}: public}} at the top of the file, or internal, or personal",
            hint=did_you_mean(name, labels),
        )
    if labels[name] == "personal" and not cloud.redact and cloud.consent is None:
        raise SpecError(
            f"the field {name!r} is personal, so that the cloud would never be asked",
            where=document.place_of_key((*keys, "cloud")),
            expected="`redact: [email, …]`, or `consent:` with the name of the field that allows it",
        )


def check_origin(
    document: Document, keys: Keys, before: Sequence[StageEntry], name: str, labels: Mapping[str, Privacy]
) -> None:
    """Raise ``SpecError`` for a field that may leave, and that a `map` before it makes of a personal one.

    What `redact` went over is personal no more. A function, a program or a model may hide where a text comes from: it
    is the label of its field that counts.

    Parameters
    ----------
    keys:
        What leads to the stage's options in the file.
    before:
        The stages above it, in the order of the file.
    """
    if labels.get(name, "personal") == "personal":
        return
    origins = {field: field for field, label in labels.items() if label == "personal"}
    for entry in before:
        options = entry.options if isinstance(entry.options, dict) else {}
        if entry.kind == "redact":
            for field in options.get("fields") or list(origins):
                origins.pop(field, None)
        made = options.get("set") if entry.kind == "map" else None
        for field, source in made.items() if isinstance(made, dict) else ():
            of = next((origins[word] for word in _names(str(source)) if word in origins), None)
            if of is not None:
                origins[field] = of
            elif labels.get(field) != "personal":
                origins.pop(field, None)
    if name in origins:
        raise SpecError(
            f"the field {name!r} is made of {origins[name]!r}, which is personal, and would leave as {labels[name]}",
            where=document.place_of_key((*keys, "cloud")),
            expected=f"privacy: {{{name}: personal}} with `redact` in `cloud`, or a `redact` stage before it",
        )


def _names(expression: str) -> list[str]:
    """Return the words of a CEL expression outside of its texts."""
    return re.findall(r"[A-Za-z_]\w*", re.sub(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", " ", expression))
