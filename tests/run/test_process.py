"""Stages in processes: answers, failures, deaths, large and unchanged values."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.run.process import ProcessStage
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import HELD, Record
from tests.run.parts import Collect, Items, engine, numbered, sink, source, stage


class Worker:
    """Does what the field ``do`` says; importable by the process."""

    Options = Options

    def __init__(self, options: Any) -> None:
        self.seen = 0

    def open(self, context: Context) -> None:
        self.seen = 0

    def process(self, record: Record) -> Any:
        self.seen += 1
        fields = record.fields
        match fields.get("do"):
            case "fail":
                raise ValueError("as told")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "drop":
                return None
            case "hold":
                return HELD
            case "split":
                return [record, record.with_fields({"n": -1})]
            case "double":
                fields["array"] = fields["array"] * 2
        fields["pid"] = os.getpid()
        return record

    def close(self) -> None:
        pass


class Broken(Worker):
    def open(self, context: Context) -> None:
        raise SpecError("cannot be opened", where=context.name)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(name="work", home=tmp_path, state=tmp_path, stop=threading.Event(), log=logging.getLogger("test"))


@pytest.fixture
def worker(context: Context) -> Iterator[ProcessStage]:
    made = ProcessStage(Worker, Options())
    made.open(context)
    yield made
    made.close()
    made.close()


def test_it_answers_from_another_process(worker: ProcessStage) -> None:
    answer = worker.process(Record({"n": 1}, "in", 5))
    assert isinstance(answer, Record)
    assert answer.fields["n"] == 1
    assert answer.sequence == 5
    assert answer.fields["pid"] != os.getpid()


def test_every_kind_of_answer_comes_back(worker: ProcessStage) -> None:
    records = [Record({"do": do, "n": 3}) for do in ("fail", "drop", "split", "hold", "")]
    failed, dropped, split, held, plain = worker.process_batch(records)
    assert isinstance(failed, ValueError)
    assert str(failed) == "as told"
    assert dropped is None
    assert [record.fields["n"] for record in split] == [3, -1]  # type: ignore[union-attr]
    assert isinstance(held, StageError)
    assert isinstance(plain, Record)


def test_more_records_than_slots_keep_their_order(worker: ProcessStage) -> None:
    answers = worker.process_batch([Record({"n": number}) for number in range(50)])
    assert [answer.fields["n"] for answer in answers] == list(range(50))  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(3,), (480, 640, 3), (1200, 1600, 3)])
def test_arrays_of_any_size_go_there_and_back(worker: ProcessStage, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(np.uint8)
    answer = worker.process(Record({"do": "double", "array": array}))
    assert np.array_equal(answer.fields["array"], array * 2)  # type: ignore[union-attr]


def test_what_the_stage_leaves_alone_is_not_copied(worker: ProcessStage) -> None:
    frame = np.zeros((480, 640, 3), np.uint8)
    answer = worker.process(Record({"frame": frame}))
    assert answer.fields["frame"] is frame  # type: ignore[union-attr]


def test_a_process_that_dies_costs_one_record(worker: ProcessStage) -> None:
    records = [Record({"n": number, "do": "die" if number == 3 else ""}) for number in range(8)]
    answers = worker.process_batch(records)
    assert isinstance(answers[3], StageError)
    assert "SIGKILL" in str(answers[3])
    assert [answer.fields["n"] for answer in answers if isinstance(answer, Record)] == [0, 1, 2, 4, 5, 6, 7]
    assert worker.restarts == 1


def test_what_opening_raises_comes_out_here(context: Context) -> None:
    with pytest.raises(SpecError, match="cannot be opened"):
        ProcessStage(Broken, Options()).open(context)


def test_workers_in_processes_lose_nothing(tmp_path: Path) -> None:
    out = Collect()
    items = [{"n": number, "do": "die" if number == 100 else ""} for number in range(200)]
    made = engine(
        tmp_path,
        source("in", Items(items)),
        stage("work", lambda: ProcessStage(Worker, Options()), workers=2, process=True),
        sink("out", out),
    )
    summary = made.run()
    assert sorted(out.numbers()) == [number for number in range(200) if number != 100]
    assert len({record.fields["pid"] for record in out.got}) >= 2
    assert summary.failed == 1
    assert next(entry for entry in summary.stages if entry.id == "work").restarts == 1


def test_nothing_is_left_in_shared_memory(context: Context) -> None:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("this system does not show its shared memory")
    made = ProcessStage(Worker, Options())
    made.open(context)
    made.process(Record(numbered(1)[0]))
    assert made._ring is not None
    place = folder / made._ring.name.lstrip("/")  # others may work on this machine, so only ours is looked for
    assert place.exists()
    made.close()
    assert not place.exists()
