"""CTranslate2: its own converter with int8 weights. It needs PyTorch, so the form is run in another environment."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def make(request: dict[str, Any]) -> list[dict[str, str]]:
    """Convert the folder and say where the model is."""
    converters: Any = importlib.import_module("ctranslate2.converters")
    converters.TransformersConverter(request["model"]).convert(
        str(Path(request["target"]) / "int8"), quantization="int8"
    )
    return [{"name": "CTranslate2 int8", "form": "onnx", "file": "int8/model.bin"}]


if __name__ == "__main__":
    print("\n" + json.dumps(make(json.load(sys.stdin))))
