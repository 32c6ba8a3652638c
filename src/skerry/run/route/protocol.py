"""Protocols: how a cloud is asked for answers to texts, and what its reply has to look like. Pure.

An answer that is not exactly what it should be is no answer: the reply of a captive portal, a vector of another
length or a number that is none raises ``BadAnswerError``, and the local answer stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from skerry.run.http_client import Reply
from skerry.spec.cloud import Cloud

MOST_VECTOR = 65_536
"""Numbers of a vector; more is no embedding."""


class BadAnswerError(Exception):
    """A reply that cannot be taken for an answer; ``reason`` is the word it is counted by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Answer(msgspec.Struct, frozen=True):
    """What a cloud says of one text: a label with its probability, or a vector."""

    label: str | None = None
    score: float | None = None
    vector: tuple[float, ...] | None = None


class Form(msgspec.Struct, frozen=True):
    """One way of asking: the URL's ending, the body for some texts, and how the reply is read."""

    path: str
    at_once: int
    """Texts in one request."""
    body: Callable[[Sequence[str]], bytes]
    read: Callable[[Any, int], list[Answer]]


def form_of(cloud: Cloud, labels: Sequence[str], *, field: str, outputs: Sequence[str] = ()) -> Form:
    """Return the way of asking a cloud.

    Parameters
    ----------
    labels:
        What the answers may be called; empty where vectors are wanted.
    field:
        The name of the text in plain JSON.
    outputs:
        Those of an OIP model's outputs that are asked for; all when it is empty.
    """
    if cloud.spoken == "oip":
        return Form("/infer", 32, lambda texts: _oip_body(texts, outputs), _oip)
    if cloud.spoken == "embeddings":
        return Form("", 32, lambda texts: _json({"model": cloud.model, "input": list(texts)}), _embeddings)
    if cloud.spoken == "chat":
        return Form("", 1, lambda texts: _chat_body(cloud.model, labels, texts[0]), _chat)
    return Form("", 1, lambda texts: _json({field: texts[0]}), _plain)


def parsed(reply: Reply, form: Form, count: int, labels: Sequence[str]) -> list[Answer]:
    """Return ``count`` answers; raises ``BadAnswerError`` for anything that is not exactly that many good ones."""
    if not reply.is_success:
        raise BadAnswerError(f"status_{reply.status}", f"HTTP {reply.status}: {reply.excerpt()}")
    if "html" in reply.content_type.lower() or reply.body.lstrip()[:1] == b"<":
        raise BadAnswerError("html", "a page came instead of an answer: a captive portal, or a wrong URL")
    try:
        data = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswerError("no_json", f"no JSON: {reply.excerpt()}") from error
    if not isinstance(data, dict):
        raise BadAnswerError("shape", f"a JSON object was expected: {reply.excerpt()}")
    if data.get("error"):
        raise BadAnswerError("error", f"an error with status {reply.status}: {reply.excerpt()}")
    try:
        answers = form.read(data, count)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadAnswerError("shape", f"an answer of another form: {reply.excerpt()}") from error
    if len(answers) != count:
        raise BadAnswerError("shape", f"{len(answers)} answers to {count} texts")
    for answer in answers:
        _require_sound(answer, labels)
    return answers


def _require_sound(answer: Answer, labels: Sequence[str]) -> None:
    if answer.label is None and answer.vector is None:
        raise BadAnswerError("shape", "neither a label nor a vector")
    if labels and answer.label is not None and answer.label not in labels:
        raise BadAnswerError("label", f"the label {answer.label[:60]!r} is none of ours")
    if answer.score is not None and not 0 <= answer.score <= 1:  # a NaN is neither
        raise BadAnswerError("nan", f"a score of {answer.score}")
    if answer.vector is not None and not all(map(math.isfinite, answer.vector)):
        raise BadAnswerError("nan", "a vector with numbers that are not finite")


def _json(data: Any) -> bytes:
    return msgspec.json.encode(data)


def _oip_body(texts: Sequence[str], outputs: Sequence[str]) -> bytes:
    data: dict[str, Any] = {
        "inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}]
    }  # fmt: skip
    if outputs:
        data["outputs"] = [{"name": name} for name in outputs]
    return _json(data)


def _oip(data: Any, count: int) -> list[Answer]:
    """Read ``label`` with ``score``, or the first output of one vector for each text."""
    outputs = {output["name"]: output for output in data["outputs"]}
    if "label" in outputs:
        labels = outputs["label"]["data"]
        scores = outputs["score"]["data"] if "score" in outputs else [None] * len(labels)
        return [Answer(_text(label), _number(score)) for label, score in zip(labels, scores, strict=True)]
    vectors = [output for output in outputs.values() if len(output["shape"]) == 2][0]  # noqa: RUF015 -- IndexError is a bad answer
    rows, width = vectors["shape"]
    numbers = vectors["data"]
    if rows != count or not 0 < width <= MOST_VECTOR or len(numbers) != rows * width:
        raise ValueError("a shape that the data do not have")
    return [Answer(vector=_vector(numbers[row * width : (row + 1) * width])) for row in range(rows)]


def _embeddings(data: Any, count: int) -> list[Answer]:
    found = sorted(data["data"], key=lambda item: int(item["index"]))
    if [item["index"] for item in found] != list(range(count)):
        raise ValueError("other indexes than those of the texts")
    return [Answer(vector=_vector(item["embedding"])) for item in found]


def _chat_body(model: str, labels: Sequence[str], text: str) -> bytes:
    said = "Sort the user's text into one of these classes and answer with the name of the class alone: "
    return _json({
        "model": model, "temperature": 0, "max_tokens": 32,
        "messages": [{"role": "system", "content": said + ", ".join(labels)}, {"role": "user", "content": text}],
    })  # fmt: skip


def _chat(data: Any, _count: int) -> list[Answer]:
    choice = data["choices"][0]
    return [Answer(choice["message"]["content"].strip().strip(".\"'`").strip())]


def _plain(data: Any, _count: int) -> list[Answer]:
    if "embedding" in data:
        return [Answer(vector=_vector(data["embedding"]))]
    return [Answer(_text(data["label"]), _number(data.get("score")))]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a label that is no text")
    return value


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        if value is None:
            return None
        raise TypeError("a score that is no number")
    return float(value)


def _vector(values: Any) -> tuple[float, ...]:
    """Return numbers; ``null``, which some servers write for NaN, is refused as such."""
    if not isinstance(values, list) or not 0 < len(values) <= MOST_VECTOR:
        raise TypeError("a vector that is no list of numbers")
    if None in values:
        raise BadAnswerError("nan", "a vector with a null in it")
    return tuple(float(value) for value in values)
