"""OpenVINO's IR: a graph is read, changed, and written as ``.xml`` with its ``.bin``, as its converters have in common.

Of the request it reads ``model`` (``.onnx`` or ``.xml``) and ``target`` (``.xml``). The answer: ``bytes`` (of both
files), ``inputs``, ``outputs``, ``seconds``.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite(request: dict[str, Any], talk: Any, change: Callable[[Any], Any], *, half: bool = False) -> dict[str, Any]:
    """Read the graph, change it, put both files in their places once they are whole, and return the answer.

    With ``half`` weights in fp32 are written in fp16.
    """
    start = time.monotonic()
    openvino = importlib.import_module("openvino")
    target = Path(request["target"])
    if target.suffix != ".xml":
        raise talk.refusal("option", f"the target {target.name} must end in .xml")
    talk.say("read the graph")
    model = change(_read(openvino, Path(request["model"]), talk))
    talk.say("write the IR")
    _save(openvino, model, target, half=half)
    size = target.stat().st_size + target.with_suffix(".bin").stat().st_size
    return {
        "bytes": size, "inputs": names(model.inputs), "outputs": names(model.outputs),
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def names(ports: Any) -> list[str]:
    """Return the names of a graph's inputs or outputs."""
    return [port.get_any_name() for port in ports]


def _read(openvino: Any, source: Path, talk: Any) -> Any:
    if not source.is_file():
        raise talk.refusal("missing", f"there is no model {source}")
    try:
        return openvino.Core().read_model(str(source))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[-1] if lines else "no reason given"
        kind = "kind" if "not supported" in str(error).lower() or "not implemented" in str(error).lower() else "corrupt"
        raise talk.refusal(kind, f"OpenVINO cannot read {source.name}: {text}") from error


def _save(openvino: Any, model: Any, target: Path, *, half: bool) -> None:
    """Write both files under other names first, weights before the description that needs them."""
    part = target.with_name(f"{target.stem}.part.xml")
    try:
        openvino.save_model(model, str(part), compress_to_fp16=half)
        part.with_suffix(".bin").replace(target.with_suffix(".bin"))
        part.replace(target)
    finally:
        for left in (part, part.with_suffix(".bin")):
            left.unlink(missing_ok=True)
