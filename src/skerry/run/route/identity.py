"""Identity: the digests of all that a calibration is for."""

from __future__ import annotations

from typing import Any

from skerry.run.route.evidence import digest_of, digest_of_cloud, digest_of_file
from skerry.run.route.subject import Subject
from skerry.spec.cloud import Cloud
from skerry.spec.ports import Context


def digests_in_use(subject: Subject, cloud: Cloud, context: Context, data: str | None) -> dict[str, str]:
    """Return the digests of the local model, the stage's options, the cloud's address and the calibration data.

    Data that are not there, as on a device that only got the build, are left out. Raises what opening the model raises.
    """
    found = {
        "local": digest_of(_variant(subject.model, context)),
        "stage": digest_of(subject.digest(context.home)),
        "cloud": digest_of_cloud(cloud),
    }
    if data is not None and (path := context.home / data).is_file():
        found["data"] = digest_of_file(path)
    return found


def _variant(name: str, context: Context) -> Any:
    """Return what tells one local model from another: the files of the variant on the highest rung."""
    model = context.models(name) if context.models is not None else None
    rungs = getattr(model, "rungs", None)
    if rungs:
        return [rungs[0].runtime, rungs[0].files()]
    return [type(model).__name__, getattr(model, "dimension", 0)]
