"""Expressions: what CEL sees of a record, and what the user is told when it goes wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy
import pytest

from skerry.run.expression import MAX_ARRAY, MAX_SOURCE, Expression, FieldMissingError
from skerry.spec.errors import SpecError, StageError


@pytest.mark.parametrize(
    ("source", "fields", "expected"),
    [
        ("score > 0.5", {"score": 1}, True),
        ("score > 0.5", {"score": numpy.float32(0.25)}, False),
        ("n == 3", {"n": numpy.int64(3)}, True),
        ("ok && !bad", {"ok": numpy.True_, "bad": False}, True),
        ("v[1] > 0.4", {"v": numpy.array([0.1, 0.5], numpy.float32)}, True),
        ("m['a'][0] == 1", {"m": {"a": numpy.array([1])}}, True),
        ("label in ['a', 'b']", {"label": "b"}, True),
        ("has(m.x)", {"m": {}}, False),
        ("note == null", {"note": None}, True),
        ("raw == b'x'", {"raw": b"x"}, True),
        ("[1, 2].exists(i, i == n)", {"n": 2}, True),
        ("false && missing", {}, False),
        ("text.matches('^a+b')", {"text": "aab"}, True),
    ],
)
def test_it_reads_what_records_hold(source: str, fields: dict[str, Any], expected: bool) -> None:
    assert Expression(source).test(fields) is expected


def test_a_plain_name_returns_the_object_itself() -> None:
    frame = numpy.zeros((480, 640, 3), numpy.uint8)
    assert Expression("frame").value({"frame": frame}) is frame


def test_fields_that_are_not_named_are_not_looked_at() -> None:
    class Untouchable:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    assert Expression("x > 1").test({"x": 2, "other": Untouchable()})


def test_a_large_array_is_refused_instead_of_converted() -> None:
    with pytest.raises(StageError, match="too large for an expression"):
        Expression("size(frame) > 1").test({"frame": numpy.zeros(MAX_ARRAY + 1)})


@pytest.mark.parametrize(
    ("source", "place", "hint"),
    [
        ("score >", "line 1, column 8", ""),
        ("a\n  && ]", "line 2, column 6", ""),
        ("a = 1", "line 1, column 3", "compare with =="),
        ("a and b", "line 1, column 3", "write && for and"),
        ("not a", "line 1, column 5", "write ! for not"),
        ("", "line 1, column 1", ""),
        ("(" * 500 + "1" + ")" * 500, "nested too deeply", ""),
    ],
)
def test_a_slip_is_placed_and_explained(source: str, place: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        Expression(source, "pipeline.yaml:3:5")
    assert place in caught.value.message
    assert caught.value.where == "pipeline.yaml:3:5"
    assert caught.value.hint == hint


def test_an_endless_expression_is_refused() -> None:
    with pytest.raises(SpecError, match="an expression of"):
        Expression("1+" * MAX_SOURCE + "1")


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    with pytest.raises(FieldMissingError, match=r"needs the field 'score'[\s\S]*one of label, text"):
        Expression("score > 1").test({"text": "", "label": ""})
    with pytest.raises(FieldMissingError, match="needs the field 'b'"):
        Expression("a.b.c == 1").test({"a": {}})
    with pytest.raises(FieldMissingError, match="needs the field 'x'"):
        Expression("x").value({})


def test_missing_fields_can_read_as_null() -> None:
    assert Expression("score == null", missing="null").test({})
    assert Expression("score", missing="null").value({}) is None
    assert Expression("[1].all(i, i > 0)", missing="null").test({})


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ("a * 2", {"a": 1.5}, "double"),
        ("a / 0", {"a": 1}, "zero"),
        ("a + 1", {"a": 2**63 - 1}, "overflow"),
        ("a[3]", {"a": [1]}, "bounds"),
        ("nothing(a)", {"a": 1}, "no function 'nothing'"),
        ("a + 1", {"a": {1, 2}}, "failed on"),
        ("a()", {"a": lambda: 1}, "no function 'a'"),
        ("a + 1", {"a": print}, "is a function"),
        ("__import__('os')", {}, "no function '__import__'"),
    ],
)
def test_a_failing_evaluation_says_why(source: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError) as caught:
        Expression(source).value(fields)
    assert message in str(caught.value)


def test_only_truth_values_are_conditions() -> None:
    with pytest.raises(StageError, match="gave 1, not true or false"):
        Expression("a").test({"a": 1})


def test_the_terminal_toolkit_of_the_package_is_not_loaded_and_the_package_still_works() -> None:
    code = (
        "import sys; from skerry.run.expression import Expression; assert Expression('1 > 0').test({})\n"
        "assert 'prompt_toolkit' not in sys.modules\n"
        "import cel; assert cel.evaluate('1 + 1') == 2; assert Expression('2 > 1').test({})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
