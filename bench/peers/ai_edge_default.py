"""ai-edge-quantizer: its default recipe, dynamic int8, on a LiteRT graph in fp32."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def make(request: dict[str, Any]) -> list[dict[str, str]]:
    """Quantize the graph and say where it is."""
    quantizer: Any = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe: Any = importlib.import_module("ai_edge_quantizer.recipe")

    made = quantizer.Quantizer(request["litert"], recipe.dynamic_wi8_afp32()).quantize()
    made.export_model(str(Path(request["target"]) / "model.tflite"), overwrite=True)
    return [{"name": "ai-edge-quantizer", "form": "litert", "file": "model.tflite"}]


if __name__ == "__main__":
    print("\n" + json.dumps(make(json.load(sys.stdin))))
