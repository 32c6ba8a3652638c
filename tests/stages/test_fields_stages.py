"""The stages that shape fields: parse, extract, filter, map."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.run.stages.extract import ExtractStage
from skerry.run.stages.filter import FilterStage
from skerry.run.stages.map import MapStage
from skerry.run.stages.parse import ParseStage
from skerry.spec.errors import SpecError, StageError
from skerry.testing.stages import decode_options, open_stage, records

LINE = r"^(?P<time>\S+ \S+) (?P<text>.+)$"


def answer(stage: Any, **fields: Any) -> Any:
    record = records([fields])[0]
    outcome = stage.process(record)
    assert outcome is None or outcome is record
    return outcome.fields if outcome else None


def test_parse_sets_the_named_groups(tmp_path: Path) -> None:
    stage = open_stage(ParseStage, LINE, tmp_path)
    assert answer(stage, text="2026-11-22 08:00 it broke") == {"time": "2026-11-22 08:00", "text": "it broke"}
    assert answer(stage, text="short") is None


def test_parse_converts_types_and_leaves_groups_out_that_took_no_part(tmp_path: Path) -> None:
    regex = r"(?P<n>\d+) (?P<share>\S+) (?P<on>\S+)(?: (?P<rest>.*))?"
    stage = open_stage(ParseStage, {"regex": regex, "types": {"n": "int", "share": "float", "on": "bool"}}, tmp_path)
    assert answer(stage, text="3 0.5 yes") == {"text": "3 0.5 yes", "n": 3, "share": 0.5, "on": True}
    assert answer(stage, text="3 half yes") is None


@pytest.mark.parametrize(("policy", "kept"), [("keep", True), ("filter", False)])
def test_parse_follows_its_policy_on_a_mismatch(tmp_path: Path, policy: str, kept: bool) -> None:
    stage = open_stage(ParseStage, {"regex": LINE, "on_mismatch": policy}, tmp_path)
    assert (answer(stage, text="x") == {"text": "x"}) is kept


def test_parse_can_fail_on_a_mismatch_and_on_a_line_that_is_too_long(tmp_path: Path) -> None:
    stage = open_stage(ParseStage, {"regex": LINE, "on_mismatch": "fail", "max_chars": 100}, tmp_path)
    with pytest.raises(StageError, match="does not match"):
        answer(stage, text="x")
    with pytest.raises(StageError, match="10000000 characters"):
        answer(stage, text="a b " * 2_500_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "(?P<a>x"}, "column 1"),
        ({"regex": "(x)"}, "no named groups"),
        ({"regex": "(?P<a>x)", "types": {"b": "int"}}, "no group 'b'"),
    ],
)
def test_parse_refuses_expressions_that_cannot_work(options: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ParseStage(decode_options(ParseStage, options))


@pytest.mark.parametrize(
    ("regex", "warned"),
    [(r"(?P<a>(a+)+)b", True), (r"(?P<a>(?:\w*)*)$", True), (LINE, False), (r"(?P<a>(\d+\.)+)", False)],
)
def test_parse_warns_of_exponential_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, regex: str, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        open_stage(ParseStage, regex, tmp_path)
    assert ("repeats a repetition" in caplog.text) is warned


def test_extract_follows_paths_and_pointers(tmp_path: Path) -> None:
    stage = open_stage(ExtractStage, {"fields": {"t": "a.b.1", "u": "/a/x~1y", "all": "a"}}, tmp_path)
    nested = {"b": [1, 2], "x/y": 5}
    fields = answer(stage, a=nested)
    assert (fields["t"], fields["u"]) == (2, 5)
    assert fields["all"] is nested


def test_extract_reads_json_and_renames_swaps_keeps_and_drops(tmp_path: Path) -> None:
    options = {"json": "text", "rename": {"a": "b", "b": "a"}, "keep": ["a", "b", "c"], "drop": ["c"]}
    stage = open_stage(ExtractStage, options, tmp_path)
    assert answer(stage, text='{"a": 1, "b": 2, "c": 3, "d": 4}') == {"a": 2, "b": 1}
    whole = open_stage(ExtractStage, {"json": "text", "into": "value"}, tmp_path)
    assert answer(whole, text=b"[1, 2]")["value"] == [1, 2]


@pytest.mark.parametrize(("policy", "expected"), [("skip", {"a": {}}), ("null", {"a": {}, "x": None})])
def test_extract_follows_its_policy_where_nothing_is(tmp_path: Path, policy: str, expected: Any) -> None:
    stage = open_stage(ExtractStage, {"fields": {"x": "a.b"}, "on_missing": policy}, tmp_path)
    assert answer(stage, a={}) == expected


def test_extract_leaves_the_record_alone_when_it_fails(tmp_path: Path) -> None:
    stage = open_stage(ExtractStage, {"json": "text", "fields": {"x": "nowhere"}}, tmp_path)
    record = records([{"text": '{"a": 1}'}])[0]
    with pytest.raises(StageError, match="path 'nowhere' leads nowhere"):
        stage.process(record)
    assert record.fields == {"text": '{"a": 1}'}
    with pytest.raises(StageError, match="has 9000000 bytes"):
        answer(stage, text=" " * 9_000_000)


@pytest.mark.parametrize(("policy", "passes"), [("filter", False), ("keep", True)])
def test_filter_follows_its_policy_for_missing_fields(tmp_path: Path, policy: str, passes: bool) -> None:
    stage = open_stage(FilterStage, {"expression": "score > 0.5", "missing": policy}, tmp_path)
    assert answer(stage, score=0.7) == {"score": 0.7}
    assert answer(stage, score=0.2) is None
    assert (answer(stage, other=1) is not None) is passes


def test_map_sees_what_it_has_set_and_changes_all_or_nothing(tmp_path: Path) -> None:
    stage = open_stage(MapStage, {"set": {"y": "x + 1", "z": "y * 2"}, "keep": ["y", "z"]}, tmp_path)
    assert answer(stage, x=1, other="o") == {"y": 2, "z": 4}
    record = records([{"x": 2**62}])[0]
    with pytest.raises(StageError, match="overflow"):
        stage.process(record)
    assert record.fields == {"x": 2**62}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MapStage, {}),
        (ExtractStage, {}),
        (ExtractStage, {"into": "x", "drop": ["y"]}),
        (FilterStage, {"expression": "a", "extra": 1}),
        (ParseStage, {"regex": "(?P<a>.)", "types": {"a": "number"}}),
    ],
)
def test_options_that_say_nothing_or_too_much_are_refused(kind: Any, options: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_options(kind, options)


def test_a_broken_expression_names_its_option() -> None:
    with pytest.raises(SpecError, match=r"map: set.y: .*line 1, column 4"):
        MapStage(decode_options(MapStage, {"set": {"y": "x +"}}))
