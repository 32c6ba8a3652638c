"""A stage in a process of its own, for Python that keeps a core busy."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from skerry.run.ring import SLOTS, Parcel, Ring, send
from skerry.run.wording import told
from skerry.spec.errors import SkerryError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Held, Merged, Outcome, Record

_OPEN_S = 60.0  # a stage may import something heavy when it is opened
_CLOSE_S = 2.0
_ATOMS = (str, bytes, int, float, complex, bool, type(None))


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
    takes with it the one record that it worked on; it is replaced and the others are sent again. Texts, numbers and
    arrays that the stage leaves as they are (a frame, say) stay where they are and are not sent back; that is why
    arrays are read-only there. A record that cannot be pickled fails alone.

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
        self._is_closed = True
        self.restarts = 0
        """How often the process died and was replaced."""

    def open(self, context: Context) -> None:
        """Start the process and open the stage in it; raises what opening it raised there."""
        self._context = context
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        context = self._context
        assert context is not None
        self._ring = Ring()
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload([__name__])
        self._pipe, theirs = server.Pipe()
        job = (self._plugin, self._options, context.name, str(context.home), str(context.state), context.insecure)
        try:
            process = server.Process(
                target=serve, args=(theirs, self._ring.name, pickle.dumps(job)), name=f"skerry-{context.name}",
                daemon=True,
            )  # fmt: skip
            process.start()
        except Exception as error:
            self._end()
            raise StageError(f"its process cannot be started: {told(error)}", where=context.name) from error
        finally:
            theirs.close()
        self._process = process
        refusal = self._greeting(self._pipe, context.name)
        if refusal is not None:
            self._end()
            raise refusal

    def _greeting(self, pipe: Connection, name: str) -> Exception | None:
        """Wait until the stage is open in the process; return what went wrong there."""
        try:
            if not pipe.poll(_OPEN_S):
                return StageError(f"its process did not answer within {_OPEN_S:g} s", where=name)
            refusal: Exception | None = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return StageError(f"its process died while it was opened ({self._how_it_ended()})", where=name)
        return refusal

    def process(self, record: Record) -> Outcome:
        """Have one record answered."""
        answer = self.process_batch([record])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Have records answered; while one is worked on, the next are on their way already."""
        talk = _Talk(records)
        while not talk.is_over():
            idle = self._send_ahead(talk)
            if talk.way:
                try:
                    talk.answered(self._receive(records[talk.way[0]]))
                except (EOFError, OSError):
                    talk.died(self._replace())
            elif idle:  # it died before it had anything of ours
                failure = self._replace()
                if talk.is_hopeless():
                    talk.skip(failure)
        return talk.answers

    def _send_ahead(self, talk: _Talk) -> bool:
        """Send what there is a slot for; tell whether the process was not there to take it."""
        ring, pipe = self._ring, self._pipe
        if ring is None or pipe is None:
            raise StageError("the stage is closed")
        while talk.following < len(talk.records) and len(talk.way) < SLOTS:
            question = talk.ready or _question(ring, talk.sent % SLOTS, talk.records[talk.following])
            talk.ready = None
            if isinstance(question, Exception):
                talk.skip(question)
                continue
            if question.fields.whole is not None and talk.way:
                # It goes through the pipe. While the worker writes a large answer into it, both would wait for ever.
                talk.ready = question
                return False
            try:
                send(pipe, question)
            except OSError:
                return True  # it died; answers that it gave before may still wait in the pipe
            talk.went()
        return False

    def _receive(self, record: Record) -> Outcome | Exception:
        ring, pipe = self._ring, self._pipe
        if ring is None or pipe is None:
            raise StageError("the stage is closed")
        answer = _ANSWERS.decode(pipe.recv_bytes())
        try:
            found = ring.read(answer.slot, 1, answer.parcel)
        except Exception as error:  # noqa: BLE001 -- unpickling runs a third party's code
            return StageError(f"its answer cannot be read: {told(error)}")
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
        if self._is_closed:
            raise StageError("the stage was closed")
        how = self._how_it_ended()
        self._end()
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
        """End the process; safe to call twice, and while another thread waits for an answer."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        pipe, process, ring = self._pipe, self._process, self._ring
        self._pipe = self._process = self._ring = None
        try:
            if pipe is not None:
                pipe.close()  # the worker reads the end of the pipe and goes
            if process is not None:
                process.join(_CLOSE_S)
                if process.is_alive():
                    process.kill()
                    process.join()
                process.close()
        finally:
            if ring is not None:
                ring.close()


class _Talk:
    """Records that are asked about: which of them are on their way, and the answers."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.answers: list[Outcome | Exception] = [None] * len(records)
        self.way: deque[int] = deque()
        self.following = 0
        self.sent = 0
        self.ready: Question | None = None
        self._missed = -1

    def is_over(self) -> bool:
        """Tell whether every record has its answer."""
        return not self.way and self.following >= len(self.records)

    def went(self) -> None:
        """Note that the following record is on its way."""
        self.way.append(self.following)
        self.following += 1
        self.sent += 1

    def skip(self, failure: Exception) -> None:
        """Answer the following record without asking."""
        self.answers[self.following] = failure
        self.following += 1

    def answered(self, answer: Outcome | Exception) -> None:
        """Take the answer for the first record on the way."""
        self.answers[self.way.popleft()] = answer

    def died(self, failure: Exception) -> None:
        """Fail the first record on the way, and ask the others again."""
        self.answered(failure)
        if self.way:
            self.following = self.way[0]
        self.way.clear()
        self.ready = None

    def is_hopeless(self) -> bool:
        """Tell whether the process was missing when the same record was to be sent before."""
        hopeless, self._missed = self._missed == self.following, self.following
        self.ready = None
        return hopeless


