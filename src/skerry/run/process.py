"""A stage in a process of its own, for Python that keeps a core busy."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from skerry.run.ring import SLOTS, Parcel, Ring, send
from skerry.spec.errors import SkerryError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Held, Merged, Outcome, Record

_OPEN_S = 60.0  # a stage may import something heavy when it is opened
_CLOSE_S = 2.0


class Question(msgspec.Struct, frozen=True, array_like=True):
    """A record on its way to the worker: the slot that its fields lie in, and its envelope."""

    slot: int
    fields: Parcel
    source: str
    sequence: int
    read_ns: int


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What came back: in ``parcel`` a list of field mappings, or the error.

    ``kept`` names, for each mapping, the fields whose values are those that were sent: they are not sent back.
    """

    slot: int
    parcel: Parcel
    kept: tuple[tuple[str, ...], ...] = ()
    failed: bool = False


_QUESTIONS = msgspec.msgpack.Decoder(Question)
_ANSWERS = msgspec.msgpack.Decoder(Answer)


class ProcessStage:
    """Runs a stage in a forkserver process, over a ring of shared memory.

    Each instance has one process, so ``workers: 4`` with ``process: true`` keeps four cores busy. A process that dies
    takes with it the one record that it worked on; it is replaced and the others are sent again. Values that the stage
    leaves as they are (a frame, say) stay where they are and are not sent back.

    Parameters
    ----------
    plugin:
        The stage's class; it must be importable.
    options:
        Its options; they must be picklable.
    """

    Options: ClassVar[type[Options]] = Options
    max_batch: ClassVar[int] = 2 * SLOTS

    def __init__(self, plugin: type[Any], options: Any) -> None:
        self._plugin = plugin
        self._options = options
        self._context: Context | None = None
        self._ring: Ring | None = None
        self._pipe: Connection | None = None
        self._process: BaseProcess | None = None
        self.restarts = 0
        """How often the process died and was replaced."""

    def open(self, context: Context) -> None:
        """Start the process and open the stage in it; raises what opening it raised there."""
        self._context = context
        self._start()

    def _start(self) -> None:
        context = self._context
        assert context is not None
        self._ring = Ring()
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload([__name__])
        self._pipe, theirs = server.Pipe()
        job = (self._plugin, self._options, context.name, str(context.home), str(context.state), context.insecure)
        self._process = server.Process(
            target=serve, args=(theirs, self._ring.name, pickle.dumps(job)), name=f"skerry-{context.name}", daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            if not self._pipe.poll(_OPEN_S):
                raise StageError(f"its process did not answer within {_OPEN_S:g} s", where=context.name)
            error = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            error = StageError(f"its process died while it was opened ({self._how_it_ended()})", where=context.name)
        if error is not None:
            self.close()
            raise error

    def process(self, record: Record) -> Outcome:
        """Have one record answered."""
        answer = self.process_batch([record])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Have records answered; while one is worked on, the next are on their way already."""
        answers: list[Outcome | Exception] = []
        sent = 0
        while len(answers) < len(records):
            while sent < len(records) and sent - len(answers) < SLOTS and self._ask(sent % SLOTS, records[sent]):
                sent += 1
            try:
                answers.append(self._receive(records[len(answers)]))
            except (EOFError, OSError):
                answers.append(self._replace())
                sent = len(answers)
        return answers

    def _ask(self, slot: int, record: Record) -> bool:
        """Send a record; tell whether the process was there to take it."""
        if self._ring is None or self._pipe is None:
            raise StageError("the stage is closed")
        parcel = self._ring.write(slot, 0, record.fields)
        try:
            send(self._pipe, Question(slot, parcel, record.source, record.sequence, record.read_ns))
        except OSError:
            return False  # it died; answers that it gave before may still wait in the pipe
        return True

    def _receive(self, record: Record) -> Outcome | Exception:
        assert self._pipe is not None
        assert self._ring is not None
        answer = _ANSWERS.decode(self._pipe.recv_bytes())
        found = self._ring.read(answer.slot, 1, answer.parcel)
        if answer.failed:
            assert isinstance(found, Exception)
            return found
        if not found:
            return None
        results = [
            record.with_fields({name: record.fields[name] if name in kept else fields[name] for name in fields})
            for fields, kept in zip(found, answer.kept, strict=True)
        ]
        return results[0] if len(results) == 1 else list(results)

    def _replace(self) -> StageError:
        """Replace a process that died; return the failure of the record that it worked on."""
        how = self._how_it_ended()
        self.close()
        self.restarts += 1
        self._start()
        return StageError(f"its process died ({how}) and was replaced")

    def _how_it_ended(self) -> str:
        assert self._process is not None
        self._process.join(_CLOSE_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self._pipe is not None:
            self._pipe.close()  # the worker reads the end of the pipe and goes
        if self._process is not None:
            self._process.join(_CLOSE_S)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            self._process.close()
        if self._ring is not None:
            self._ring.close()
        self._pipe = self._process = self._ring = None


def serve(pipe: Connection, ring_name: str, job: bytes) -> None:
    """Be the worker: open the stage and answer until the pipe ends."""
    # The parent drains on these signals, and ends the pipe when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ring = Ring(ring_name)
    stage = None
    try:
        stage = _opened(job)
        pipe.send_bytes(pickle.dumps(None))
    except Exception as error:  # noqa: BLE001 -- told to the parent, which raises it
        pipe.send_bytes(pickle.dumps(_portable(error)))
    try:
        while stage is not None:
            _answer(pipe, ring, stage, _QUESTIONS.decode(pipe.recv_bytes()))
    except (EOFError, OSError):
        pass  # the parent closed the pipe, or is gone
    finally:
        if stage is not None:
            stage.close()
        ring.close()


def _opened(job: bytes) -> Any:
    plugin, options, name, home, state, insecure = pickle.loads(job)
    stage = plugin(options)
    context = Context(
        name=name,
        home=Path(home),
        state=Path(state),
        stop=threading.Event(),
        log=logging.getLogger(f"skerry.{name}"),
        insecure=insecure,
        models=_no_models,
    )
    stage.open(context)
    return stage


def _no_models(name: str) -> Any:
    raise StageError(
        f"a stage in a process cannot use the model {name!r}",
        expected="no `process: true`: inference already runs beside Python",
    )


def _answer(pipe: Connection, ring: Ring, stage: Any, question: Question) -> None:
    fields = ring.read(question.slot, 0, question.fields)
    before = dict(fields)
    record = Record(fields, question.source, question.sequence, question.read_ns)
    try:
        outcome = stage.process(record)
        results = _results(outcome)
    except Exception as error:  # noqa: BLE001 -- told to the parent, whose policy decides
        parcel = ring.write(question.slot, 1, _portable(error))
        send(pipe, Answer(question.slot, parcel, failed=True))
        return
    kept = tuple(
        tuple(name for name, value in result.items() if name in before and before[name] is value) for result in results
    )
    changed = [
        {name: None if name in same else value for name, value in result.items()}
        for result, same in zip(results, kept, strict=True)
    ]
    send(pipe, Answer(question.slot, ring.write(question.slot, 1, changed), kept))


def _results(outcome: Outcome) -> list[dict[str, Any]]:
    if outcome is None:
        return []
    if isinstance(outcome, Held | Merged):
        raise StageError("a stage in a process cannot keep records", expected="no `process: true`")
    return [record.fields for record in (outcome if isinstance(outcome, list) else [outcome])]  # type: ignore[union-attr]


def _portable(error: Exception) -> Exception:
    """Return the error, or its words when it cannot be pickled and read again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 -- any class may have a broken __reduce__
        return StageError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, SkerryError | ValueError | TypeError | OSError) else _plain(error)


def _plain(error: Exception) -> Exception:
    """Keep the class of an error that the parent may not be able to import."""
    return error if type(error).__module__ == "builtins" else StageError(f"{type(error).__name__}: {error}")
