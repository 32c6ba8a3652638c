"""ONNX Runtime: dynamic quantization as it comes, without an argument. Run by bench-build in its own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def make(request: dict[str, str]) -> list[dict[str, str]]:
    """Quantize the graph and say where it is."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(request["onnx"], Path(request["target"]) / "model.onnx")
    return [{"name": "ORT dynamic int8", "form": "onnx", "file": "model.onnx"}]


if __name__ == "__main__":
    print("\n" + json.dumps(make(json.load(sys.stdin))))