def _question(ring: Ring, slot: int, record: Record) -> Question | Exception:
    """Put a record into a slot; return its envelope, or why it cannot travel."""
    try:
        parcel = ring.write(slot, 0, record.fields)
    except Exception as error:  # noqa: BLE001 -- pickling runs a third party's code
        return StageError(f"the record cannot be sent to the process: {told(error)}", expected="values to be pickled")
    return Question(slot, parcel, record.source, record.sequence, record.read_ns)


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
    try:
        fields = ring.read(question.slot, 0, question.fields)
        before = dict(fields)
        results = _results(stage.process(Record(fields, question.source, question.sequence, question.read_ns)))
        kept = tuple(
            tuple(name for name, value in result.items() if name in before and _is_left(before[name], value))
            for result in results
        )
        changed = [
            {name: None if name in same else value for name, value in result.items()}
            for result, same in zip(results, kept, strict=True)
        ]
        answer = Answer(question.slot, ring.write(question.slot, 1, changed), kept)
    except BaseException as error:  # noqa: BLE001 -- told to the parent, whose policy decides
        answer = Answer(question.slot, ring.write(question.slot, 1, _portable(error)), failed=True)
    send(pipe, answer)


def _is_left(before: object, value: object) -> bool:
    """Tell whether a value is what was sent: the same one, and of a kind that nobody can change in place."""
    if value is not before:
        return False
    flags = getattr(value, "flags", None)  # of an array
    return isinstance(value, _ATOMS) or not getattr(flags, "writeable", True)


def _results(outcome: Outcome) -> list[dict[str, Any]]:
    if outcome is None:
        return []
    if isinstance(outcome, Held | Merged):
        raise StageError("a stage in a process cannot keep records", expected="no `process: true`")
    return [record.fields for record in (outcome if isinstance(outcome, list) else [outcome])]  # type: ignore[union-attr]


def _portable(error: BaseException) -> Exception:
    """Return the error, or its words when it cannot be pickled and read again."""
    if not isinstance(error, Exception):
        return StageError(told(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 -- any class may have a broken __reduce__
        return StageError(told(error))
    return error if isinstance(error, SkerryError | ValueError | TypeError | OSError) else _plain(error)


def _plain(error: Exception) -> Exception:
    """Keep the class of an error that the parent may not be able to import."""
    return error if type(error).__module__ == "builtins" else StageError(told(error))
