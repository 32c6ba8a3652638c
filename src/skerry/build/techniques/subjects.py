"""A subject: what a student is taught, and how it is judged: the vectors of texts, or their classes.

Vectors are taught by their directions and judged by the neighbours that texts have (Reimers, Gurevych: Making
Monolingual Sentence Embeddings Multilingual using Knowledge Distillation, 2020). Classes are taught by the teacher's
logits, softened so that it also tells how near the other classes are (Hinton, Vinyals, Dean: Distilling the Knowledge
in a Neural Network, 2015), and judged by how often student and teacher name the same.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from skerry.build.artifact import Artifact
from skerry.build.measure import agreement_at
from skerry.run.pooling import normalized
from skerry.spec.errors import ModelKindError
from skerry.spec.ports import Array

NEIGHBOURS = 10
_TEMPERATURE = 2.0
"""What logits are divided by: the surer a teacher is, the less its plain shares tell of the other classes."""


class Subject(Protocol):
    """What is taught.

    An answer is float32 of shape (texts, dimension) for vectors and (texts, classes) for logits, as an array of numpy
    or a tensor of PyTorch.
    """

    learned: ClassVar[float]
    """The likeness from which on there is nothing to learn."""
    looked_at: ClassVar[int]
    """Texts by which likeness is told."""
    asked: ClassVar[dict[str, Any]]
    """What a model has to be told so that it shows the states of its tokens."""

    def require_fit(self, config: Any, length: int) -> None:
        """Raise ``ModelKindError`` where a student cannot give answers as long as its teacher's."""

    def array(self, answers: Array) -> Array:
        """Return what a model answers as it is taught and judged."""

    def tensor(self, torch: Any, answers: Any) -> Any:
        """Return the same of a tensor of any float type."""

    def states(self, answer: Any) -> Any:
        """Return the states of all tokens, of shape (texts, tokens, size)."""

    def loss(self, torch: Any, found: Any, wanted: Any) -> Any:
        """Return how far the student's answers are from its teacher's, averaged over the texts."""

    def relations(self, torch: Any, found: Any, wanted: Any) -> Any:
        """Return how far what student and teacher find alike among the texts of a batch is apart."""

    def likeness(self, wanted: Array, found: Array) -> float:
        """Return how alike the answers are; 1 where they are the same."""

    def judge(self, wanted: Array, found: Array) -> float:
        """Return from 0 to 1 how well the answers agree for those who use them."""


class Vectors:
    """The vectors of texts, of length 1."""

    learned: ClassVar[float] = 0.999
    looked_at: ClassVar[int] = 16
    asked: ClassVar[dict[str, Any]] = {}

    def require_fit(self, config: Any, length: int) -> None:
        """Raise ``ModelKindError`` where the student's vectors are of another length."""
        size = getattr(config, "hidden_size", 0)
        if size and size != length:
            raise ModelKindError(
                f"the student gives {size} numbers and its teacher {length}",
                expected="a student whose vectors are as long as the teacher's",
            )

    def array(self, answers: Array) -> Array:
        """Return the vectors with length 1."""
        return normalized(answers)

    def tensor(self, torch: Any, answers: Any) -> Any:
        """Return the vectors with length 1."""
        return torch.nn.functional.normalize(answers.float(), dim=1)

    def states(self, answer: Any) -> Any:
        """Return the states of all tokens."""
        return answer.last_hidden_state

    def loss(self, torch: Any, found: Any, wanted: Any) -> Any:
        """Return 1 minus the mean cosine."""
        return (1 - (found * wanted).sum(dim=1)).mean()

    def relations(self, torch: Any, found: Any, wanted: Any) -> Any:
        """Return the mean squared difference of the cosines between all pairs of texts."""
        return torch.nn.functional.mse_loss(found @ found.T, wanted @ wanted.T)

    def likeness(self, wanted: Array, found: Array) -> float:
        """Return the mean cosine."""
        return float((found * wanted).sum(axis=1).mean())

    def judge(self, wanted: Array, found: Array) -> float:
        """Return the share of each text's nearest texts that are the same for both."""
        return agreement_at(wanted, found, min(NEIGHBOURS, len(found) - 1))


class Classes:
    """The classes of texts, as logits."""

    learned: ClassVar[float] = 1.0
    looked_at: ClassVar[int] = 128
    """Of so many texts a student that errs at one in fifty gets all right once in thirteen times."""
    asked: ClassVar[dict[str, Any]] = {"output_hidden_states": True}

    def require_fit(self, config: Any, length: int) -> None:
        """Raise ``ModelKindError`` where the student tells other classes apart, or there is but one number."""
        count = getattr(config, "num_labels", length)
        if count != length:
            raise ModelKindError(
                f"the student tells {count} classes apart and its teacher gives {length} numbers",
                expected="the logits of the same classes",
            )
        if length < 2:
            raise ModelKindError("the teacher gives one number, and that is no class", expected="two classes and more")

    def array(self, answers: Array) -> Array:
        """Return the logits as they are."""
        return answers

    def tensor(self, torch: Any, answers: Any) -> Any:
        """Return the logits as they are."""
        return answers.float()

    def states(self, answer: Any) -> Any:
        """Return the states of all tokens after the last layer."""
        return answer.hidden_states[-1]

    def loss(self, torch: Any, found: Any, wanted: Any) -> Any:
        """Return the divergence of the softened shares, in nats times the square of the temperature.

        The square keeps the gradients as large as those of plain shares, whatever the temperature.
        """
        shares = [torch.nn.functional.log_softmax(logits / _TEMPERATURE, dim=1) for logits in (found, wanted)]
        apart = torch.nn.functional.kl_div(*shares, reduction="batchmean", log_target=True)
        return _TEMPERATURE**2 * apart

    def relations(self, torch: Any, found: Any, wanted: Any) -> Any:
        """Return the mean squared difference of the cosines between the logits of all pairs of texts."""
        one, other = (torch.nn.functional.normalize(logits, dim=1) for logits in (found, wanted))
        return torch.nn.functional.mse_loss(one @ one.T, other @ other.T)

    def likeness(self, wanted: Array, found: Array) -> float:
        """Return the share of texts of which both name the same class."""
        return self.judge(wanted, found)

    def judge(self, wanted: Array, found: Array) -> float:
        """Return the share of texts of which both name the same class."""
        return float((wanted.argmax(axis=1) == found.argmax(axis=1)).mean())


def subject_of(artifact: Artifact) -> Subject:
    """Return what a student is taught by its task."""
    return Classes() if artifact.task == "classification" else Vectors()
