"""The command stage with real programs: arguments, limits, failures, and nothing left behind."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from skerry.run.rate import RateLimit
from skerry.run.stages.command import CommandOptions, CommandStage
from skerry.spec.errors import DependencyError, SpecError, StageError
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from skerry.testing.sinks import a_context


def command_stage(home: Path, run: list[str], **options: Any) -> CommandStage:
    stage = CommandStage(CommandOptions(run=run, **options))
    stage.open(a_context(home))
    return stage


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code.replace("{", "{{").replace("}", "}}"), *arguments]


def captured(home: Path, run: list[str], fields: dict[str, Any], **options: Any) -> str:
    record = Record(fields)
    assert command_stage(home, run, capture="out", **options).process(record) is record
    return str(record.fields["out"])


def test_no_shell_reads_the_values(tmp_path: Path) -> None:
    evil = "$(touch pwned); `id` | \"x\" 'y' * \n z"
    show = python("import json, sys; print(json.dumps(sys.argv[1:]))", "{label}", "--text={label}", "{score:.1f}")
    assert json.loads(captured(tmp_path, show, {"label": evil, "score": 0.25})) == [evil, f"--text={evil}", "0.2"]
    assert list(tmp_path.glob("pwned")) == []


def test_it_gets_the_record_and_variables(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.stdin.read().strip(), os.environ['LABEL'], os.getcwd())"
    (tmp_path / "sub").mkdir()
    found = captured(tmp_path, python(code), {"label": "ok"}, stdin="json", env={"LABEL": "<{label}>"}, cwd="sub")
    assert found == f'{{"label":"ok"}} <ok> {tmp_path / "sub"}'


def test_a_large_input_that_nobody_reads(tmp_path: Path) -> None:
    assert captured(tmp_path, python("print('done')"), {"text": "x" * 1_000_000}, stdin="json") == "done"


def test_output_is_bounded_and_does_not_hold_the_program(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 3_000_000)"
    assert captured(tmp_path, python(code), {}, max_output=Size(1000)) == "x" * 1000


def test_a_failure_says_what_the_program_said(tmp_path: Path) -> None:
    stage = command_stage(tmp_path, python("import sys; sys.exit('no such\\nprinter')"))
    with pytest.raises(StageError, match="ended with code 1: no such printer"):
        stage.process(Record({}))
    stage = command_stage(tmp_path, python("import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(StageError, match="signal 9"):
        stage.process(Record({}))


def test_at_its_time_it_is_killed_with_all_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pids', 'w').write(f'{child.pid}')\n"
        "time.sleep(600)"
    )
    stage = command_stage(tmp_path, python(code), timeout=Duration(2.0))
    with pytest.raises(StageError, match="took more than 2s"):
        stage.process(Record({}))
    assert ended(int((tmp_path / "pids").read_text()))


def ended(process: int) -> bool:
    """Wait until a process is gone, or is a zombie that only its new parent can take away."""
    for _ in range(500):
        try:
            os.kill(process, 0)
            state = Path(f"/proc/{process}/stat")
            if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False


def test_a_background_process_does_not_hold_the_record(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"
        "print(child.pid)"
    )
    process = int(captured(tmp_path, python(code), {}, timeout=Duration(20.0)))
    os.kill(process, 9)


def test_a_missing_field_and_a_null_byte(tmp_path: Path) -> None:
    stage = command_stage(tmp_path, ["echo", "{label}"])
    with pytest.raises(StageError, match="did you mean 'lable'"):
        stage.process(Record({"lable": "x"}))
    with pytest.raises(StageError, match="cannot be started"):
        stage.process(Record({"label": "a\x00b"}))
    with pytest.raises(StageError, match="cannot be started"):
        stage.process(Record({"label": "x" * 10_000_000}))


def test_a_flood_is_not_a_flood_of_processes(tmp_path: Path) -> None:
    run = python("open('ran', 'a').write('x')")
    workers = [command_stage(tmp_path, run, at_most=3, per=Duration(3600.0)) for _ in range(2)]
    records = [Record({"n": number}) for number in range(20)]
    for number, record in enumerate(records):
        assert workers[number % 2].process(record) is record
    assert (tmp_path / "ran").read_text() == "xxx"
    assert [record.fields.get("command_skipped", False) for record in records] == [False] * 3 + [True] * 17


def test_so_many_at_once(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "name = f'running-{os.getpid()}'\n"
        "open(name, 'w').close()\n"
        "time.sleep(0.1)\n"
        "print(len([entry for entry in os.listdir('.') if entry.startswith('running-')]))\n"
        "os.remove(name)"
    )
    stage = command_stage(tmp_path, python(code), concurrency=2, at_most=0, capture="seen")
    records = [Record({}) for _ in range(6)]
    threads = [threading.Thread(target=stage.process, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(1 <= int(record.fields["seen"]) <= 2 for record in records)


def test_rate_limit_is_a_sliding_window() -> None:
    rate = RateLimit(2, 10.0)
    assert [rate.allows(now) for now in (0.0, 1.0, 2.0, 9.9, 10.0, 10.5, 11.0, 11.5)] == [
        True, True, False, False, True, False, True, False,
    ]  # fmt: skip
    assert all(RateLimit(0, 1.0).allows(0.0) for _ in range(100))


def test_what_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="no program 'skerry-none'"):
        command_stage(tmp_path, ["skerry-none"])
    (tmp_path / "script.sh").write_text("#!/bin/sh\n")
    with pytest.raises(DependencyError, match="may be run"):
        command_stage(tmp_path, ["./script.sh"])
    with pytest.raises(SpecError, match="no folder"):
        command_stage(tmp_path, ["echo"], cwd="none")


def test_a_script_beside_the_pipeline(tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('#!/bin/sh\nprintf "got %s" "$1"\n')
    script.chmod(0o755)
    assert captured(tmp_path, ["./script.sh", "{label}"], {"label": "ok"}) == "got ok"


@pytest.mark.parametrize(
    "options",
    [
        {"run": []},
        {"run": [""]},
        {"run": ["{prog}"]},
        {"run": ["echo", "{"]},
        {"run": ["echo", "{a!r}"]},
        {"run": ["echo"], "concurrency": 0},
        {"run": ["echo"], "timeout": Duration(0.0)},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        CommandStage(CommandOptions(**options))


def test_a_template_reaches_no_attributes(tmp_path: Path) -> None:
    stage = command_stage(tmp_path, ["echo", "{label.__class__}"])
    with pytest.raises(StageError, match="no field"):
        stage.process(Record({"label": "x"}))


def test_it_is_not_open_before_and_after(tmp_path: Path) -> None:
    stage = CommandStage(CommandOptions(run=["echo"]))
    with pytest.raises(StageError, match="not open"):
        stage.process(Record({}))
    stage.open(a_context(tmp_path))
    stage.close()
    stage.close()
