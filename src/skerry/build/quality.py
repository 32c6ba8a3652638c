"""Quality: how well a candidate answers, beside the original or the truth, by metrics that are called by name.

Answers are an array with one row for each item, or a list with one array for each, of any shape.

Every metric gives an :class:`~skerry.build.figures.Estimate`: the figure over all items, and its 95 % interval by a
bootstrap over items. A name may end in a number (``agreement@10``), or be a user's own function, ``module:function``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from skerry.build import bootstrap
from skerry.build.answers import are_scores, classes, cosines, token_losses, unit
from skerry.build.detections import mean_average_precision
from skerry.build.figures import Estimate
from skerry.spec.errors import ModelError, SpecError
from skerry.spec.pipeline import Task
from skerry.spec.ports import Array
from skerry.spec.words import did_you_mean

_DIGITS = 6
"""Likenesses are rounded to so many digits, so that float32 noise does not decide the order of equal texts."""

_FUNCTION_RESAMPLES = 100
"""A user's function may be slow, and its interval is only told in the report."""

NO_CLASS = -100
"""The label of a token that does not count, as PyTorch's losses have it."""

EVERY_TASK: tuple[Task, ...] = ("embedding", "classification", "tensors")
_WITH_CLASSES: tuple[Task, ...] = ("classification", "tensors")

Measure = Callable[[Any, Any, Any, int, int], Estimate]
"""Takes the original's answers, the candidate's, the truth, the number after ``@``, and a seed."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric: how it is computed, and what it needs.

    ``number`` is what stands after ``@`` when nothing does; ``None`` for a metric without one. ``truth`` says where the
    right answers stand, for a metric that needs them; ``tasks`` are those whose models give such answers in a search.
    """

    measure: Measure
    summary: str
    truth: str = ""
    number: int | None = None
    tasks: tuple[Task, ...] = EVERY_TASK


def evaluate(
    name: str, reference: Any, candidate: Any, truth: Sequence[Any] | None = None, *, seed: int = 0
) -> Estimate:
    """Return a candidate's quality.

    Parameters
    ----------
    name:
        Of the metric, such as ``agreement@10``, ``accuracy`` or ``my_module:my_function``.
    reference, candidate:
        The answers of both, item by item; each metric's function tells in what form.
    truth:
        The right answers, where the metric needs them.

    Raises
    ------
    SpecError
        The metric is unknown, lacks its truth, or there are too few items; a user's function cannot be found or fails.
    ModelError
        The answers are not of the form that the metric takes.
    """
    metric = require_metric(name, truth=truth)
    if len(candidate) == 0:
        raise SpecError("there is nothing to judge by", where=name, expected="at least one item")
    if reference is not None and len(reference) != len(candidate):
        raise ModelError(f"{len(candidate)} answers beside {len(reference)} of the original", where=name)
    if truth is not None and len(truth) != len(candidate):
        raise SpecError(f"{len(truth)} right answers for {len(candidate)} items", where=name)
    return metric.measure(reference, candidate, truth, _number(name, metric), seed)


def require_metric(name: str, *, truth: Sequence[Any] | None = None, check_truth: bool = True) -> Metric:
    """Return the metric of a name; raises ``SpecError`` with the nearest one, or when its truth is missing."""
    metric = _users_metric(name) if ":" in name else _known_metric(name)
    if check_truth and metric.truth and truth is None:
        raise SpecError(f"the metric {name!r} needs the right answers", where="quality.metric", expected=metric.truth)
    return metric


def _known_metric(name: str) -> Metric:
    word, _, number = name.partition("@")
    metric = METRICS.get(word)
    if metric is None or (number and (metric.number is None or not re.fullmatch(r"[1-9]\d{0,5}", number))):
        raise SpecError(
            f"unknown metric {name!r}", where="quality.metric", expected=f"one of {', '.join(names())}",
            hint=did_you_mean(name, names()),
        )  # fmt: skip
    return metric


def require_metric_for(name: str, task: Task, *, truth: Sequence[Any] | None) -> Metric:
    """Return a metric that a search of a task's models can go by; raises ``SpecError`` like :func:`require_metric`."""
    metric = require_metric(name, check_truth=False)
    if task not in metric.tasks:
        fitting = [each for each in names() if task in METRICS[each.partition("@")[0]].tasks]
        raise SpecError(
            f"models of the task {task!r} give no answers that {name!r} can be taken of", where="quality.metric",
            expected=f"one of {', '.join(fitting)}", hint="a function of your own takes any answers: module:function",
        )  # fmt: skip
    return require_metric(name, truth=truth)


