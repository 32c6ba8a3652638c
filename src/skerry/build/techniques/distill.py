"""``distill``: a smaller transformer learns to answer as the model that was given, on the user's unlabelled texts.

The student is the artifact itself, usually pruned. It is taught the teacher's vectors (Reimers, Gurevych: Making
Monolingual Sentence Embeddings Multilingual using Knowledge Distillation, 2020) and how alike the teacher finds the
texts of a batch (Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019), since neighbours are what vectors
are used for. Training is AdamW with a short warm-up and a linear decay. The best weights by agreement on texts held out
are what is written; training ends early when they stay the best for long.

A training that is interrupted goes on from its last checkpoint, which lies beside the target under a name made
of all that decides the training.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.measure import agreement_at
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.samples import chosen_texts
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.transformer import Transformer, refuses_transformer
from skerry.run.pooling import normalized
from skerry.spec.errors import ModelKindError, SpecError
from skerry.spec.ports import Array

HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 300
_NEIGHBOURS = 10
_TEACHER_BATCH = 16
_CHECKPOINT = "checkpoint.pt"
_LEARNED = 0.999
"""The mean cosine between student and teacher above which there is nothing to learn."""
_LEAST_GAIN = 1e-4
"""A gain in agreement below this is none."""


class DistillSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    steps, batch:
        Batches at the most, and texts in each.
    rate:
        The highest rate of learning.
    similarity:
        The weight of the likenesses within a batch beside that of the vectors.
    check_every, patience:
        After how many steps agreement is measured and a checkpoint written, and how many such checks in a row may
        bring no gain before training ends.
    """

    steps: Annotated[int, msgspec.Meta(ge=1)] = 2000
    batch: Annotated[int, msgspec.Meta(ge=2)] = 32
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=0.1)] = 3e-4
    similarity: Annotated[float, msgspec.Meta(ge=0.0)] = 1.0
    check_every: Annotated[int, msgspec.Meta(ge=1)] = 100
    patience: Annotated[int, msgspec.Meta(ge=1)] = 6


