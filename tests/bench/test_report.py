"""The common form of benchmarks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench.measuring import Samples
from bench.report import Report, read_rows, table

FIELDS = {"figure", "value", "unit", "must", "holds", "spread", "runs", "peers", "machine", "versions", "reason"}


def test_a_row_keeps_the_form(tmp_path: Path) -> None:
    report = Report("engine", packages=["msgspec", "no-such-package"])
    report.add("speed", Samples((0.9, 1.0, 1.2)), "ratio", must=">= 0.99", peers={"other": 0.5, "absent": "no wheel"})
    rows = json.loads(report.write(tmp_path).read_text())
    assert isinstance(rows, list) and set(rows[0]) == FIELDS
    assert rows[0]["value"] == 1.0 and rows[0]["holds"] is True and rows[0]["runs"] == 3
    assert rows[0]["spread"] == pytest.approx(0.15)
    assert rows[0]["peers"] == {"other": 0.5, "absent": "no wheel"}
    assert rows[0]["versions"]["no-such-package"] == "not installed"
    assert rows[0]["machine"]["cores"] >= 1
    assert not list(tmp_path.glob("*.part"))


def test_a_bound_that_is_broken_shows_in_the_table_and_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("engine")
    report.add("cost", 0.5, "ratio", must="<= 0.3")
    assert report.finish(tmp_path) == 1
    assert "NO" in capsys.readouterr().out


def test_a_figure_that_cannot_be_measured_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("engine")
    report.missing("energy", "J", "no counter here", must="<= 5")
    assert report.finish(tmp_path) == 0
    row = read_rows(tmp_path / "engine.json")[0]
    assert (row.value, row.holds, row.runs, row.reason) == (None, None, 0, "no counter here")
    assert "not measured: energy: no counter here" in capsys.readouterr().out


def test_a_figure_without_a_bound_is_only_reported() -> None:
    assert Report("engine").add("rate", 10, "items/s").holds is None


@pytest.mark.parametrize("must", ["0.99", "=> 1", ">= much", ""])
def test_a_wrong_bound_is_refused(must: str) -> None:
    with pytest.raises(ValueError, match="a bound"):
        Report("engine").add("speed", 1.0, "ratio", must=must)
    with pytest.raises(ValueError, match="a bound"):
        Report("engine").missing("speed", "ratio", "absent", must=must)


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="say why"):
        Report("engine").add("speed", math.nan, "ratio")


def test_the_table_names_missing_peers_once() -> None:
    report = Report("engine")
    for figure in ("one", "two"):
        report.add(figure, 1.0, "ratio", peers={"litserve": "no network"})
    assert table(report.rows).count("peer missing: litserve: no network") == 1
