"""Lessons: the texts that a student learns from, cut into batches of like length, and its teacher's answers to them.

A teacher whose weights are at hand and who reads texts as the student does is asked for the states of all tokens (Jiao
et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020): twenty vectors a text instead of
one. Any other gives the vector of each text, or its logits (:mod:`skerry.build.techniques.subjects`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.corpus import machine_texts
from skerry.build.splits import key
from skerry.build.technique import Workbench
from skerry.build.techniques.subjects import NEIGHBOURS, Subject
from skerry.build.techniques.transformer import Transformer
from skerry.spec.errors import ModelKindError
from skerry.spec.ports import Array

HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 300
TEACHER_BATCH = 16
_SORTED_TOGETHER = 8192
"""Texts that are sorted by length at once: enough for batches without padding, few enough to mix them well."""
_MOST_KNOWN = 20_000
"""Vectors of texts that are kept for when they come again: 30 MB for MiniLM."""
_READ_EACH_S, _READING_SHARE = 4000, 0.05
"""How many sentences of this machine are read in a second, and the share of the time to the deadline that reading may
take."""
_OWN_AGAIN = 4
"""How often a pass takes each of the user's texts where there are many others: it is they that it is all about."""


class Lessons:
    """The texts by number, as token ids.

    Parameters
    ----------
    student:
        Whose tokenizer cuts them.
    workbench:
        Has the user's texts: a fifth of them is held out, and sentences beside them where they are few.
    further:
        How many sentences of this machine are learned from besides.
    place:
        A folder where the sentences are kept for as long as the training is not over.
    """

    def __init__(self, student: Transformer, workbench: Workbench, further: int, place: Path) -> None:
        self._seed = workbench.seed
        own = len(workbench.texts)
        self.texts: tuple[str, ...] = (*workbench.texts, *_further(workbench, further, place))
        self.ids = [list(ids) for ids in student.ids(self.texts)]
        learned, held_out = split(own, workbench.seed)
        others = list(range(own, len(self.texts)))
        # A few texts are no measure: sentences that nothing is learned from fill them up.
        filled = min(MOST_HELD_OUT - len(held_out), len(others) // 10)
        self.held_out, others = [*held_out, *others[:filled]], others[filled:]
        self._learned = learned * (_OWN_AGAIN if len(others) > _OWN_AGAIN * len(learned) else 1) + others

    def batches(self, passed: int, tokens: int) -> Iterator[list[int]]:
        """Yield the batches of a pass over all texts: numbers of texts that take at most ``tokens``, padded."""
        import numpy as np

        random = np.random.default_rng([self._seed, passed])
        order = [self._learned[place] for place in random.permutation(len(self._learned)).tolist()]
        for start in range(0, len(order), _SORTED_TOGETHER):
            together = sorted(order[start : start + _SORTED_TOGETHER], key=lambda number: len(self.ids[number]))
            found: list[list[int]] = [[]]
            for number in together:
                if len(found[-1]) > 1 and (len(found[-1]) + 1) * len(self.ids[number]) > tokens:
                    found.append([])
                found[-1].append(number)
            for place in random.permutation(len(found)).tolist():
                yield found[place]


class Teacher:
    """What the model that was given makes of the texts.

    Parameters
    ----------
    subject:
        What it teaches.
    half:
        Whether it may compute in bfloat16.
    """

    def __init__(self, student: Transformer, workbench: Workbench, subject: Subject, *, half: bool) -> None:
        self._workbench, self._subject = workbench, subject
        self._model = _transformer(student, workbench)
        if self._model is not None and half:
            self._model.model.to(student.torch.bfloat16)
        self._known: dict[str, Array] = {}

    @property
    def shows_tokens(self) -> bool:
        """Whether it gives the states of tokens."""
        return self._model is not None

    def lesson(self, inputs: dict[str, Any], texts: Sequence[str]) -> tuple[Any, Any]:
        """Return the answers to a batch, and the states of its tokens or ``None``; as tensors in fp32."""
        if self._model is None:
            import torch

            return torch.from_numpy(self.answers(texts)), None
        torch = self._model.torch
        with torch.no_grad():
            answer = self._model.model(**inputs, **self._subject.asked)
            wanted = self._subject.tensor(torch, self._model.pooled(inputs, answer))
        return wanted, self._subject.states(answer).float()

    def answers(self, texts: Sequence[str]) -> Array:
        """Return the exact answers to texts: float32 of shape (texts, numbers)."""
        import numpy as np

        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(fresh), TEACHER_BATCH):
            part = fresh[start : start + TEACHER_BATCH]
            self._known.update(zip(part, taught(self._workbench, part, self._subject), strict=True))
        found = np.stack([self._known[text] for text in texts])
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        return found


def taught(workbench: Workbench, texts: Sequence[str], subject: Subject) -> Array:
    """Return the teacher's answers to a few texts; raises ``ModelKindError`` where there is no teacher."""
    import numpy as np

    if workbench.embed is None:
        raise ModelKindError("distillation needs the original model as its teacher", expected="workbench.embed")
    parts = [workbench.embed(texts[start : start + TEACHER_BATCH]) for start in range(0, len(texts), TEACHER_BATCH)]
    return subject.array(np.concatenate(parts).astype(np.float32))


def split(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the user's texts to learn from, and of those held out."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(count).tolist()
    held_out = min(max(int(count * HELD_OUT_SHARE), NEIGHBOURS + 1), MOST_HELD_OUT)
    return order[held_out:], sorted(order[:held_out])


def _transformer(student: Transformer, workbench: Workbench) -> Transformer | None:
    """Return the teacher's weights, if its tokens and their states are of the same kind as the student's."""
    given = workbench.teacher
    if given is None or given.form != "transformer" or given.tokenizer is None:
        return None
    if given.vocabulary.read_bytes() != student.artifact.vocabulary.read_bytes():
        return None
    teacher = Transformer(given, threads=workbench.threads, seed=workbench.seed)
    sizes = [getattr(each.config, "hidden_size", 0) for each in (teacher, student)]
    return teacher if sizes[0] == sizes[1] else None


def _further(workbench: Workbench, count: int, place: Path) -> tuple[str, ...]:
    """Return sentences of this machine; finding them takes a minute, so they are kept beside the checkpoint."""
    if not count:
        return ()
    kept = place / "sentences.json"
    try:
        return tuple(msgspec.json.decode(kept.read_bytes(), type=list[str]))
    except (FileNotFoundError, msgspec.DecodeError):
        pass
    if workbench.deadline is not None:
        count = min(count, int(_READING_SHARE * _READ_EACH_S * max(workbench.deadline - time.monotonic(), 0.0)))
    forbidden = workbench.forbidden | {key(text) for text in workbench.texts}
    with workbench.progress.step(f"read {count} sentences of this machine", count / _READ_EACH_S):
        found = machine_texts(count, forbidden=forbidden)
    place.mkdir(parents=True, exist_ok=True)
    fresh = kept.with_name(f"{kept.name}.new")
    fresh.write_bytes(msgspec.json.encode(found))
    fresh.replace(kept)
    return found
