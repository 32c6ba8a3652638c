"""``distill``: a smaller transformer learns to answer as the model that was given, on text without labels.

The student is the artifact itself, usually pruned. It is taught the teacher's vectors, or a classifier's logits
(:mod:`skerry.build.techniques.subjects`), the states of all tokens where it can see them (Jiao et al.: TinyBERT, 2020),
and how alike the teacher finds the texts of a batch (Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019).
The user's own texts are few, so it also reads sentences that are found on this machine
(:mod:`skerry.build.corpus`).

Training is AdamW with a short warm-up and a cosine to nothing, over as many steps as fit before the deadline. It
computes in bfloat16 where the processor multiplies in it. The best weights, averaged over some steps, by agreement on
texts held out are what is written; training ends early when they stay the best for long.

A training that is interrupted goes on from its last checkpoint, which lies beside the target under a name made
of all that decides the training.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.lessons import Lessons, Teacher, taught
from skerry.build.techniques.rounding import round_rows
from skerry.build.techniques.samples import chosen_texts
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.build.techniques.subjects import NEIGHBOURS, subject_of
from skerry.build.techniques.transformer import Transformer, refuses_transformer
from skerry.spec.errors import SpecError

_CHECKPOINT = "checkpoint.pt"
_BETAS = (0.9, 0.98)
"""How far back AdamW looks: 50 steps for the scales of gradients, since a training may have but some hundreds."""
_CLIP = 0.2
_MEMORY = 0.99
"""What is judged and written is the running mean of the weights over about 100 steps: while the rate is high, they jump
about what they have learned (Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging, 1992)."""
_LEAST_GAIN = 1e-4
"""A gain in agreement below this is none."""
_TRIED = 20
"""Steps after which it is known how long one takes."""
_SHARE = 0.85
"""Of the time to the deadline, training is planned to take this share: of the student is still to be made what runs."""


class DistillSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    steps, batch:
        Batches at the most, and how many tokens each may have: the shorter the texts, the more of them.
    further:
        Sentences of this machine to learn from beside the user's texts.
    rate:
        The highest rate of learning.
    vectors, tokens, similarity:
        The weights of the texts' vectors (a classifier's logits), of the states of their tokens, and of the likenesses
        within a batch.
    embedding:
        ``frozen``: the table of embeddings stays as it is. ``int4``: it is rounded to 4 bits in blocks of 32 first, as
        ``litert-int8`` with ``embedding: int4`` will do, and the layers learn to live with that. ``learned``: it
        learns too.
    check_every, patience:
        After how many steps agreement is measured and a checkpoint written, and how many such checks in a row may
        bring no gain before training ends.
    compute:
        ``auto`` takes ``bf16`` where the processor multiplies in it.
    """

    steps: Annotated[int, msgspec.Meta(ge=1)] = 2000
    batch: Annotated[int, msgspec.Meta(ge=16)] = 2048
    further: Annotated[int, msgspec.Meta(ge=0)] = 100_000
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=0.1)] = 1e-3
    vectors: Annotated[float, msgspec.Meta(ge=0.0)] = 1.0
    tokens: Annotated[float, msgspec.Meta(ge=0.0)] = 1.0
    similarity: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    embedding: Literal["frozen", "int4", "learned"] = "frozen"
    check_every: Annotated[int, msgspec.Meta(ge=1)] = 100
    patience: Annotated[int, msgspec.Meta(ge=1)] = 8
    compute: Literal["auto", "fp32", "bf16"] = "auto"


