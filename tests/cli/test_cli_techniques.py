"""``skerry techniques`` as a command."""

from __future__ import annotations

import json

import pytest

from skerry.build.technique import techniques
from skerry.cli.main import main


def test_every_technique_is_listed_in_the_order_of_composing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["techniques", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found} == set(techniques())
    order = ["prune", "distill", "convert", "quantize"]
    places = [order.index(one["kind"]) for one in found]
    assert places == sorted(places)
    assert all(one["summary"] and one["version"] >= 1 for one in found)


def test_people_get_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["techniques"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(techniques())
