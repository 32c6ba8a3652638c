"""The contract of a stage, as tests: a third party's stage passes the same ones as the built-in stages.

Derive from :class:`StageContract` in a test module, and pytest runs it::

    from skerry.testing.stages import StageContract

    class TestDouble(StageContract):
        stage = DoubleStage
        options = {"field": "x"}
        items = [{"x": 1.0}, {"x": 2.0}]
        wrong = [{"x": "text"}]
"""

from __future__ import annotations

import copy
import logging
import pickle
import threading
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from skerry.spec.errors import SkerryError
from skerry.spec.ports import BatchStage, Context, Options, Stage, TickingStage
from skerry.spec.record import HELD, Emission, Merged, Outcome, Record
from skerry.spec.units import QUANTITIES, decode_unit

SECOND = 1_000_000_000
"""Nanoseconds: the time between two records of :func:`records`."""


def decode_options(kind: type[Any], raw: Any) -> Any:
    """Decode options as the pipeline file's are: a mapping, or a plain value for the one that has a shorthand.

    Raises ``msgspec.ValidationError`` for unknown keys and wrong values.
    """
    options: type[Options] = kind.Options
    if not isinstance(raw, Mapping) and options.shorthand:
        raw = {options.shorthand: raw}
    return msgspec.convert(raw, options, dec_hook=decode_unit)


def context(folder: Path, *, name: str = "stage", home: Path | None = None, models: Any = None) -> Context:
    """Return a context with a state folder under ``folder``, which is also the pipeline's folder unless ``home`` is."""
    state = folder / "state" / name
    state.mkdir(parents=True, exist_ok=True)
    return Context(
        name=name,
        home=home or folder,
        state=state,
        stop=threading.Event(),
        log=logging.getLogger(f"skerry.testing.{name}"),
        models=models,
    )


def open_stage(kind: type[Any], raw: Any, folder: Path) -> Any:
    """Return a new stage, made from options as they stand in the pipeline file, and open."""
    stage = kind(decode_options(kind, raw))
    stage.open(context(folder))
    return stage


def records(items: Sequence[Mapping[str, Any]], *, period_ns: int = SECOND) -> list[Record]:
    """Return a record for each mapping of fields, as a source would number them, ``period_ns`` apart."""
    return [
        Record(dict(fields), source="test", sequence=number, read_ns=number * period_ns)
        for number, fields in enumerate(items, start=1)
    ]


