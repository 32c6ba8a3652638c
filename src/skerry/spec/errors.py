"""The error tree: what went wrong, where, and what would be right.

Grouped by who has to act. Every class has a stable exit code; a retired number is never given again.

::

    SkerryError                         1   a fault of Skerry itself
    ├── UsageError                      2   the command line
    ├── SpecError                      10   the user's file: a wrong key, value, unit or name
    │   ├── SpecMissingError           11   there is no such file
    │   └── GraphError                 12   stages that form a cycle or dangle
    ├── ModelError                     20   a model that cannot be used
    │   ├── ModelMissingError          21   there is no such model, or it was not built yet
    │   ├── ModelCorruptError          22   the file is damaged
    │   ├── ModelKindError             23   a whole file, but for another runtime or task
    │   ├── TensorError                24   a wrong tensor name, shape or dtype
    │   └── LabelsError                25   a label file that is empty or not one
    ├── DependencyError                30   something to be installed
    │   └── RuntimeUnavailableError    31   a runtime that cannot work on this machine
    ├── SourceError                    40   where data come from
    │   ├── SourceUnavailableError     41   it never came up
    │   └── SourceLostError            42   it was there, and went away for good
    ├── StageError                     50   a stage failed and was told to stop the run
    ├── SinkError                      60   where answers go
    │   ├── SinkUnavailableError       61   it refuses or cannot be reached
    │   └── SinkFullError              62   no space is left
    ├── DeviceError                    70   what this machine cannot tell or do
    ├── TrustError                     90   who somebody is, or what a key vouches for
    │   ├── IdentityMissingError       91   this device was never enrolled, or its files are gone
    │   ├── EnrolmentRefusedError      92   a token or a renewal that an authority does not take
    │   └── CertificateRefusedError    93   a certificate that is forged, expired, revoked or another one's
    ├── WireError                     100   a batch that cannot be read: cut, damaged, too large
    │   ├── WireVersionError          101   of a version that is not known here
    │   └── SignatureError            102   signed by nobody known, or changed afterwards
    ├── OutboxError                   110   the store of what is still to be sent
    │   └── OutboxFullError           111   it is full, and nothing in it may be given up
    ├── HubError                      120   what a hub answers
    │   ├── HubUnreachableError       121   it cannot be reached, or something else answers in its place
    │   └── HubRefusedError           122   it does not take this, now or ever
    ├── CalibrationError              115   a threshold that cannot be vouched for
    │   └── TooFewError               116   with more examples it could
    └── EngineError                    80   the engine cannot work, or broke a promise of its own
        ├── ConservationError          81   a record was lost or invented
        ├── DrainTimeoutError          82   the work left at shutdown did not fit the time limit
        ├── StateBusyError             83   another run holds this pipeline's state
        └── StateUnwritableError       84   what a run must remember cannot be written down
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class SkerryError(Exception):
    """The root of every error that Skerry raises on purpose.

    Parameters
    ----------
    message:
        What went wrong, in plain words.
    where:
        The place: ``file:line:column``, a stage, a device node.
    expected:
        What would be right.
    hint:
        What to do now, for instance the nearest valid word or an install command.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", expected: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        tail = [f"expected: {self.expected}"] if self.expected else []
        tail += [f"hint: {self.hint}"] if self.hint else []
        return "\n  ".join([head, *tail])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.where, self.expected, self.hint)


def _rebuild(kind: type[SkerryError], message: str, where: str, expected: str, hint: str) -> SkerryError:
    """Unpickle an error that came from a worker process."""
    return kind(message, where=where, expected=expected, hint=hint)


