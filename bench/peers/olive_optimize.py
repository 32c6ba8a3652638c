"""Olive: ``olive optimize`` from its command line, for int8 on the CPU; what it makes, or what it says when it fails.

First as it comes, which takes every transformer for a generator of text; then with the exporter that is for others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WAYS: dict[str, tuple[str, ...]] = {
    "Olive optimize": (),
    "Olive optimize, dynamo": ("--exporter", "dynamo_exporter"),
}
LIMIT_S = 250
_SIGNS = ("Error:", "Exception:", "error:")


def make(request: dict[str, Any]) -> list[dict[str, str]]:
    """Run the command in every way."""
    return [made(name, more, request["model"], Path(request["target"])) for name, more in WAYS.items()]


def made(name: str, more: tuple[str, ...], model: str, target: Path) -> dict[str, str]:
    """Run the command in one way and find its graph."""
    place = target / f"way{len(more)}"
    place.mkdir()
    command = [
        sys.executable, "-P", "-m", "olive", "optimize", "--model_name_or_path", model, "--task", "feature-extraction",
        "--provider", "CPUExecutionProvider", "--device", "cpu", "--precision", "int8", "--disable_telemetry",
        "--output_path", "out", *more,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, check=False, timeout=LIMIT_S, stdin=subprocess.DEVNULL,
            env=os.environ | {"OLIVE_DISABLE_TELEMETRY": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"name": name, "failure": f"no end after {LIMIT_S} s"}
    (place / "olive.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    graphs = sorted((place / "out").rglob("*.onnx"))
    if graphs:
        return {"name": name, "form": "onnx", "file": str(graphs[0].relative_to(target))}
    return {"name": name, "failure": reason(done.stdout + done.stderr)}


def reason(said: str) -> str:
    """Return the last line that names an error, or the last one at all."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    telling = [line for line in lines if any(sign in line for sign in _SIGNS)]
    return (telling or lines)[-1]


if __name__ == "__main__":
    print("\n" + json.dumps(make(json.load(sys.stdin))))
