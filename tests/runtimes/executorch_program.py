"""A converter for tests: a small encoder (look-up, matrix product, mask) as an ExecuTorch program."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    import torch

    spec = importlib.util.spec_from_file_location("executorch_from_torch", request["converter"])
    converter = importlib.util.module_from_spec(spec)
    importlib.import_module("sys").path.insert(0, str(Path(request["converter"]).parent))
    spec.loader.exec_module(converter)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(4096, 512)
            self.mix = torch.nn.Linear(512, 512, bias=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.mix(self.table(input_ids)) * attention_mask.unsqueeze(-1).to(torch.float32)

    ids = torch.ones((2, 7), dtype=torch.int64)
    axes = {0: torch.export.Dim("batch", min=1, max=8), 1: torch.export.Dim("tokens", min=1, max=32)}
    with torch.no_grad():
        program = torch.export.export(Encoder().eval(), (ids, ids), dynamic_shapes=(axes, axes), strict=False)
    text = {"dtype": "int64", "shape": ["batch", "tokens"]}
    tensors = {
        "inputs": [{"name": name, **text} for name in ("input_ids", "attention_mask")],
        "outputs": [{"name": "last_hidden_state", "dtype": "float32", "shape": ["batch", "tokens", 512]}],
    }
    Path(request["target"]).write_bytes(converter.lowered(program, tensors if request["named"] else None))
    return {}
