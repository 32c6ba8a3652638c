"""OpenVINO from ONNX: a graph becomes an IR (``.xml`` with its ``.bin``) with all that it computes unchanged.

The request: ``model`` (``.onnx``), ``target`` (``.xml``), and ``half``, true for weights in fp16, else as they are.

The answer: ``bytes`` (of both files), ``inputs``, ``outputs``, ``seconds``.
"""

from __future__ import annotations

import importlib
from typing import Any

ir: Any = importlib.import_module("openvino_ir")  # beside this script


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Read the ONNX graph and write the IR."""
    answer: dict[str, Any] = ir.rewrite(request, talk, lambda model: model, half=bool(request.get("half", False)))
    return answer
