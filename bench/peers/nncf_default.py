"""NNCF: weight compression and post-training quantization with their defaults, as OpenVINO's IR."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def make(request: dict[str, Any]) -> list[dict[str, str]]:
    """Compress the same graph in every way."""
    nncf: Any = importlib.import_module("nncf")
    openvino: Any = importlib.import_module("openvino")
    model = openvino.Core().read_model(request["onnx"])
    names = [port.get_any_name() for port in model.inputs]
    data = nncf.Dataset(request["texts"], lambda ids: inputs(names, ids))
    ways = {
        "NNCF compress_weights": lambda: nncf.compress_weights(model.clone()),
        "NNCF quantize": lambda: nncf.quantize(model.clone(), data),
        # Not a default, but what its manual tells for transformers: without it the vectors of MiniLM are ruined.
        "NNCF quantize, transformer": lambda: nncf.quantize(model.clone(), data, model_type=nncf.ModelType.TRANSFORMER),
    }
    return [made(name, compress, Path(request["target"])) for name, compress in ways.items()]


def made(name: str, compress: Any, target: Path) -> dict[str, str]:
    """Compress in one way and say where the IR is, or why there is none."""
    openvino: Any = importlib.import_module("openvino")
    file = name.lower().replace(",", "").replace(" ", "_") + ".xml"
    try:
        openvino.save_model(compress(), str(target / file))
    except Exception as error:  # noqa: BLE001 -- whatever a peer raises is what the row says
        return {"name": name, "failure": f"{type(error).__name__}: {error}"}
    return {"name": name, "form": "openvino", "file": file}


def inputs(names: list[str], ids: list[int]) -> dict[str, Any]:
    """Return one text's inputs: a batch of one, without padding."""
    import numpy as np

    row = np.array([ids], dtype=np.int64)
    every = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    return {name: every[name] for name in names}


if __name__ == "__main__":
    print("\n" + json.dumps(make(json.load(sys.stdin))))
