"""A user's own Python as a stage: what it may be, what it may return, and what is said where it cannot work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.run.stages.function import FunctionStage
from skerry.spec.errors import DependencyError, SpecError, StageError
from skerry.spec.ports import BatchStage, TickingStage
from skerry.spec.record import HELD, Record
from skerry.testing.stages import context, decode_options, open_stage, records

MODULE = """
import typing
from dataclasses import dataclass
import msgspec
if typing.TYPE_CHECKING:
    from nowhere import Unknown
from skerry.spec.record import HELD, Record
from skerry.spec.units import Duration
import sibling_of_mine

def same(fields): fields["x"] += 1; return fields
def fresh(fields): return {"y": fields["x"]}
def stop(fields): return None
def several(fields): return [{"n": n} for n in range(fields["x"])]
def stream(fields):
    yield {"n": 1}
    yield {"n": 2}
def whole(record: Record): return record.with_fields({"sequence": record.sequence})
def worded(record: "Record", other: "Unknown" = None): return record.with_fields({"s": record.sequence})
def held(fields): return HELD
def wrong(fields): return 5
def wrong_list(fields): return [5]
def endless(fields):
    while True: yield {}
def broken(fields): raise ZeroDivisionError("of the user")
def scaled(fields, *, by, offset=0): return {"x": fields["x"] * by + offset}
async def later(fields): return fields
async def later_stream(fields): yield fields
def nothing(): return None
def imported(fields): return {"x": sibling_of_mine.VALUE}
thing = 5
class Counter:
    class Options(msgspec.Struct, frozen=True):
        start: int = 0
        pause: Duration = Duration(1)
    def __init__(self, options): self.count, self.log = options.start, []
    def open(self, context): self.log.append(context.name)
    def process(self, fields): self.count += 1; return {"count": self.count, "log": list(self.log)}
    def close(self): self.log.append("closed")
class Plain:
    def __init__(self, by=1): self.by = by
    def open(self): self.by += 1
    def process(self, fields): return {"by": self.by}
class Useless: pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine_here.py").write_text(MODULE)
    (tmp_path / "sibling_of_mine.py").write_text("VALUE = 7\n")
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def use(folder: Path, name: str, **given: Any) -> Any:
    return open_stage(FunctionStage, {"use": f"mine_here:{name}", "with": given}, folder)


def test_a_dict_changed_in_place_keeps_the_record(folder: Path) -> None:
    [record] = records([{"x": 1}])
    assert use(folder, "same").process(record) is record
    assert record.fields == {"x": 2}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fresh", [{"y": 2}]),
        ("several", [{"n": 0}, {"n": 1}]),
        ("stream", [{"n": 1}, {"n": 2}]),
        ("whole", [{"sequence": 1}]),
        ("worded", [{"s": 1}]),
        ("imported", [{"x": 7}]),
    ],
)
def test_what_it_returns_goes_on(folder: Path, name: str, expected: list[Any]) -> None:
    outcome = use(folder, name).process(records([{"x": 2}])[0])
    several = outcome if isinstance(outcome, list) else [outcome]
    assert [record.fields for record in several] == expected
    assert all(isinstance(record, Record) and record.sequence == 1 for record in several)


def test_it_can_stop_hold_and_fail(folder: Path) -> None:
    [record] = records([{"x": 0}])
    assert use(folder, "stop").process(record) is None
    assert use(folder, "several").process(record) is None
    assert use(folder, "held").process(record) is HELD
    with pytest.raises(ZeroDivisionError):
        use(folder, "broken").process(record)
    for name in ("wrong", "wrong_list"):
        with pytest.raises(StageError, match="returned 5"):
            use(folder, name).process(record)
    with pytest.raises(StageError, match="more than"):
        use(folder, "endless").process(record)


def test_it_takes_keyword_arguments(folder: Path) -> None:
    assert use(folder, "scaled", by=3, offset=1).process(records([{"x": 2}])[0]).fields == {"x": 7}
    with pytest.raises(SpecError, match="missing a required"):
        use(folder, "scaled")
    with pytest.raises(SpecError, match="unexpected keyword"):
        use(folder, "scaled", by=3, of=1)


def test_a_class_is_made_opened_and_closed(folder: Path) -> None:
    stage = use(folder, "Counter", start=5, pause="2s")
    fields = [stage.process(record).fields for record in records([{}, {}])]
    assert fields == [{"count": 6, "log": ["stage"]}, {"count": 7, "log": ["stage"]}]
    stage.close()
    stage.close()
    with pytest.raises(StageError, match="not open"):
        stage.process(records([{}])[0])
    assert use(folder, "Plain", by=2).process(records([{}])[0]).fields == {"by": 3}
    with pytest.raises(SpecError, match="does not take these options"):
        use(folder, "Counter", start="five")
    with pytest.raises(SpecError, match="does not take these options"):
        use(folder, "Plain", of=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sevral", "did you mean 'several'"),
        ("thing", "cannot be called"),
        ("later", "an async function cannot be a stage"),
        ("later_stream", "an async function cannot be a stage"),
        ("Useless", "has no method process"),
        ("nothing", "one argument for the fields"),
    ],
)
def test_what_cannot_be_a_stage_is_refused_with_the_reason(folder: Path, name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        use(folder, name)
    assert message in str(caught.value)


def test_modules_that_cannot_be_imported(folder: Path) -> None:
    (folder / "needs_more.py").write_text("import surely_not_installed\n")
    (folder / "bad_syntax.py").write_text("def f(:\n")
    (folder / "raises_here.py").write_text("1 / 0\n")
    cases: list[tuple[str, type[Exception], str]] = [
        ("mine_hre:same", SpecError, "did you mean 'mine_here'"),
        ("no.such.module:same", SpecError, "there is no module"),
        ("needs_more:f", DependencyError, "'surely_not_installed', which is not installed"),
        ("bad_syntax:f", SpecError, "bad_syntax.py:1"),
        ("raises_here:f", SpecError, "ZeroDivisionError"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind) as caught:
            open_stage(FunctionStage, name, folder)
        assert message in str(caught.value)
    assert str(folder) not in sys.path


def test_the_path_is_as_it_was_and_two_folders_do_not_mix(folder: Path, tmp_path: Path) -> None:
    before = list(sys.path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine_here.py").write_text("def fresh(fields): return {'other': True}\n")
    first = use(folder, "fresh")
    second = open_stage(FunctionStage, "mine_here:fresh", other)
    assert sys.path == before
    assert first.process(records([{"x": 1}])[0]).fields == {"y": 1}
    assert second.process(records([{"x": 1}])[0]).fields == {"other": True}
    assert use(folder, "fresh").process(records([{"x": 1}])[0]).fields == {"y": 1}


def test_the_pipelines_folder_comes_before_what_is_installed(folder: Path) -> None:
    (folder / "colorsys.py").write_text("def f(fields): return {'local': True}\n")
    assert open_stage(FunctionStage, "colorsys:f", folder).process(records([{}])[0]).fields == {"local": True}
    installed = open_stage(FunctionStage, "json:dumps", folder)
    with pytest.raises(StageError, match="returned"):
        installed.process(records([{}])[0])


@pytest.mark.parametrize("name", ["same", "mod:", ":f", "a-b:f", "mod:f()", "os;x:f", "a:b:c"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_options(FunctionStage, name)


def test_it_is_neither_batched_nor_ticked(folder: Path) -> None:
    stage = FunctionStage(decode_options(FunctionStage, "mine_here:same"))
    assert not isinstance(stage, BatchStage | TickingStage)
    assert context(folder).home == folder