class UsageError(SkerryError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class SpecError(SkerryError):
    """A file that the user wrote has a wrong key, value, unit or name."""

    exit_code = 10


class SpecMissingError(SpecError):
    """The file or folder that was named is not there."""

    exit_code = 11


class GraphError(SpecError):
    """The stages do not form a graph without cycles, or one of them dangles."""

    exit_code = 12


class ModelError(SkerryError):
    """A model cannot be used."""

    exit_code = 20


class ModelMissingError(ModelError):
    """There is no such model, or it has not been built yet."""

    exit_code = 21


class ModelCorruptError(ModelError):
    """The model's file is damaged."""

    exit_code = 22


class ModelKindError(ModelError):
    """The model's file is whole, but made for another runtime or another task."""

    exit_code = 23


class TensorError(ModelError):
    """A tensor has a name, shape or dtype that the model does not take."""

    exit_code = 24


class LabelsError(ModelError):
    """A label file is empty, or is none."""

    exit_code = 25


class DependencyError(SkerryError):
    """Something has to be installed first."""

    exit_code = 30


class RuntimeUnavailableError(DependencyError):
    """A runtime is installed or named, but cannot work on this machine."""

    exit_code = 31


class SourceError(SkerryError):
    """Data cannot be read."""

    exit_code = 40


class SourceUnavailableError(SourceError):
    """A source never came up."""

    exit_code = 41


class SourceLostError(SourceError):
    """A source was there and went away for good."""

    exit_code = 42


class StageError(SkerryError):
    """A stage failed, and its policy is to stop the run."""

    exit_code = 50


class SinkError(SkerryError):
    """Answers cannot be handed over."""

    exit_code = 60


class SinkUnavailableError(SinkError):
    """A sink refuses, or cannot be reached."""

    exit_code = 61


class SinkFullError(SinkError):
    """A sink has no space left."""

    exit_code = 62


class DeviceError(SkerryError):
    """This machine cannot tell or do what was asked."""

    exit_code = 70


class TrustError(SkerryError):
    """Somebody is not who they must be, or a key does not vouch for what it should."""

    exit_code = 90


class IdentityMissingError(TrustError):
    """This device was never enrolled, or the files of its identity are gone."""

    exit_code = 91


class EnrolmentRefusedError(TrustError):
    """A token or a renewal is not taken: used, expired, unknown or revoked."""

    exit_code = 92


class CertificateRefusedError(TrustError):
    """A certificate is forged, expired, revoked or belongs to somebody else."""

    exit_code = 93


class WireError(SkerryError):
    """A batch of records cannot be read: it is cut short, damaged or larger than what is taken."""

    exit_code = 100


class WireVersionError(WireError):
    """A batch has a version that is not known here."""

    exit_code = 101


class SignatureError(WireError):
    """A batch is signed by nobody known, or was changed after it was signed."""

    exit_code = 102


class OutboxError(SkerryError):
    """The store of what is still to be sent cannot be used."""

    exit_code = 110


class OutboxFullError(OutboxError):
    """The store is full, and nothing in it may be given up for what comes now."""

    exit_code = 111


class HubError(SkerryError):
    """A hub did not do what was asked of it."""

    exit_code = 120


class HubUnreachableError(HubError):
    """A hub cannot be reached, or something else answers in its place."""

    exit_code = 121


class HubRefusedError(HubError):
    """A hub does not take what was sent."""

    exit_code = 122


class CalibrationError(SkerryError):
    """A threshold cannot be vouched for."""

    exit_code = 115


class TooFewError(CalibrationError):
    """The examples are too few for the certainty that is asked for."""

    exit_code = 116


class EngineError(SkerryError):
    """The engine cannot work, or broke a promise of its own."""

    exit_code = 80


class ConservationError(EngineError):
    """Records in do not equal records accounted for: one was lost or invented."""

    exit_code = 81


class DrainTimeoutError(EngineError):
    """At shutdown, the work that was left did not fit into the time limit."""

    exit_code = 82


class StateBusyError(EngineError):
    """Another run of the same pipeline holds its state."""

    exit_code = 83


class StateUnwritableError(EngineError):
    """What a run must remember cannot be written down: no right, no space, or something is in the way."""

    exit_code = 84


def every_error(root: type[SkerryError] = SkerryError) -> Iterator[type[SkerryError]]:
    """Yield ``root`` and every error class of this module below it, parents first."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == __name__:
            yield from every_error(child)
