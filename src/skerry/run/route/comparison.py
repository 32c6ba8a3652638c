"""A comparison: both sides answer the calibration texts, and what the local answers lose is noted for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.run.route.oracle import Oracle
from skerry.run.route.privacy import Gatekeeper
from skerry.run.route.protocol import Answer, BadAnswerError
from skerry.run.route.route import Plan, client_of
from skerry.spec.errors import CalibrationError, SpecError, SpecMissingError
from skerry.spec.ports import Context
from skerry.spec.record import Record
from skerry.spec.units import Duration
from skerry.spec.words import did_you_mean

PATIENCE = Duration(60.0)
_AT_ONCE = 32
_TRIES = 6
_PAUSE_S = 0.5  # before the second try; doubled for each one after
Notify = Callable[[int, int], None]
"""Told how many of how many texts were compared."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came out, text by text: ``scores`` of the local side and its ``losses`` against the cloud.

    ``kind`` is what was measured: ``signed`` (-1, 0 or 1) where right answers were known, else ``disagreement`` of
    labels (0 or 1) or ``distance`` of vectors (0 to 1). ``agreement`` is the share of texts with the same answer on
    both sides; ``kept_back`` of the texts may not leave and were left out.
    """

    scores: list[float]
    losses: list[float]
    kind: Literal["signed", "disagreement", "distance"]
    agreement: float
    remote: str
    bytes: int
    kept_back: int = 0


def read_examples(path: Path, field: str) -> list[dict[str, Any]]:
    """Read calibration texts: one per line, or ``.jsonl`` with the record's fields, ``text`` and perhaps ``label``.

    Unlike texts to choose a model by, equal ones stay: they say how often each comes.

    Raises ``SpecMissingError`` where there is no such file, ``SpecError`` for a line without a text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecMissingError(f"cannot read the calibration texts: {error}", where=str(path)) from error
    if path.suffix != ".jsonl":
        return [{field: line} for line in lines if line.strip()]
    return [_example(line, field, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _example(line: str, field: str, where: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise SpecError(f"this is no JSON object: {error}", where=where) from error
    if not isinstance(found.get(field), str):
        if not isinstance(found.get("text"), str):
            raise SpecError(f"the line has no text in {field!r} nor in 'text'", where=where)
        found[field] = found["text"]
    return found


def compare(
    plan: Plan, local: Any, context: Context, examples: Sequence[Mapping[str, Any]], notify: Notify
) -> Comparison:
    """Ask both sides for every example.

    Parameters
    ----------
    local:
        The stage, made with the options of the plan's subject; it is opened and closed here.

    Raises
    ------
    CalibrationError
        The cloud does not answer, or gives answers that are none: leaving those texts out would flatter one side.
    SpecError
        Some examples have a label and others have none, or a label is none of the stage's.
    """
    patient = max(plan.cloud.timeout, PATIENCE)  # nobody waits for these answers, and many go in one exchange
    plan = msgspec.structs.replace(plan, cloud=msgspec.structs.replace(plan.cloud, timeout=patient))
    gate = Gatekeeper(plan.privacy, plan.cloud)
    sent = [gate.sent(example, plan.subject.sent) for example in examples]
    chosen = [(example, text) for example, text in zip(examples, sent, strict=True) if text is not None]
    names = plan.subject.labels(context.home)
    labelled = _labelled([example for example, _ in chosen], names)
    client = client_of(plan, context)
    oracle = Oracle(client, plan.subject, plan.cloud, context)
    scores: list[float] = []
    losses: list[float] = []
    same = 0.0
    local.open(context)
    try:
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen[start : start + _AT_ONCE]
            answers = _asked(oracle, [text for _, text in part], float(plan.cloud.timeout), context.log)
            for (example, _), answer in zip(part, answers, strict=True):
                score, apart, loss = _compared(plan, local, example, answer, labelled)
                scores.append(score)
                losses.append(loss)
                same += 1 - apart
            notify(len(scores), len(chosen))
    finally:
        local.close()
        oracle.close()
    return Comparison(
        scores=scores, losses=losses, kind="signed" if labelled else "disagreement" if names else "distance",
        agreement=same / len(scores) if scores else 0.0, remote=client.remote,
        bytes=client.traffic.bytes, kept_back=len(examples) - len(chosen),
    )  # fmt: skip


def _labelled(examples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    """Tell whether right answers are known, and refuse some that no side could ever give.

    Both sides would be wrong there, so that nothing would seem to be lost by never asking.
    """
    if not names:  # of a vector, no label tells anything
        return False
    count = sum("label" in example for example in examples)
    if count not in {0, len(examples)}:
        raise SpecError(
            f"{count} of {len(examples)} calibration texts have a label", expected="`label` in every line, or in none"
        )
    for example in examples if count else ():
        if example["label"] not in names:
            raise SpecError(
                f"the calibration text {str(example.get('text', ''))[:40]!r} has the label {example['label']!r}, "
                "which is none of the stage's", expected=f"one of {', '.join(names)}",
                hint=did_you_mean(str(example["label"]), names),
            )  # fmt: skip
    return bool(count)


def _compared(
    plan: Plan, local: Any, example: Mapping[str, Any], answer: Answer, labelled: bool
) -> tuple[float, float, float]:
    """Return the local side's score, how far both answers are apart, and the local side's loss."""
    subject = plan.subject
    mine, theirs = Record(dict(example)), Record(dict(example))
    local.process(mine)
    score = subject.score(mine.fields, plan.cloud.rank)
    try:
        subject.take(theirs.fields, answer)
    except BadAnswerError as error:
        raise _no_answer(error) from error
    ours, cloud = subject.answer(mine.fields), subject.answer(theirs.fields)
    apart = subject.loss(ours, cloud)
    if not labelled:
        return score, apart, apart
    truth = example["label"]
    return score, apart, subject.loss(ours, truth) - subject.loss(cloud, truth)


def _asked(oracle: Oracle, texts: Sequence[str], timeout_s: float, log: logging.Logger) -> list[Answer]:
    """Ask, and ask again after a pause; raises ``CalibrationError`` when that does not help either."""
    pause = _PAUSE_S
    for number in range(1, _TRIES + 1):
        try:
            return oracle.ask(texts, timeout_s)
        except (BadAnswerError, OSError) as error:
            if number == _TRIES:
                raise _no_answer(error) from error
            log.warning("no answer (%s); asking again in %g s", error, pause)
        time.sleep(pause)
        pause *= 2
    raise AssertionError("the loop returns or raises")


def _no_answer(error: Exception) -> CalibrationError:
    return CalibrationError(
        f"the cloud does not answer as it should: {error}", expected="an answer to every calibration text",
        hint="see that it runs, and that `url` and `protocol` are right",
    )  # fmt: skip
