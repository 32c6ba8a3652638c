"""Every model-free stage keeps the contract of a stage."""
# ruff: noqa: RUF012  the attributes of a contract are its parameters and are never changed

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skerry.run.stages.anomaly import AnomalyStage
from skerry.run.stages.debounce import DebounceStage
from skerry.run.stages.extract import ExtractStage
from skerry.run.stages.filter import FilterStage
from skerry.run.stages.function import FunctionStage
from skerry.run.stages.hysteresis import HysteresisStage
from skerry.run.stages.map import MapStage
from skerry.run.stages.normalize import NormalizeStage
from skerry.run.stages.parse import ParseStage
from skerry.run.stages.passing import PassStage
from skerry.run.stages.redact import RedactStage
from skerry.run.stages.resample import ResampleStage
from skerry.run.stages.standardize import StandardizeStage
from skerry.run.stages.state import StateStage
from skerry.run.stages.threshold import ThresholdStage
from skerry.run.stages.window import WindowStage
from skerry.spec.ports import Context
from skerry.testing.stages import Ledger, StageContract, context, records, run

NUMBERS = [{"x": float(number), "sensor": "ab"[number % 2]} for number in range(10)]
NO_NUMBER: list[dict[str, Any]] = [{}, {"x": "7"}, {"x": None}, {"x": [1]}, {"x": b"1"}, {"x": True}]


class TestPass(StageContract):
    stage = PassStage
    items = NUMBERS


class TestParse(StageContract):
    stage = ParseStage
    options = {"regex": r"(?P<level>\w+): (?P<score>\S+)", "types": {"score": "float"}}
    items = [{"text": "warn: 0.5"}, {"text": "nothing"}, {"text": "info: x"}]
    wrong = [{}, {"text": b"warn: 1"}, {"text": 5}, {"text": None}]


class TestParseShorthand(StageContract):
    stage = ParseStage
    options = r"(?P<level>\w+)"
    items = [{"text": "warn"}]


class TestExtract(StageContract):
    stage = ExtractStage
    options = {"json": "text", "fields": {"first": "/a/0"}, "rename": {"b": "c"}, "drop": ["text"]}
    items = [{"text": '{"a": [1, 2], "b": true}'}]
    wrong = [{}, {"text": "{"}, {"text": "[1]"}, {"text": 5}, {"text": "[" * 100_000}, {"text": '{"a": []}'}]


class TestFilter(StageContract):
    stage = FilterStage
    options = "x > 4.5"
    items = NUMBERS
    wrong = [{}, {"x": "text"}, {"x": None}, {"x": object()}, {"x": float("nan")}]


class TestMap(StageContract):
    stage = MapStage
    options = {"set": {"y": "x * 2.0", "z": "y + 1.0"}, "drop": ["y"]}
    items = NUMBERS
    wrong = [{}, {"x": "text"}]


class TestNormalize(StageContract):
    stage = NormalizeStage
    options = {"ranges": {"x": {"min": 0, "max": 10}}, "clip": True}
    items = NUMBERS
    wrong = NO_NUMBER[:3]


class TestStandardizeGiven(StageContract):
    stage = StandardizeStage
    options = {"fields": {"x": {"mean": 4, "std": 2}}}
    items = NUMBERS
    wrong = NO_NUMBER[:3]


class TestStandardizeRunning(StageContract):
    stage = StandardizeStage
    options = {"fields": ["x"], "warm_up": 3, "key": "sensor", "half_life": 20}
    items = NUMBERS
    wrong = [*NO_NUMBER, {"x": 1.0}, {"x": 1.0, "sensor": []}]


class TestResampleLinear(StageContract):
    stage = ResampleStage
    options = {"fields": ["x"], "every": "300ms"}
    items = NUMBERS
    wrong = NO_NUMBER
    passes_unknown = False


class TestResampleMean(StageContract):
    stage = ResampleStage
    options = {"fields": ["x"], "every": "3s", "method": "mean", "key": "sensor"}
    items = NUMBERS
    wrong = NO_NUMBER
    passes_unknown = False


class TestResamplePrevious(StageContract):
    stage = ResampleStage
    options = {"fields": ["x"], "every": "700ms", "method": "previous", "carry": ["frame"]}
    items = NUMBERS
    wrong = NO_NUMBER