def condensed(names: Sequence[str], answer: Array, truth: Any) -> Array:
    """Return as much of an item's answer as the metrics need: logits over a vocabulary would fill the memory.

    For ``perplexity`` alone, these are the negative log probabilities of the next tokens.
    """
    return token_losses(answer, truth) if set(names) == {"perplexity"} else answer


def names() -> list[str]:
    """Return the names of all metrics, with the number that each has when none is given."""
    return [name if metric.number is None else f"{name}@{metric.number}" for name, metric in sorted(METRICS.items())]


def agreement(reference: Array, candidate: Array, truth: Any, number: int, seed: int) -> Estimate:
    """Return *agreement@k*: the share of each text's k nearest texts by cosine that are the same for both.

    ``reference`` and ``candidate`` are float of shape (texts, dimension), or see :func:`skerry.build.answers.vectors`;
    the dimensions may differ. Among equally near texts the earlier one counts as nearer. The texts that are drawn again
    are those asked about; the others stay.
    """
    _require_more(number, len(candidate), "agreement")
    one, other = (_nearest(_likeness(rows), number) for rows in (unit(reference), unit(candidate)))
    shared = [len(set(mine) & set(theirs)) for mine, theirs in zip(one.tolist(), other.tolist(), strict=True)]
    return _mean([count / number for count in shared], seed)


def cosine(reference: Array, candidate: Array, truth: Any, number: int, seed: int) -> Estimate:
    """Return the mean cosine between both vectors of a text, float of shape (texts, dimension); or of any arrays."""
    return _mean(cosines(reference, candidate), seed)


def least_cosine(reference: Array, candidate: Array, truth: Any, number: int, seed: int) -> Estimate:
    """Return the least cosine between both vectors of a text.

    The least of a drawing is never below the least of all: the interval only tells on how few texts it depends.
    """
    values = cosines(reference, candidate)
    return bootstrap.estimate(lambda drawn: values[drawn].min(axis=1), len(values), seed=seed)


def recall(reference: Any, candidate: Any, truth: Sequence[Any], number: int, seed: int) -> Estimate:
    """Return *recall@k* of a retrieval: the mean share of a text's relevant texts among its k nearest by cosine.

    ``candidate`` is float of shape (texts, dimension); ``truth`` names for each text the places of the relevant ones.
    Texts for which none is relevant are left out, and places beyond the texts do not count. Source: Manning, Raghavan,
    Schütze, *Introduction to Information Retrieval*, 2008, chapter 8.
    """
    _require_more(number, len(candidate), "recall")
    rows = unit(candidate)
    found = _nearest(_likeness(rows), number).tolist()
    there = [{place for place in relevant if place < len(rows)} for relevant in truth]
    values = [
        len(set(near) & relevant) / len(relevant) for near, relevant in zip(found, there, strict=True) if relevant
    ]
    if not values:
        raise SpecError("no text has a relevant one", where="recall")
    return _mean(values, seed)


def accuracy(reference: Any, candidate: Any, truth: Sequence[Any], number: int, seed: int) -> Estimate:
    """Return the share of right classes; the answers are logits of shape (items, classes).

    For a class of each token or pixel, an answer is of shape (..., classes) and its truth of shape (...): then the
    right ones of all items are counted by all, those labelled :data:`NO_CLASS` left out.
    """
    import numpy as np

    right, counted = [], []
    for said, wanted in zip(classes(candidate), map(np.asarray, truth), strict=True):
        if said.shape != wanted.shape:
            raise ModelError(f"classes of the shape {said.shape} for labels of {wanted.shape}", where="accuracy")
        counts = wanted != NO_CLASS
        right.append(float(((said == wanted) & counts).sum()))
        counted.append(float(counts.sum()))
    return bootstrap.ratio(np.array(right), np.array(counted), seed=seed)


def exact(reference: Any, candidate: Any, truth: Any, number: int, seed: int) -> Estimate:
    """Return the share of items that are answered as the original does.

    Scores of shape (..., classes) are equal when all their greatest are of the same class, all else when it is equal.
    """
    import numpy as np

    if not are_scores(candidate):
        return _mean([_plain(one) == _plain(other) for one, other in zip(reference, candidate, strict=True)], seed)
    pairs = zip(classes(reference), classes(candidate), strict=True)
    return _mean([np.array_equal(one, other) for one, other in pairs], seed)