class Distill:
    """A student taught on the user's texts."""

    name: ClassVar[str] = "distill"
    kind: ClassVar[Kind] = "distill"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "a pruned model learns the original's vectors on the user's texts; takes minutes to hours"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        if artifact.task != "embedding":
            return "it teaches vectors, and this model classifies"
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return a short and a long training, or nothing for a model that answers as its teacher; takes seconds."""
        require_accepted(self.refuses(artifact), self.name)
        if _likeness(artifact, workbench) >= _LEARNED:
            return []
        return [plain(DistillSettings()), plain(DistillSettings(steps=8000, patience=12))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Train, until the steps, the patience or the workbench's deadline are over, and write the best student."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(DistillSettings, settings, self.name)
        if len(workbench.texts) < 2 * _NEIGHBOURS + told.batch // 2:
            raise SpecError(
                f"{len(workbench.texts)} texts are too few to learn from", expected=f"{2 * _NEIGHBOURS} and more"
            )
        training = _Training(artifact, told, workbench, _place(artifact, settings, workbench, target))
        training.run()
        files = training.transformer.save(target)
        training.forget()
        return forged(artifact, self, settings, target, files)


class _Training:
    """One training: student, optimizer, and the best weights so far."""

    def __init__(self, artifact: Artifact, told: DistillSettings, workbench: Workbench, place: Path) -> None:
        self.transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
        self._torch = self.transformer.torch
        self._told, self._workbench, self._place = told, workbench, place
        self._ids = self.transformer.ids(workbench.texts)
        self._teacher = _taught(workbench, workbench.texts)
        self._require_same_dimension()
        self._train, self._held_out = _split(len(self._ids), workbench.seed)
        model = self.transformer.model
        self._optimizer = self._torch.optim.AdamW(model.parameters(), lr=told.rate, weight_decay=0.01)
        self._step, self._stale, self._best = 0, 0, -1.0
        self._best_weights: dict[str, Any] = {}
        self._resume()

    def run(self) -> None:
        """Train to the end, and put the best weights into the student."""
        started = self._step
        start = time.monotonic()
        if self._step == 0:
            self._judge()
        while not self._is_over():
            until = min(self._step + self._told.check_every, self._told.steps)
            each = (time.monotonic() - start) / max(self._step - started, 1) if self._step > started else 0.0
            about = f"step {self._step} of {self._told.steps}, agreement {self._best:.3f}"
            with self._workbench.progress.step(f"distil: {about}", each * (self._told.steps - self._step)):
                while self._step < until and not self._is_late():
                    self._learn()
            self._judge()
            self._write()
        self.transformer.model.load_state_dict(self._best_weights)

    def forget(self) -> None:
        """Remove the checkpoint, once the result is written."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _require_same_dimension(self) -> None:
        size = getattr(self.transformer.config, "hidden_size", 0)
        if size and size != self._teacher.shape[1]:
            raise ModelKindError(
                f"the student gives {size} numbers and its teacher {self._teacher.shape[1]}",
                expected="a student whose vectors are as long as the teacher's",
            )

    def _is_late(self) -> bool:
        deadline = self._workbench.deadline
        return deadline is not None and time.monotonic() >= deadline

    def _is_over(self) -> bool:
        return self._step >= self._told.steps or self._stale >= self._told.patience or self._is_late()

    def _learn(self) -> None:
        """Take one step on the batch that is due."""
        torch = self._torch
        functional = torch.nn.functional
        chosen = self._batch(self._step)
        for group in self._optimizer.param_groups:
            group["lr"] = self._told.rate * _pace(self._step, self._told.steps)
        inputs = self.transformer.inputs([self._ids[number] for number in chosen])
        vectors = functional.normalize(self.transformer.pooled(inputs, self.transformer.model(**inputs)), dim=1)
        wanted = torch.from_numpy(self._teacher[chosen])
        loss = (1 - (vectors * wanted).sum(dim=1)).mean()
        alike = functional.mse_loss(vectors @ vectors.T, wanted @ wanted.T)
        self._optimizer.zero_grad()
        (loss + self._told.similarity * alike * len(chosen)).backward()
        torch.nn.utils.clip_grad_norm_(self.transformer.model.parameters(), 1.0)
        self._optimizer.step()
        self._step += 1

    def _batch(self, step: int) -> list[int]:
        """Return the numbers of the texts of a step: every text once in each pass, in an order of its own."""
        import numpy as np

        size = min(self._told.batch, len(self._train))
        each = len(self._train) // size
        turn, place = divmod(step, each)
        order = np.random.default_rng([self._workbench.seed, turn]).permutation(self._train)
        return [int(number) for number in order[place * size : (place + 1) * size]]

    def _judge(self) -> None:
        """Measure agreement on the texts held out, and keep the weights when they are the best."""
        import numpy as np

        rows = [self._ids[number] for number in self._held_out]
        found = [self.transformer.pooled(*pair).numpy() for pair in self.transformer.run(rows)]
        vectors = normalized(np.concatenate(found))
        agreement = agreement_at(self._teacher[self._held_out], vectors, min(_NEIGHBOURS, len(rows) - 1))
        if agreement > self._best + _LEAST_GAIN:
            self._best, self._stale = agreement, 0
            weights = self.transformer.model.state_dict()
            self._best_weights = {name: tensor.clone() for name, tensor in weights.items()}
        else:
            self._stale += 1

    def _write(self) -> None:
        """Write a checkpoint: whole, or not at all."""
        self._place.mkdir(parents=True, exist_ok=True)
        fresh = self._place / f"{_CHECKPOINT}.new"
        state = {
            "step": self._step, "stale": self._stale, "best": self._best, "best_weights": self._best_weights,
            "weights": self.transformer.model.state_dict(), "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        self._torch.save(state, fresh)
        fresh.replace(self._place / _CHECKPOINT)

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is a whole one."""
        try:
            state = self._torch.load(self._place / _CHECKPOINT, weights_only=True)
            self.transformer.model.load_state_dict(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
        except FileNotFoundError:
            return
        except Exception:  # noqa: BLE001 - whatever a damaged file makes the reader raise, training begins anew
            shutil.rmtree(self._place, ignore_errors=True)
            return
        self._step, self._stale, self._best = state["step"], state["stale"], state["best"]
        self._best_weights = state["best_weights"]


def _place(artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Path:
    """Return the folder of the checkpoint, beside the target, by all that decides the training."""
    key = [artifact.digest, settings, workbench.seed, Distill.version, workbench.texts]
    name = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()[:32]
    return target.parent / f"distill-{name}"


def _likeness(artifact: Artifact, workbench: Workbench) -> float:
    """Return the mean cosine between the student's and the teacher's vectors of a few texts."""
    transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
    texts = chosen_texts(workbench, _TEACHER_BATCH)
    wanted = _taught(workbench, texts)
    found = [transformer.pooled(*pair).numpy() for pair in transformer.run(transformer.ids(texts))]
    return float((normalized(found[0]) * wanted).sum(axis=1).mean())


def _taught(workbench: Workbench, texts: Sequence[str]) -> Array:
    """Return the teacher's vectors of texts, of length 1: float32 of shape (texts, dimension)."""
    import numpy as np

    embed = workbench.embed
    if embed is None:
        raise ModelKindError("distillation needs the original model as its teacher", expected="workbench.embed")
    parts = [embed(texts[start : start + _TEACHER_BATCH]) for start in range(0, len(texts), _TEACHER_BATCH)]
    return normalized(np.concatenate(parts).astype(np.float32))


def _split(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the texts to learn from, and of those held out."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(count).tolist()
    held_out = min(max(int(count * HELD_OUT_SHARE), _NEIGHBOURS + 1), MOST_HELD_OUT)
    return order[held_out:], sorted(order[:held_out])


def _pace(step: int, steps: int) -> float:
    """Return the share of the highest rate at a step: it rises for a twentieth of the way and falls to nothing."""
    warm = max(steps // 20, 1)
    return min((step + 1) / warm, (steps - step) / max(steps - warm, 1), 1.0)