class TestWindowCount(StageContract):
    stage = WindowStage
    options = {"fields": ["x"], "items": 4}
    items = NUMBERS
    wrong = NO_NUMBER
    passes_unknown = False


class TestWindowSlidingCount(StageContract):
    stage = WindowStage
    options = {"fields": {"x": ["mean", "list"]}, "items": 4, "every_items": 1, "carry": ["frame"]}
    items = NUMBERS
    wrong = NO_NUMBER


class TestWindowTime(StageContract):
    stage = WindowStage
    options = {"fields": ["x"], "span": "3s", "key": "sensor"}
    items = NUMBERS
    wrong = [*NO_NUMBER, {"x": 1.0}]
    passes_unknown = False


class TestWindowSlidingTime(StageContract):
    stage = WindowStage
    options = {"fields": ["x"], "span": "3s", "every": "1s", "time": "t", "lateness": "1s"}
    items = [{"x": 1.0, "t": moment} for moment in (1, 2, 1.5, 9, 4, 10, 30)]
    wrong = [{"x": 1.0}, {"x": 1.0, "t": "noon"}, {"x": 1.0, "t": float("nan")}]
    passes_unknown = False


class TestThreshold(StageContract):
    stage = ThresholdStage
    options = {"field": "x", "above": 5}
    items = NUMBERS
    wrong = NO_NUMBER


class TestHysteresis(StageContract):
    stage = HysteresisStage
    options = {"field": "x", "on": 7, "off": 3, "key": "sensor"}
    items = NUMBERS
    wrong = [*NO_NUMBER, {"x": 1.0}]


class TestDebounce(StageContract):
    stage = DebounceStage
    options = {"holds": "x > 3.0", "count": 2}
    items = NUMBERS
    wrong = [{}, {"x": "text"}]


class TestDebounceField(StageContract):
    stage = DebounceStage
    options = {"field": "hot", "hold": "2s"}
    items = [{"hot": value} for value in (True, False, True, True, True, True)]
    wrong = [{}, {"hot": 1}, {"hot": "yes"}, {"hot": None}]


class TestAnomaly(StageContract):
    stage = AnomalyStage
    options = {"fields": ["x"], "warm_up": 3}
    items = NUMBERS
    wrong = NO_NUMBER


class TestMahalanobis(StageContract):
    stage = AnomalyStage
    options = {"fields": ["x", "y"], "warm_up": 3, "method": "mahalanobis"}
    items = [{"x": float(number), "y": float(number * number % 7)} for number in range(12)]
    wrong = NO_NUMBER


class TestRedact(StageContract):
    stage = RedactStage
    options = ["email", "card"]
    items = [{"text": "mail a@b.de", "nested": ["4111 1111 1111 1111"], "n": 5}]


class TestState(StageContract):
    stage = StateStage
    options = {"count": "seen", "key": "sensor", "set": {"last": "x"}, "get": {"before": "last"}}
    items = NUMBERS
    wrong = [{}, {"x": 1.0}, {"x": object(), "sensor": "a"}, {"x": 1.0, "sensor": None}]


class TestFunction(StageContract):
    stage = FunctionStage
    options = {"use": "double:double", "with": {"factor": 3}}
    items = NUMBERS
    wrong = [{"x": None}]

    def context(self, folder: Path) -> Context:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "double.py").write_text(
            "def double(fields, factor=2):\n    fields['x'] = fields['x'] * factor + 0.0\n    return fields\n"
        )
        return context(folder)


@pytest.mark.parametrize(
    "answer",
    [lambda record: [], lambda record: None, lambda record: record, lambda record: [record, record]],
)
def test_the_ledger_settles_one_record_for_each_answer(answer: Any) -> None:
    ledger = Ledger()
    ledger.answer(answer(records([{}])[0]))
    assert ledger.held == 0


def test_the_contract_catches_a_stage_that_loses_records(tmp_path: Path) -> None:
    class Loses(WindowStage):
        def flush(self) -> list[Any]:
            return []

    class Contract(StageContract):
        stage = Loses
        options = {"fields": ["x"], "items": 4}
        items = NUMBERS

    with pytest.raises(AssertionError, match="held after flush"):
        Contract().test_every_record_is_accounted_for(tmp_path)
    assert run(PassStage(PassStage.Options()), records(NUMBERS))