class Ledger:
    """The books of a stage: how many of the records that went in are settled, and how.

    A record or ``None`` settles one, ``HELD`` none, :class:`Merged` its ``items``. A list of records settles one (the
    others are emitted), an empty list is a record that was filtered. In a list with a :class:`Merged` only those settle
    records, and the present one is held unless one of them has it.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.out = 0
        self.filtered = 0
        self.absorbed = 0
        self.emitted = 0

    @property
    def held(self) -> int:
        """How many records the stage still holds."""
        return self.taken - self.out - self.filtered - self.absorbed

    def answer(self, outcome: Outcome) -> list[Record]:
        """Enter the answer for one more record and return the records that go on."""
        self.taken += 1
        if outcome is HELD:
            return []
        if outcome is None or outcome == []:
            self.filtered += 1
            return []
        several: Sequence[Emission] = outcome if isinstance(outcome, list) else [outcome]
        wrong = [one for one in several if not isinstance(one, Record | Merged)]
        assert not wrong, f"a stage answers with records, Merged, HELD, None or a list of them, not {wrong[0]!r}"
        if not any(isinstance(one, Merged) for one in several):
            self.out += 1
            self.emitted -= 1
        return self.sent(several)

    def sent(self, emissions: Sequence[Emission]) -> list[Record]:
        """Enter what ``tick`` or ``flush`` returned and return the records that go on."""
        plain = [one for one in emissions if isinstance(one, Record)]
        self.emitted += len(plain)
        self._merged([one for one in emissions if isinstance(one, Merged)])
        return [one.record if isinstance(one, Merged) else one for one in emissions]

    def _merged(self, several: Sequence[Merged]) -> None:
        for one in several:
            assert one.items >= 0, "Merged.items counts records and cannot be negative"
            self.out += one.items > 0
            self.absorbed += max(one.items - 1, 0)
            self.emitted += one.items == 0
            assert self.held >= 0, f"a stage merged {one.items} records, more than it held"


def run(stage: Any, several: Sequence[Record], ledger: Ledger | None = None) -> list[Record]:
    """Put records through an open stage, flush it, and return what came out; a failed record raises."""
    ledger = ledger or Ledger()
    out: list[Record] = []
    for record in several:
        out += ledger.answer(stage.process(record))
    if isinstance(stage, TickingStage):
        out += ledger.sent(stage.flush())
    return out


class StageContract:
    """What every stage keeps. Set ``stage``, ``options``, ``items`` and ``wrong`` in a class derived from this one."""

    stage: ClassVar[Any]
    """The class of the stage."""
    options: ClassVar[Any] = {}
    """Its options as they stand in the pipeline file."""
    items: ClassVar[Sequence[Mapping[str, Any]]]
    """Fields of records that it takes without an error; more than one window of them, for a window."""
    wrong: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Fields of records that it refuses."""
    untouched: ClassVar[str] = "frame"
    """A field name that the stage does not know."""
    passes_unknown: ClassVar[bool] = True
    """Whether fields that the stage does not know go on with the record, as they do unless it makes new records."""

    def make(self) -> Stage:
        """Return a new stage with the options; override it for one that needs more."""
        made: Stage = self.stage(decode_options(self.stage, self.options))
        return made

    def context(self, folder: Path) -> Context:
        """Return what the stage is opened with; override it for a stage that needs models or files."""
        return context(folder)

    def opened(self, folder: Path) -> Any:
        """Return a new open stage."""
        made = self.make()
        made.open(self.context(folder))
        return made

    def test_options_are_strict_and_frozen(self) -> None:
        """Unknown keys are refused, and nobody changes options while the pipeline runs."""
        kind = self.stage.Options
        assert issubclass(kind, Options), "Options derives from skerry.spec.ports.Options"
        config = kind.__struct_config__
        assert config.frozen, "Options needs frozen=True"
        assert config.forbid_unknown_fields, "Options needs forbid_unknown_fields=True"
        if not isinstance(self.options, Mapping):
            assert kind.shorthand in kind.__struct_fields__, "shorthand names an option"

    def test_options_have_a_json_schema(self) -> None:
        """Editors complete and check the options by it."""
        hints = typing.get_type_hints(self.stage.Options)
        for name in self.stage.Options.__struct_fields__:
            assert msgspec.json.schema(hints[name], schema_hook=_schema_of_units), f"no schema for {name}"

    def test_options_survive_pickling(self) -> None:
        """A stage with ``process: true`` is built in another process from its options."""
        decoded = decode_options(self.stage, self.options)
        assert pickle.loads(pickle.dumps(decoded)) == decoded

    def test_options_are_documented(self) -> None:
        """Every option stands in the docstring of the options."""
        said = self.stage.Options.__doc__ or ""
        missing = [name for name in self.stage.Options.__struct_fields__ if name not in said]
        assert not missing, f"options without a word in the docstring: {missing}"

    def test_it_can_be_closed_twice_and_opened_again(self, tmp_path: Path) -> None:
        """An engine closes after a failed start as well, and restarts what broke."""
        unopened = self.make()
        unopened.close()
        stage = self.opened(tmp_path)
        stage.close()
        stage.close()
        stage.open(self.context(tmp_path))
        run(stage, records(copy.deepcopy(self.items)))
        stage.close()

    def test_every_record_is_accounted_for(self, tmp_path: Path) -> None:
        """In = out + filtered + absorbed once it was flushed: nothing is lost or invented."""
        stage, ledger = self.opened(tmp_path), Ledger()
        try:
            for _ in range(3):
                run(stage, records(copy.deepcopy(self.items)), ledger)
                assert ledger.held == 0, f"{ledger.held} records are held after flush"
            if isinstance(stage, TickingStage):
                assert not list(stage.flush()), "a second flush has nothing left to send"
        finally:
            stage.close()
        assert ledger.taken == ledger.out + ledger.filtered + ledger.absorbed

    def test_batches_answer_as_single_records_do(self, tmp_path: Path) -> None:
        """A batch stage gives one answer per record, the same as for the record alone."""
        stage = self.opened(tmp_path)
        if isinstance(stage, BatchStage):
            batch = records(copy.deepcopy(self.items))[: stage.max_batch]
            answers = list(stage.process_batch(batch))
            assert len(answers) == len(batch), "one answer for each record of a batch"
            assert not [one for one in answers if isinstance(one, Exception)]

    def test_it_is_deterministic(self, tmp_path: Path) -> None:
        """Two runs from the start over the same records give the same answers."""
        results = []
        for attempt in ("first", "second"):
            stage = self.opened(tmp_path / attempt)
            out = run(stage, records(copy.deepcopy(self.items)))
            stage.close()
            results.append([(record.sequence, repr(record.fields)) for record in out])
        assert results[0] == results[1]

    def test_wrong_input_is_refused_and_the_stage_goes_on(self, tmp_path: Path) -> None:
        """A bad record is an error that says what is wrong, and leaves the next records and the books as they were."""
        stage, ledger = self.opened(tmp_path), Ledger()
        try:
            for bad in self.wrong:
                record = records([copy.deepcopy(dict(bad))])[0]
                try:
                    outcome = stage.process(record)
                except (SkerryError, ValueError, TypeError) as error:
                    assert str(error), "an error says what is wrong"
                    continue
                raise AssertionError(f"{bad!r} was answered with {outcome!r}")
            run(stage, records(copy.deepcopy(self.items)), ledger)
            assert ledger.held == 0
        finally:
            stage.close()

    def test_a_frame_is_never_copied(self, tmp_path: Path) -> None:
        """What a stage does not know goes through as the same object, not as an equal one."""
        frame = bytearray(1_000_000)
        several = records([{**copy.deepcopy(dict(fields)), self.untouched: frame} for fields in self.items])
        stage = self.opened(tmp_path)
        out = run(stage, several)
        stage.close()
        if self.passes_unknown:
            assert all(record.fields[self.untouched] is frame for record in out)
        else:
            assert all(record.fields.get(self.untouched, frame) is frame for record in out)

    def test_the_envelope_stays(self, tmp_path: Path) -> None:
        """Records that go on keep where they came from: source, sequence and position are not the stage's."""
        several = records(copy.deepcopy(self.items))
        known = {record.sequence for record in several}
        stage = self.opened(tmp_path)
        out = run(stage, several)
        stage.close()
        assert {record.sequence for record in out} <= known
        assert {record.source for record in out} <= {"test"}


def _schema_of_units(kind: type[Any]) -> dict[str, Any]:
    if kind in QUANTITIES:
        return {"type": "string", "examples": [kind.example]}
    raise NotImplementedError(kind)