class Distill:
    """A student taught on text without labels."""

    name: ClassVar[str] = "distill"
    kind: ClassVar[Kind] = "distill"
    version: ClassVar[int] = 4
    summary: ClassVar[str] = "a pruned model learns the original's vectors or classes, without labels; minutes to hours"
    toolchain: ClassVar[str | None] = None

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_transformer(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return one training for a 4-bit table, as long as there is time, or none where there is nothing to learn.

        Takes seconds.
        """
        require_accepted(self.refuses(artifact), self.name)
        if _likeness(artifact, workbench) >= subject_of(artifact).learned:
            return []
        return [plain(DistillSettings(steps=30_000, further=300_000, embedding="int4", check_every=200, patience=12))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Train, until the steps, the patience or the workbench's deadline are over, and write the best student."""
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(DistillSettings, settings, self.name)
        if len(workbench.texts) < 3 * NEIGHBOURS:
            raise SpecError(
                f"{len(workbench.texts)} texts are too few to learn from", expected=f"{3 * NEIGHBOURS} and more"
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
        self._half = computes_half(self._torch, told.compute)
        self._subject = subject_of(artifact)
        answers = taught(workbench, workbench.texts[:1], self._subject)
        self._subject.require_fit(self.transformer.config, answers.shape[1])
        self._lessons = Lessons(self.transformer, workbench, told.further, place)
        self._teacher = Teacher(self.transformer, workbench, self._subject, half=self._half)
        self._wanted = self._teacher.answers([self._lessons.texts[number] for number in self._lessons.held_out])
        self._weights = self._learning_weights()
        self._optimizer = self._torch.optim.AdamW(
            self._weights.values(), lr=told.rate, betas=_BETAS, weight_decay=0.01, fused=True
        )
        self._step, self._stale, self._best = 0, 0, -1.0
        self._planned = told.steps
        self._pass, self._taken = 0, 0
        self._best_weights: dict[str, Any] = {}
        self._mean = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._resume()
        self._batches = self._remaining()

    def run(self) -> None:
        """Train to the end, and put the best weights into the student."""
        if not self._best_weights:
            self._judge()
        started, start = self._step, time.monotonic()
        tried = started + _TRIED  # a training that goes on has another deadline, on a machine with other work to do
        while not self._is_over():
            each = (time.monotonic() - start) / (self._step - started) if self._step > started else 0.0
            if self._step == tried:
                self._plan(each)
            check = (self._step // self._told.check_every + 1) * self._told.check_every
            until = min(check, tried if self._step < tried else check, self._planned)
            about = f"step {self._step} of {self._planned}, agreement {self._best:.3f}"
            with self._workbench.progress.step(f"distil: {about}", each * (self._planned - self._step)):
                while self._step < until and not self._is_late():
                    self._learn()
            if self._step % self._told.check_every == 0 or self._is_over():
                self._judge()
                self._write()
        self._put(self._best_weights)

    def forget(self) -> None:
        """Remove the checkpoint, once the result is written."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _learning_weights(self) -> dict[str, Any]:
        """Return the weights that learn, by name; the table of embeddings is rounded or let be as it is told."""
        model = self.transformer.model
        table = model.get_input_embeddings().weight
        if self._told.embedding == "int4":
            with self._torch.no_grad():
                table.copy_(round_rows(self._torch, table))
        table.requires_grad_(self._told.embedding == "learned")
        return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def _plan(self, each: float) -> None:
        """Take no more steps than there is time for, so that the rate has fallen to nothing when it ends."""
        if self._workbench.deadline is not None:
            fitting = _SHARE * (self._workbench.deadline - time.monotonic()) / max(each, 1e-6)
            self._planned = max(min(self._told.steps, self._step + int(fitting)), self._step)

    def _is_late(self) -> bool:
        deadline = self._workbench.deadline
        return deadline is not None and time.monotonic() >= deadline

    def _is_over(self) -> bool:
        return self._step >= self._planned or self._stale >= self._told.patience or self._is_late()

    def _remaining(self) -> Any:
        """Yield the batches from where the training stands, pass after pass."""
        while True:
            for place, batch in enumerate(self._lessons.batches(self._pass, self._told.batch)):
                if place >= self._taken:
                    self._taken = place + 1
                    yield batch
            self._pass, self._taken = self._pass + 1, 0

    def _learn(self) -> None:
        """Take one step on the batch that is due."""
        torch, subject = self._torch, self._subject
        chosen = next(self._batches)
        for group in self._optimizer.param_groups:
            group["lr"] = self._told.rate * _pace(self._step, self._planned)
        inputs = self.transformer.inputs([self._lessons.ids[number] for number in chosen])
        wanted, states = self._teacher.lesson(inputs, [self._lessons.texts[number] for number in chosen])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._half):
            answer = self.transformer.model(**inputs, **subject.asked)
        found = subject.tensor(torch, self.transformer.pooled(inputs, answer))
        loss = self._told.vectors * subject.loss(torch, found, wanted)
        if states is not None and self._told.tokens:
            kept = inputs["attention_mask"].bool()
            apart = (subject.states(answer).float() - states)[kept].square().mean()
            loss = loss + self._told.tokens * apart / states[kept].square().mean()
        if self._told.similarity:
            loss = loss + self._told.similarity * subject.relations(torch, found, wanted)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        self._optimizer.step()
        self._step += 1
        share = 1 - min(_MEMORY, self._step / (self._step + 9))
        with torch.no_grad():
            torch._foreach_lerp_([*self._mean.values()], [*self._weights.values()], share)

    def _judge(self) -> None:
        """Measure agreement on the texts held out, and keep the weights when they are the best."""
        import numpy as np

        rows = [self._lessons.ids[number] for number in self._lessons.held_out]
        now = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._put(self._mean)
        found = [self.transformer.pooled(*pair).numpy() for pair in self.transformer.run(rows)]
        self._put(now)
        agreement = self._subject.judge(self._wanted, self._subject.array(np.concatenate(found)))
        if agreement > self._best + _LEAST_GAIN:
            self._best, self._stale = agreement, 0
            self._best_weights = {name: mean.clone() for name, mean in self._mean.items()}
        else:
            self._stale += 1

    def _put(self, weights: dict[str, Any]) -> None:
        """Give the student other weights."""
        with self._torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(weights[name])

    def _write(self) -> None:
        """Write a checkpoint: whole, or not at all."""
        self._place.mkdir(parents=True, exist_ok=True)
        fresh = self._place / f"{_CHECKPOINT}.new"
        state = {
            "step": self._step, "planned": self._planned, "pass": self._pass, "taken": self._taken,
            "stale": self._stale, "best": self._best, "best_weights": self._best_weights,
            "weights": {name: weight.detach() for name, weight in self._weights.items()}, "mean": self._mean,
            "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        self._torch.save(state, fresh)
        fresh.replace(self._place / _CHECKPOINT)

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is a whole one."""
        try:
            state = self._torch.load(self._place / _CHECKPOINT, weights_only=True)
            self._put(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
        except FileNotFoundError:
            return
        except Exception:  # noqa: BLE001 - whatever a damaged file makes the reader raise, training begins anew
            (self._place / _CHECKPOINT).unlink(missing_ok=True)
            return
        self._step, self._planned, self._stale = state["step"], state["planned"], state["stale"]
        self._pass, self._taken = state["pass"], state["taken"]
        self._best, self._best_weights, self._mean = state["best"], state["best_weights"], state["mean"]


def computes_half(torch: Any, told: str) -> bool:
    """Tell whether to compute in bfloat16: where that is asked for, or the processor multiplies in it."""
    if told != "auto":
        return told == "bf16"
    signs = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, sign, bool)()) for sign in signs)


def _place(artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Path:
    """Return the folder of the checkpoint, beside the target, by all that decides the training."""
    key = [artifact.digest, settings, workbench.seed, Distill.version, workbench.texts, sorted(workbench.forbidden)]
    name = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()[:32]
    return target.parent / f"distill-{name}"


def _likeness(artifact: Artifact, workbench: Workbench) -> float:
    """Return how alike the student's and the teacher's answers to a few texts are."""
    import numpy as np

    subject = subject_of(artifact)
    transformer = Transformer(artifact, threads=workbench.threads, seed=workbench.seed)
    texts = chosen_texts(workbench, subject.looked_at)
    wanted = taught(workbench, texts, subject)
    found = [transformer.pooled(*pair).numpy() for pair in transformer.run(transformer.ids(texts))]
    return subject.likeness(wanted, subject.array(np.concatenate(found)))


def _pace(step: int, steps: int) -> float:
    """Return the share of the highest rate at a step: it rises for a fiftieth of the way and falls as a cosine does."""
    warm = max(steps // 50, 1)
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / max(steps, 1)))
