"""Evidence: the threshold of a stage, what vouches for it, and for which models and data it does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.digest import PREFIX
from skerry.spec.cloud import Cloud
from skerry.spec.errors import CalibrationError
from skerry.spec.units import encode_unit

FOLDER = "calibration"
ALWAYS_ASK = 2.0
"""The conservative threshold: no score is above 1, so that no local answer stands where the cloud may be asked.

It loses nothing against always asking, whatever the data have become."""
_NOUNS = {
    "local": "the local model", "stage": "the options of the stage", "cloud": "the cloud",
    "remote": "the model in the cloud", "data": "the calibration data",
}  # fmt: skip


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold of the curve: the share of answers that stand, their mean loss, and whether it was vouched for."""

    threshold: float
    local_share: float
    loss: float
    held: bool


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``.skerry/<name>/calibration/<stage>.json``, written by ``skerry calibrate``.

    Parameters
    ----------
    threshold:
        Local answers with at least this score stand.
    kind, count:
        What loss was measured (``signed`` with right answers, ``disagreement`` without), on how many texts.
    loss, bound, local_share:
        The loss at the threshold in the sample, its upper bound, and the share of answers that stood.
    max_quality_loss, certainty, rank:
        What was asked for, and what the answers were ranked by.
    agreement:
        The share of all texts to which both sides gave the same answer.
    digests:
        Of the local model, the stage's options, the cloud's address and model, and the data.
    """

    skerry: int = 1
    stage: str
    made: str
    threshold: float
    kind: str
    count: int
    loss: float
    bound: float
    local_share: float
    max_quality_loss: float
    certainty: float
    rank: str
    agreement: float
    digests: dict[str, str]
    curve: list[Step] = []


def file_of(folder: Path, stage: str) -> Path:
    """Return where the evidence of a stage is, in the folder of a build."""
    return folder / FOLDER / f"{stage}.json"


def read_evidence(folder: Path, stage: str, *, where: str = "") -> Evidence:
    """Read the evidence of a stage; raises ``CalibrationError`` where there is none, or a damaged one."""
    path = file_of(folder, stage)
    hint = "run `skerry calibrate PROJECT`"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evidence)
    except FileNotFoundError as error:
        raise CalibrationError(
            f"{stage} may ask a cloud, and nobody has measured yet when that pays", where=where or str(path),
            expected="a calibrated threshold", hint=hint,
        ) from error  # fmt: skip
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"the calibration of {stage} cannot be read: {error}", where=str(path), hint=hint
        ) from error


def write_evidence(folder: Path, evidence: Evidence) -> Path:
    """Write the evidence in one step and return the file; raises ``CalibrationError`` where it cannot be written."""
    path = file_of(folder, evidence.stage)
    draft = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise CalibrationError(
            f"the calibration cannot be written down: {error.strerror or error}", where=str(path)
        ) from error
    return path


def require_fresh(evidence: Evidence, cloud: Cloud, digests: Mapping[str, str], *, where: str = "") -> None:
    """Raise ``CalibrationError`` where the evidence is for something else than what is in use.

    A stricter calibration serves a laxer demand. ``digests`` may leave out what is not known here: data that did not
    come along to the device, a cloud that was not reached yet.
    """
    changed = [noun for key, noun in _NOUNS.items() if key in digests and digests[key] != evidence.digests.get(key)]
    wanted = {
        "max_quality_loss": evidence.max_quality_loss <= cloud.max_quality_loss + 1e-9,
        "certainty": evidence.certainty >= cloud.certainty - 1e-9,
        "rank": evidence.rank == cloud.rank,
    }
    changed += [f"`{name}`" for name, serves in wanted.items() if not serves]
    if changed:
        raise CalibrationError(
            f"the calibration of {evidence.stage} is stale: {', '.join(changed)} changed since {evidence.made}",
            where=where, expected="a threshold that was measured on what is in use",
            hint="run `skerry calibrate PROJECT` again",
        )  # fmt: skip


def digest_of(value: Any) -> str:
    """Return the digest of a value made of plain data and structs."""
    return PREFIX + hashlib.sha256(msgspec.json.encode(value, enc_hook=encode_unit, order="sorted")).hexdigest()


def digest_of_cloud(cloud: Cloud) -> str:
    """Return the digest of what decides the cloud's answers: where, what and how it is asked, and what is redacted."""
    return digest_of([cloud.url, cloud.spoken, cloud.model, cloud.head, sorted(cloud.redact)])


def digest_of_file(path: Path) -> str:
    """Return the digest of a file; raises ``OSError``."""
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()
