"""The stdout sink, in processes of its own where standard output has to be a pipe, a file or a full device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skerry.run.sinks.stdout import StdoutOptions, StdoutSink
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkError, SpecError
from skerry.spec.record import Record
from skerry.testing.sinks import SinkCase, SinkContract, a_context

PROGRAM = """
import sys, pathlib
from skerry.run.sinks.stdout import StdoutOptions, StdoutSink
from skerry.spec.address import parse_address
from skerry.testing.sinks import a_context, some_records

sink = StdoutSink(parse_address("stdout:")[0], StdoutOptions())
sink.open(a_context(pathlib.Path(sys.argv[1])))
try:
    for start in range(1, 10_000, 100):
        sink.write(some_records(100, start=start))
    sink.flush()
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
"""


def stdout_sink(**options: Any) -> StdoutSink:
    return StdoutSink(parse_address("stdout:")[0], StdoutOptions(**options))


class TestContract(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> SinkCase:
        printed: list[str] = []

        def read() -> list[dict[str, Any]]:
            printed.append(capsys.readouterr().out)
            return [json.loads(line) for line in "".join(printed).split("\n") if line]

        return SinkCase(make=stdout_sink, read=read, home=tmp_path)


def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any], **options: Any) -> str:
    sink = stdout_sink(**options)
    sink.open(a_context(tmp_path))
    sink.write([Record(fields)])
    return capsys.readouterr().out


def test_text_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = {"label": "failure", "score": 0.5, "text": 'disk "sda" failed', "empty": "", "tags": ["a", 1]}
    expected = 'label=failure score=0.5 text="disk \\"sda\\" failed" empty="" tags=["a",1]\n'
    assert printed(tmp_path, capsys, fields, format="text") == expected


def test_a_line_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"format": "template", "template": "{label:>8} {score:.1f} {{{where.room}}}"}
    fields = {"label": "ok", "score": 0.25, "where": {"room": "cellar"}}
    assert printed(tmp_path, capsys, fields, **options) == "      ok 0.2 {cellar}\n"


def test_a_missing_field_names_the_near_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SinkError, match="did you mean 'label'"):
        printed(tmp_path, capsys, {"label": 1}, format="template", template="{labl}")


@pytest.mark.parametrize(
    "options", [{"format": "template"}, {"template": "{a}"}, {"format": "template", "template": "{a"}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        stdout_sink(**options)


def test_a_large_array_is_told_by_its_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy

    line = printed(tmp_path, capsys, {"small": numpy.arange(3), "large": numpy.zeros((2, 100))})
    assert json.loads(line) == {"small": [0, 1, 2], "large": {"shape": [2, 100], "dtype": "float64"}}


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["n"] == 1
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read().decode()
    process.stderr.close()
    process.wait(30)
    assert said.startswith("SinkUnavailableError standard output refuses: Broken pipe")


def test_a_full_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.stderr.decode().startswith("SinkFullError standard output is full")


def test_a_file_gets_everything(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=file, check=True, timeout=60)
    found = [json.loads(line)["n"] for line in (tmp_path / "out").read_bytes().splitlines()]
    assert found == list(range(1, 10_001))
