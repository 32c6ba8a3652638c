"""The export: a model's weights as an ONNX graph in fp32, checked against what it was made from.

Transformers are traced by PyTorch's TorchScript exporter: 3 to 23 s for a small encoder where the newer dynamo exporter
took 283 s. A traced graph holds only the path that the example took, so the result is compared with PyTorch on
other numbers of texts and tokens, with and without padding, before it is used.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skerry.build.importing import Origin
from skerry.spec.errors import DependencyError, ModelCorruptError, ModelKindError
from skerry.spec.ports import Array

VERSION = 1
"""Counts changes of this technique, so that cached results of older ones are not used."""

OPSET = 17
"""The first with LayerNormalization as one operator; ONNX Runtime knows it since 1.12."""

SAME = 0.9999
"""The least cosine between PyTorch's and the graph's vectors of every token; rounding gives 1 - 1e-6."""

CHECKED_SIZES = ((1, 1), (1, 7), (3, 12), (2, 33))
"""Texts and tokens of the batches that are compared; the example that is traced has 2 and 7."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_transformer(origin: Origin, task: str, target: Path) -> None:
    """Write a transformer as ONNX with dynamic axes ``batch`` and ``tokens``.

    The output is ``last_hidden_state`` (batch, tokens, dimension), or ``logits`` (batch, labels) for classification.

    Raises
    ------
    DependencyError
        PyTorch or transformers is not installed.
    ModelCorruptError
        The weights are damaged, incomplete, or not those of the configuration.
    ModelKindError
        The graph does not answer as the model does.
    """
    torch = _import_torch()
    with _quiet():
        model = _load(torch, origin, task)
        output = "logits" if task == "classification" else "last_hidden_state"
        wrapper = _wrapper(torch, model, output)
        names = [name for name in _INPUTS if name != "token_type_ids" or _has_types(model)]
        example = _example(torch, names, model.config.vocab_size, 2, 7)
        axes = {name: {0: "batch", 1: "tokens"} for name in names}
        axes[output] = {0: "batch"} if output == "logits" else {0: "batch", 1: "tokens"}
        with torch.no_grad():
            torch.onnx.export(
                wrapper, tuple(example.values()), str(target), input_names=names, output_names=[output],
                dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
            # Exporting leaves the wrapper in training mode.
            wrapper.eval()
            _require_same(torch, wrapper, names, model.config.vocab_size, target)


def normalize_onnx(origin: Origin, target: Path) -> bool:
    """Check an ONNX file and write it with its outside weights in one; tell whether it is quantized already.

    Raises
    ------
    DependencyError
        The package onnx is not installed.
    ModelCorruptError
        The file is damaged, or weights beside it are missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise DependencyError(
            f"building a model needs the package onnx: {error}", hint="pip install 'skerry[build]'"
        ) from error
    try:
        onnx.checker.check_model(str(origin.path))
        model = onnx.load(str(origin.path))
        onnx.save(model, str(target))
    except Exception as error:  # the package lets those of protobuf, its own and OSError through
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelCorruptError(f"this ONNX model is damaged: {reason}", where=str(origin.path)) from error
    return any("Integer" in node.op_type or "Quantize" in node.op_type for node in model.graph.node)


def _import_torch() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        # The exporter needs onnx, and would say so only at its end.
        for name in ("onnx", "transformers"):
            importlib.import_module(name)
        return importlib.import_module("torch")
    except ImportError as error:
        raise DependencyError(
            f"building a model from weights needs PyTorch and transformers: {error}",
            hint="pip install 'skerry[build]'",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' warnings and bars from the terminal: what matters is checked afterwards."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(torch: Any, origin: Origin, task: str) -> Any:
    """Load the model in fp32; raises ``ModelCorruptError`` when weights are damaged or missing."""
    library: Any = importlib.import_module("transformers")
    kind = library.AutoModelForSequenceClassification if task == "classification" else library.AutoModel
    try:
        model, told = kind.from_pretrained(
            str(origin.path), local_files_only=True, trust_remote_code=False, attn_implementation="eager",
            dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # the libraries raise a dozen kinds, and all of them mean the same here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelCorruptError(
            f"the weights cannot be read: {reason}", where=str(origin.path), hint="fetch the model again"
        ) from error
    # A pooler is no part of what is exported; anything else that is missing would be random numbers.
    missing = sorted(name for name in told["missing_keys"] if "pooler." not in name or task == "classification")
    if missing:
        raise ModelCorruptError(
            f"the weights lack {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            where=str(origin.path),
            expected=f"all weights of a {type(model).__name__}",
        )
    broken = next((name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()), None)
    if broken is not None:
        raise ModelCorruptError(
            f"the weights {broken} hold numbers that are none (NaN or infinity)", where=str(origin.path)
        )
    return model.eval()


def _has_types(model: Any) -> bool:
    """Tell whether the model distinguishes types of tokens; one type alone is no input."""
    known = "token_type_ids" in inspect.signature(model.forward).parameters
    return known and getattr(model.config, "type_vocab_size", 0) > 1


def _wrapper(torch: Any, model: Any, output: str) -> Any:
    """Return a module that takes the inputs by position and answers with one tensor."""

    class Answer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            named = dict(zip(_INPUTS, inputs, strict=False))
            return getattr(self.model(**named), output)

    return Answer().eval()


def _example(torch: Any, names: list[str], words: int, texts: int, tokens: int) -> dict[str, Any]:
    """Return made-up inputs, the last text a third shorter than the others."""
    generator = torch.Generator().manual_seed(texts * 1000 + tokens)
    ids = torch.randint(min(5, words - 1), words, (texts, tokens), generator=generator)
    mask = torch.ones_like(ids)
    if texts > 1:
        mask[-1, tokens - tokens // 3 :] = 0
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: found[name] for name in names}


def _require_same(torch: Any, wrapper: Any, names: list[str], words: int, target: Path) -> None:
    """Compare the graph with the model; raises ``ModelKindError`` when they differ beyond rounding."""
    from skerry.runtimes.onnxruntime import OnnxRuntime

    session = OnnxRuntime().load(target)
    least = []
    for texts, tokens in CHECKED_SIZES:
        example = _example(torch, names, words, texts, tokens)
        ours = next(iter(session.run({name: array.numpy() for name, array in example.items()}).values()))
        least.append(_least_cosine(wrapper(*example.values()).numpy(), ours, example["attention_mask"].numpy()))
    session.close()
    worst = next((cosine for cosine in least if math.isnan(cosine)), min(least))
    if not worst >= SAME:
        raise ModelKindError(
            f"the exported graph does not answer as the model does: the least cosine is {worst:.4f}",
            where=str(target),
            expected=f"at least {SAME}",
        )


def _least_cosine(theirs: Array, ours: Array, mask: Array) -> float:
    """Return the least cosine between two arrays' last axes, padding left out; NaN if there is one."""
    import numpy as np

    kept = mask != 0 if theirs.ndim == 3 else slice(None)
    one, other = theirs[kept].astype(np.float64), ours[kept].astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return float(((one * other).sum(axis=-1) / lengths).min())
