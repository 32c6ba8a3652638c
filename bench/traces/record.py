"""The recorder: makes a trace, for real, on the machine that it runs on; what is committed was made once.

``python -m bench.traces.record telemetry`` takes 2,000 seconds; ``triage`` needs the model of ``examples/log-triage``
(``skerry build examples/log-triage``) and takes seconds. ``--logs FOLDER`` sorts that folder's logs, not the machine's.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.traces import HELD_OUT, NAMES, TELEMETRY_FIELDS, Line, path_of
from skerry.run.sources.sys import SysOptions, SysSource
from skerry.spec.ports import Address, Context
from skerry.spec.units import Duration
from skerry.wire.compression import zstd

RECORDS = 2000
EXAMPLE = Path(__file__).parents[2] / "examples" / "log-triage"
LOGS = r"(?m)^  from: tail://.*\n  also:\n(?:    - .*\n)+"
"""The lines of the example that name the logs of a machine."""
LEVEL = 19


def main(arguments: Sequence[str] | None = None) -> int:
    """Record one trace and write its file."""
    parser = argparse.ArgumentParser(prog="python -m bench.traces.record", description=__doc__.split("\n", 1)[0])
    parser.add_argument("name", choices=(*NAMES, *HELD_OUT))
    parser.add_argument("--count", type=int, default=RECORDS)
    parser.add_argument("--logs", type=Path, help="a folder of logs to sort")
    chosen = parser.parse_args(arguments)
    of_logs = chosen.name.endswith("triage")
    lines = record_triage(chosen.count, chosen.logs) if of_logs else record_telemetry(chosen.count)
    write(path_of(chosen.name), lines)
    return 0


def record_telemetry(count: int = RECORDS, every_s: float = 1.0) -> list[Line]:
    """Return readings of this machine, stamped as an outbox stamps what it takes."""
    lines: list[Line] = []

    def emit(fields: dict[str, Any], /, *, size: int = 0, position: Any = None, wait: bool = True) -> bool:
        lines.append(stamped({name: fields[name] for name in TELEMETRY_FIELDS}))
        return True

    stop = threading.Event()
    source = SysSource(Address("sys:", "sys"), SysOptions(every=Duration(every_s), count=count))
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        source.open(Context(name="sys", home=here, state=here, stop=stop, log=logging.getLogger(__name__)), None)
        source.run(emit, stop)
        source.close()
    return lines


def record_triage(count: int = RECORDS, logs: Path | None = None) -> list[Line]:
    """Return what ``examples/log-triage`` makes of logs, stamped as it comes out of the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "log-triage"
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("out"))
        file = project / "pipeline.yaml"
        pipeline = printing(file.read_text(encoding="utf-8"))
        if logs is not None:
            pipeline = re.sub(LOGS, f"  from: tail://{logs.resolve()}/*.log\n", pipeline)
        file.write_text(pipeline, encoding="utf-8")
        command = [sys.executable, "-m", "skerry", "run", str(project)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            lines = [stamped(msgspec.json.decode(line)) for line, _ in zip(process.stdout, range(count), strict=False)]
            process.terminate()
    return lines


def printing(pipeline: str) -> str:
    """Return the example's pipeline without its action, and with its answers on the standard output."""
    head = pipeline[: pipeline.index("  # The action:")]
    privacy = pipeline[pipeline.index("privacy:") :]
    sink = "sinks:\n  - to: 'stdout:'\n    fields: [time, host, program, message, label, score, log]\n"
    return f"{head}\n{sink}\n{privacy}"


def stamped(fields: dict[str, Any]) -> Line:
    """Return a record with the time at which it is handed over."""
    mono_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Line(mono_ns // 1000, (time.time_ns() - mono_ns) // 1_000_000, fields)


def write(path: Path, lines: Iterable[Line]) -> None:
    """Write a trace's file."""
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    path.write_bytes(zstd().compress(text, LEVEL))


if __name__ == "__main__":
    sys.exit(main())
