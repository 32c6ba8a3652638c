"""A LiteRT graph: written with a signature for each example and asked again; converters from PyTorch share it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Examples = Mapping[str, Mapping[str, Any]]
"""The inputs of each signature, PyTorch's tensors by name."""


def write(torch: Any, module: Any, examples: Examples, path: Path, talk: Any) -> None:
    """Write a module that takes tensors by name; a model that the library cannot lower is refused."""
    converter: Any = importlib.import_module("litert_torch")
    for name, inputs in examples.items():
        converter = converter.signature(name, module, sample_kwargs=dict(inputs))
    talk.say(f"trace and lower {', '.join(examples)}")
    try:
        with torch.no_grad():
            converter.convert().export(str(path))
    except Exception as error:  # the library raises what its compilers raise
        raise talk.refusal("kind", f"the model cannot be lowered to LiteRT: {talk.reason(error)}") from error


def answers(path: Path, examples: Examples) -> Iterator[dict[str, Any]]:
    """Yield what each signature answers to its inputs, arrays by name; whole numbers go in as int32."""
    np = importlib.import_module("numpy")
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(model_path=str(path), num_threads=1)
    for name, inputs in examples.items():
        given = {key: tensor.numpy() for key, tensor in inputs.items()}
        given = {key: array.astype(np.int32) if array.dtype == np.int64 else array for key, array in given.items()}
        yield interpreter.get_signature_runner(name)(**given)