def macro_f1(reference: Any, candidate: Array, truth: Sequence[int], number: int, seed: int) -> Estimate:
    """Return the mean over classes of F1 = 2 TP / (2 TP + FP + FN); logits of shape (items, classes).

    A class counts when it is right or answered at least once. Source: Opitz, Burst, *Macro F1 and Macro F1*, 2019: the
    mean of the F1 of each class, not the F1 of the means.
    """
    import numpy as np

    right, said = np.asarray(truth), np.stack(classes(candidate))
    if right.shape != said.shape or said.ndim != 1:
        raise ModelError(f"classes of the shape {said.shape} for labels of {right.shape}", where="macro-f1")
    every = np.union1d(right, said)
    is_right, is_said = right[:, None] == every, said[:, None] == every
    parts = np.concatenate([is_right & is_said, is_right, is_said], axis=1).astype(np.float64)

    def statistic(drawn: Array) -> Array:
        counted = np.stack([np.bincount(row, minlength=len(right)) for row in drawn]) @ parts
        hits, wanted, given = np.split(counted, 3, axis=1)
        present = wanted + given > 0
        scores = np.where(present, 2 * hits / np.maximum(wanted + given, 1), 0)
        return np.asarray(scores.sum(axis=1) / present.sum(axis=1))

    return bootstrap.estimate(statistic, len(right), seed=seed)


def word_errors(reference: Any, candidate: Sequence[str], truth: Any, number: int, seed: int) -> Estimate:
    """Return the word error rate: substituted, deleted and inserted words by the words that are right.

    Against ``truth`` where there is one, else against the original's words; texts. Case and blanks do not count.
    Source: Levenshtein, *Binary codes capable of correcting deletions, insertions, and reversals*, 1966, on words;
    errors and words are summed before they are divided, as NIST's sclite does.
    """
    import numpy as np

    right = [_words(text) for text in (reference if truth is None else truth)]
    said = [_words(text) for text in candidate]
    errors = np.array([distance(one, other) for one, other in zip(right, said, strict=True)], dtype=np.float64)
    words = np.array([len(one) for one in right], dtype=np.float64)
    if not words.any():
        raise SpecError("no text has a word", where="wer")
    return bootstrap.ratio(errors, words, seed=seed)


def perplexity(reference: Any, candidate: Sequence[Array], truth: Sequence[Any], number: int, seed: int) -> Estimate:
    """Return exp of the mean negative log probability of a text's next tokens, over all tokens of all texts.

    ``candidate`` holds per text the logits, float of shape (tokens, vocabulary), ``truth`` its tokens, int of shape
    (tokens,): the logits at a token are about the one after it. Or it holds what :func:`token_losses` makes of both.
    Source: Jelinek and others, *Perplexity: a measure of
    the difficulty of speech recognition tasks*, 1977.
    """
    import numpy as np

    losses = [token_losses(answer, ids) for answer, ids in zip(candidate, truth, strict=True)]
    counts = np.array([len(each) for each in losses], dtype=np.float64)
    if not counts.any():
        raise SpecError("no text has two tokens", where="perplexity")
    found = bootstrap.ratio(np.array([each.sum() for each in losses]), counts, seed=seed)
    with np.errstate(over="ignore"):  # what is beyond all numbers is told as a wrong answer
        value, low, high = (float(np.exp(bound)) for bound in (found.value, found.low, found.high))
    return Estimate(value, low, high)


