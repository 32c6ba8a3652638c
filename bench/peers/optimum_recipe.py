"""Optimum: its own recipes of dynamic quantization for x86-64, called as its manual does."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

RECIPES = {"Optimum avx512_vnni": "avx512_vnni", "Optimum avx2": "avx2"}


def make(request: dict[str, Any]) -> list[dict[str, str]]:
    """Quantize by each recipe; one that fails does not keep the other from being made."""
    target = Path(request["target"])
    given = target / "given"
    given.mkdir()
    shutil.copy(Path(request["model"]) / "config.json", given)
    shutil.copy(request["onnx"], given / "model.onnx")
    made = [quantized(name, recipe, given, target) for name, recipe in RECIPES.items()]
    shutil.rmtree(given)
    return made


def quantized(name: str, recipe: str, given: Path, target: Path) -> dict[str, str]:
    """Quantize by one recipe and say where the graph is, or why there is none."""
    configurations: Any = importlib.import_module("optimum.onnxruntime.configuration").AutoQuantizationConfig
    quantizers: Any = importlib.import_module("optimum.onnxruntime").ORTQuantizer
    try:
        configuration = getattr(configurations, recipe)(is_static=False, per_channel=False)
        quantizer = quantizers.from_pretrained(given, file_name="model.onnx")
        quantizer.quantize(save_dir=target / recipe, quantization_config=configuration, file_suffix="int8")
    except Exception as error:  # noqa: BLE001 -- whatever a peer raises is what the row says
        return {"name": name, "failure": f"{type(error).__name__}: {error}"}
    return {"name": name, "form": "onnx", "file": f"{recipe}/model_int8.onnx"}


if __name__ == "__main__":
    print("\n" + json.dumps(make(json.load(sys.stdin))))
