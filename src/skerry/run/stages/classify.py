"""Classify: a text gets the label it is nearest to, with a probability."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from skerry.run.labels import Label, labels_of, read_labels
from skerry.run.texts import Texts, model_of, no_text, only
from skerry.spec.errors import LabelsError, SpecError, StageError, TensorError
from skerry.spec.ports import Array, Context, Options, TextModel
from skerry.spec.record import Outcome, Record
from skerry.spec.units import Share

if TYPE_CHECKING:
    from skerry.run.head import Head

COSINE_TEMPERATURE = 0.05
"""Default temperature of prototypes: encoders for sentences are trained with cosines times 20 (Reimers, Gurevych: the
``scale`` of MultipleNegativesRankingLoss), so that 1/20 makes their softmax what they were trained to say."""

_AT_ONCE = 32  # texts of labels that are embedded at once, so that a long label file does not need much memory


class ClassifyOptions(Options, frozen=True, kw_only=True):
    """What is classified, by what, and how sure an answer has to be.

    Parameters
    ----------
    model:
        The model's name in the pipeline file.
    labels:
        A label file, relative to the pipeline file, or the labels themselves: a list of names, or a mapping from a name
        to a description or ``{description, examples}``.
    head:
        A trained linear head (``.npz`` or ``.json``) instead of prototypes; ``labels`` is not needed then.
    field:
        The field with the text; default ``text``.
    vector:
        A field that holds the embedding already, instead of embedding the text again.
    to, score_to:
        The fields that get the label and its probability, 0 to 1; default ``label`` and ``score``.
    top_k:
        With more than 1, the best ``top_k`` labels are given in ``top_to`` as well; default 1.
    top_to:
        The field that gets ``[{label, score}, …]``, the best first; default ``labels``.
    temperature:
        What similarities are divided by before the softmax: lower is surer. ``auto`` fits it to the examples of the
        labels, each left out of its own prototype. Default 0.05 for prototypes, and what was trained for a head.
    unknown_below:
        Below this probability the label is ``unknown``; default 0, never. The score stays.
    unknown:
        The name for that; default ``unknown``.
    prompts:
        How a label is put into words for the model, with ``{label}`` and ``{description}``; the mean of all is taken.
        A prompt with ``{description}`` is only used for labels that have one.
    examples_weight:
        How much the examples count against the descriptions where a label has both; default 70%: a few real texts
        tell more than a sentence about them.
    max_batch:
        How many records are classified at once at the most; default 16, beyond which a small encoder gains nothing.
    """

    model: str
    labels: str | list[Any] | dict[Any, Any] | None = None
    head: str | None = None
    field: str = "text"
    vector: str | None = None
    to: str = "label"
    score_to: str = "score"
    top_k: int = 1
    top_to: str = "labels"
    temperature: float | Literal["auto"] | None = None
    unknown_below: Share = Share(0.0)
    unknown: str = "unknown"
    prompts: list[str] = msgspec.field(default_factory=lambda: ["{label}: {description}"])
    examples_weight: Share = Share(0.7)
    max_batch: int = 16


class _Classifier(msgspec.Struct, frozen=True):
    """What turns embeddings into probabilities: rows are labels; made for one generation of the model."""

    labels: tuple[str, ...]
    rows: Array
    bias: Array | None
    temperature: float
    generation: int

    def scores(self, embeddings: Array) -> Array:
        """Return probabilities of shape (n, labels)."""
        from skerry.run.head import softmax
        from skerry.run.pooling import normalized

        logits = normalized(embeddings) @ self.rows.T
        if self.bias is not None:
            logits = logits + self.bias
        return softmax(logits / self.temperature)


class ClassifyStage:
    """Adds a label and its probability.

    Without a head a label is a prototype: the mean embedding of its descriptions (zero-shot), of its examples
    (few-shot; Snell et al.: Prototypical Networks, 2017), or of both. The probabilities are the softmax of the
    cosines divided by the temperature. Prototypes are made when the stage opens, and again when the model was swapped.
    """

    Options: ClassVar[type[ClassifyOptions]] = ClassifyOptions

    def __init__(self, options: ClassifyOptions) -> None:
        _check(options)
        self._options = options
        self.max_batch = options.max_batch
        self._labels: tuple[Label, ...] = ()
        self._head: Head | None = None
        self._model: TextModel | None = None
        self._classifier: _Classifier | None = None
        self._lock = threading.Lock()

    def open(self, context: Context) -> None:
        """Read the labels or the head and make the prototypes.

        Raises ``LabelsError`` for a bad label file, ``ModelMissingError`` and ``ModelCorruptError`` for the model or a
        head, ``TensorError`` when a head was trained for another dimension.
        """
        self._labels, self._head = self._answers(context.home)
        self._model = model_of(context, self._options.model)
        self._classifier = self._made(self._model)

    def _answers(self, home: Path) -> tuple[tuple[Label, ...], Head | None]:
        options = self._options
        if options.head is not None:
            from skerry.run.head import read_head

            return (), read_head(home / options.head)
        labels = read_labels(home / options.labels) if isinstance(options.labels, str) else labels_of(options.labels)
        if options.temperature == "auto" and sum(len(label.examples) > 1 for label in labels) < 2:
            raise LabelsError("`temperature: auto` needs examples", expected="two or more for at least two labels")
        return labels, None

    def process(self, record: Record) -> Outcome:
        """Classify one record; raises ``StageError`` when it has no text or the model gives no numbers."""
        if self._model is None or self._options.vector is not None:
            return only(self.process_batch([record]))
        text = record.fields.get(self._options.field)
        if not isinstance(text, str):
            raise no_text(record, self._options.field)
        scores, labels = self._scores(self._model, (text,))
        failure = self._write(record, scores[0], labels)
        if failure is not None:
            raise failure
        return record

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Classify several records with one run of the model."""
        if self._model is None:
            raise StageError("classify is not open")
        if self._options.vector is not None:
            return [self._by_vector(record, self._options.vector) for record in records]
        texts = Texts(records, self._options.field)
        if not texts.texts:
            return texts.answers()
        scores, labels = self._scores(self._model, texts.texts)
        failures = {
            id(record): failure
            for record, row in zip(texts.good, scores, strict=True)
            if (failure := self._write(record, row, labels)) is not None
        }
        return [failures.get(id(answer), answer) for answer in texts.answers()]

    def _scores(self, model: TextModel, texts: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
        """Return the probabilities by a model and prototypes of one generation, though it is swapped meanwhile."""
        for _ in range(4):
            classifier = self._current(model)
            embeddings = model.embed(texts)
            if _generation(model) == classifier.generation:
                return classifier.scores(embeddings), classifier.labels
        raise StageError("the model is swapped faster than it answers")

    def _by_vector(self, record: Record, field: str) -> Outcome | Exception:
        import numpy as np

        assert self._model is not None
        if field not in record.fields:
            return no_text(record, field)
        classifier = self._current(self._model)
        try:
            vector = np.asarray(record.fields[field], dtype=np.float32)
        except (TypeError, ValueError) as error:
            return StageError(f"the field {field!r} holds no vector: {error}")
        if vector.shape != classifier.rows.shape[1:]:
            return StageError(
                f"the field {field!r} has the shape {vector.shape}", expected=f"{classifier.rows.shape[1:]}"
            )
        return self._write(record, classifier.scores(vector[None])[0], classifier.labels) or record

    def _write(self, record: Record, scores: Array, labels: tuple[str, ...]) -> StageError | None:
        """Write the answer into a record; return the failure when the model gave no numbers."""
        import numpy as np

        options = self._options
        if not np.isfinite(scores).all():
            return StageError(f"the model {options.model!r} gave numbers that are not finite")
        best = np.argsort(-scores, kind="stable")[: options.top_k]
        score = float(scores[best[0]])
        record.fields[options.to] = labels[best[0]] if score >= options.unknown_below else options.unknown
        record.fields[options.score_to] = score
        if options.top_k > 1:
            record.fields[options.top_to] = [{"label": labels[place], "score": float(scores[place])} for place in best]
        return None

    def _current(self, model: TextModel) -> _Classifier:
        """Return the classifier for the model as it is now, made anew when it was swapped."""
        classifier = self._classifier
        if classifier is not None and classifier.generation == _generation(model):
            return classifier
        with self._lock:
            if self._classifier is None or self._classifier.generation != _generation(model):
                self._classifier = self._made(model)
            return self._classifier

    def _made(self, model: TextModel) -> _Classifier:
        options, generation = self._options, _generation(model)
        if self._head is not None:
            if self._head.dimension != model.dimension:
                raise TensorError(
                    f"the head {options.head} is for embeddings of {self._head.dimension} numbers",
                    expected=f"{model.dimension}, as the model {options.model!r} gives",
                )
            warmth = self._head.temperature if options.temperature is None else float(options.temperature)
            return _Classifier(self._head.labels, self._head.weights, self._head.bias, warmth, generation)
        described, shown = _embedded(model, self._labels, options.prompts)
        rows = _prototypes(described, shown, float(options.examples_weight))
        if options.temperature == "auto":
            warmth = _left_out_temperature(described, shown, float(options.examples_weight))
        else:
            warmth = COSINE_TEMPERATURE if options.temperature is None else options.temperature
        return _Classifier(tuple(label.name for label in self._labels), rows, None, warmth, generation)

    def close(self) -> None:
        """Let go of the model and the prototypes."""
        self._model = self._classifier = None


def _generation(model: TextModel) -> int:
    """Return how often the model was swapped; a model without such a count never is."""
    return int(getattr(model, "generation", 0))


def _check(options: ClassifyOptions) -> None:
    """Raise ``SpecError`` for options that do not go together."""
    if (options.labels is None) == (options.head is None):
        raise SpecError("classify needs `labels` or `head`", expected="exactly one of them")
    if options.head is not None and options.temperature == "auto":
        raise SpecError("`temperature: auto` is for labels with examples", expected="a number, with a head")
    if isinstance(options.temperature, float | int) and not options.temperature > 0:
        raise SpecError(f"`temperature` is {options.temperature}", expected="a number above 0, or auto")
    if options.top_k < 1 or options.max_batch < 1:
        raise SpecError("`top_k` and `max_batch` are at least 1")
    for prompt in options.prompts or [""]:
        if not any(name in prompt for name in ("{label}", "{description}")):
            raise SpecError(f"the prompt {prompt!r} says nothing of the label", expected="{label} or {description}")


def _phrases(label: Label, prompts: Sequence[str]) -> list[str]:
    """Return the sentences that stand for a label: each prompt with each description, or else its name."""
    phrases: list[str] = []
    for prompt in prompts:
        if "{description}" in prompt:
            phrases += [
                prompt.replace("{label}", label.words).replace("{description}", text) for text in label.descriptions
            ]
        else:
            phrases.append(prompt.replace("{label}", label.words))
    if not phrases and not label.examples:
        phrases.append(label.words)
    return phrases


def _embedded(model: TextModel, labels: Sequence[Label], prompts: Sequence[str]) -> tuple[list[Array], list[Array]]:
    """Embed every label's phrases and examples.

    Returns two lists with one array of shape (texts of the label, dimension) for each label, of vectors of length 1.
    """
    import numpy as np

    from skerry.run.pooling import normalized

    groups = [*(_phrases(label, prompts) for label in labels), *(list(label.examples) for label in labels)]
    texts = [text for group in groups for text in group]
    parts = [model.embed(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)]
    vectors = normalized(np.concatenate(parts))
    if not np.isfinite(vectors).all():
        raise StageError("the model gives numbers that are not finite for the labels")
    ends = np.cumsum([len(group) for group in groups])
    split = np.split(vectors, ends[:-1])
    return split[: len(labels)], split[len(labels) :]


def _prototypes(described: Sequence[Array], shown: Sequence[Array], weight: float) -> Array:
    """Return one vector of length 1 per label: float32 of shape (labels, dimension)."""
    import numpy as np

    return np.stack([_prototype(words, examples, weight) for words, examples in zip(described, shown, strict=True)])


def _prototype(words: Array, examples: Array, weight: float) -> Array:
    import numpy as np

    from skerry.run.pooling import normalized

    if not len(examples):
        mixed = words.mean(axis=0)
    elif not len(words):
        mixed = examples.mean(axis=0)
    else:
        both = normalized(words.mean(axis=0)[None])[0], normalized(examples.mean(axis=0)[None])[0]
        mixed = (1 - weight) * both[0] + weight * both[1]
    return np.asarray(normalized(mixed[None])[0])


def _left_out_temperature(described: Sequence[Array], shown: Sequence[Array], weight: float) -> float:
    """Fit the temperature to the examples, each judged by prototypes that it is not part of."""
    import numpy as np

    from skerry.run.head import fit_temperature

    prototypes = _prototypes(described, shown, weight)
    logits: list[Array] = []
    truth: list[int] = []
    for index, examples in enumerate(shown):
        if len(examples) < 2:
            continue
        for place, example in enumerate(examples):
            rows = prototypes.copy()
            rows[index] = _prototype(described[index], np.delete(examples, place, axis=0), weight)
            logits.append(rows @ example)
            truth.append(index)
    return fit_temperature(np.stack(logits), truth)