def distance(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many elements must be put in, left out or replaced to make ``other`` of ``one`` (Levenshtein)."""
    row = list(range(len(other) + 1))
    for place, element in enumerate(one, 1):
        corner, row[0] = row[0], place
        for column, compared in enumerate(other, 1):
            corner, row[column] = row[column], min(
                row[column] + 1, row[column - 1] + 1, corner + (element != compared)
            )  # fmt: skip
    return row[-1]


_LABELS = "data with labels: `label` beside `text` in .jsonl, `labels` in .npz"

METRICS: dict[str, Metric] = {
    "accuracy": Metric(measure=accuracy, summary="share of right classes", truth=_LABELS, tasks=_WITH_CLASSES),
    "agreement": Metric(measure=agreement, summary="share of nearest texts that stay the same", number=10),
    "cosine": Metric(measure=cosine, summary="mean cosine to the original's vectors"),
    "cosine-min": Metric(measure=least_cosine, summary="least cosine to the original's vectors"),
    "exact": Metric(measure=exact, summary="share of answers equal to the original's", tasks=_WITH_CLASSES),
    "macro-f1": Metric(measure=macro_f1, summary="mean F1 of the classes", truth=_LABELS, tasks=_WITH_CLASSES),
    "map": Metric(
        measure=lambda reference, candidate, truth, number, seed: mean_average_precision(candidate, truth, seed=seed),
        summary="mean average precision of detections, IoU 0.5 to 0.95", truth="boxes", tasks=(),
    ),
    "map50": Metric(
        measure=lambda reference, candidate, truth, number, seed: mean_average_precision(
            candidate, truth, overlaps=(0.5,), seed=seed
        ),
        summary="mean average precision of detections, IoU 0.5", truth="boxes", tasks=(),
    ),
    "perplexity": Metric(
        measure=perplexity, summary="perplexity of the next token",
        truth="data with the array `input_ids`", tasks=("tensors",),
    ),
    "recall": Metric(
        measure=recall, summary="share of relevant texts among the nearest", number=10, tasks=("embedding",),
        truth="data with relevant texts: `relevant` beside `text` in .jsonl",
    ),
    "wer": Metric(measure=word_errors, summary="word error rate", tasks=()),
}  # fmt: skip
"""The metrics by name."""


def _users_metric(name: str) -> Metric:
    """Return the metric that a user's own function makes: ``function(reference, candidate) -> float``.

    One with a parameter ``truth`` gets the right answers too.
    """
    module, _, path = name.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in path.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"the function {name!r} cannot be found: {error}", where="quality.metric", expected="module:function"
        ) from error
    if not callable(function):
        raise SpecError(f"{name!r} is no function", where="quality.metric", expected="module:function")

    def measure(reference: Any, candidate: Any, truth: Any, number: int, seed: int) -> Estimate:
        return _by_function(name, function, (reference, candidate), truth, seed)

    return Metric(
        measure=measure, summary="your own function", truth=_LABELS if _wants_truth(function, required=True) else ""
    )


def _wants_truth(function: Callable[..., Any], *, required: bool = False) -> bool:
    """Tell whether a function has a parameter ``truth``, or one that it cannot do without."""
    try:
        found = inspect.signature(function).parameters.get("truth")
    except (TypeError, ValueError):  # functions written in C do not tell
        return False
    return found is not None and not (required and found.default is not found.empty)


def _by_function(name: str, function: Callable[..., Any], answers: tuple[Any, Any], truth: Any, seed: int) -> Estimate:
    import numpy as np

    told = truth is not None and _wants_truth(function)

    def judged(places: Array) -> float:
        more = {"truth": _taken(truth, places)} if told else {}
        try:
            return float(function(*(_taken(each, places) for each in answers), **more))
        except Exception as error:  # whatever the user's code raises is the user's to hear of
            raise SpecError(
                f"the function {name!r} failed: {type(error).__name__}: {error}", where="quality.metric",
                expected="function(reference, candidate) -> float",
            ) from error  # fmt: skip

    def statistic(drawn: Array) -> Array:
        return np.array([judged(places) for places in drawn])

    return bootstrap.estimate(statistic, len(answers[1]), seed=seed, resamples=_FUNCTION_RESAMPLES)


def _taken(answers: Any, places: Array) -> Any:
    if hasattr(answers, "ndim"):
        return answers[places]
    return [answers[place] for place in places.tolist()]


def _number(name: str, metric: Metric) -> int:
    number = name.partition("@")[2]
    return int(number) if number and ":" not in name else metric.number or 0


def _mean(values: Any, seed: int) -> Estimate:
    import numpy as np

    return bootstrap.mean(np.asarray(values, dtype=np.float64), seed=seed)


def _require_more(neighbours: int, items: int, where: str) -> None:
    if items <= neighbours:
        raise SpecError(
            f"{items} texts have no {neighbours} nearest ones", where=where, expected=f"at least {neighbours + 1}"
        )


def _likeness(unit: Array) -> Array:
    return (unit @ unit.T).round(_DIGITS)


def _nearest(likeness: Array, count: int) -> Array:
    """Return the places of the ``count`` nearest, the nearest first; the text itself is none of them."""
    import numpy as np

    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, :count]


def _plain(answer: Any) -> Any:
    return answer.tolist() if hasattr(answer, "tolist") else answer


def _words(text: str) -> list[str]:
    return text.casefold().split()
