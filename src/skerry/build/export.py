"""The export: a model's weights as an ONNX graph in fp32, checked against what it was made from.

Transformers are traced by PyTorch's TorchScript exporter: 3 to 23 s for a small encoder where the newer dynamo exporter
took 283 s. A traced graph holds only the path that the example took, so the result is compared with PyTorch on other
sizes, with and without padding, before it is used. What the model takes and gives is found by
:mod:`skerry.build.converters.torch_parts`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skerry.build.converters.torch_parts import LENGTHS, Part, UnfitError, load_part
from skerry.build.importing import Origin
from skerry.build.parity import Case, require_same
from skerry.spec.errors import DependencyError, ModelCorruptError, ModelKindError
from skerry.spec.words import did_you_mean

VERSION = 1
"""Counts changes of this technique, so that cached results of older ones are not used."""

OPSET = 17
"""The first with LayerNormalization as one operator; ONNX Runtime knows it since 1.12."""

CHECKED_SIZES: tuple[Mapping[str, int], ...] = (
    {"batch": 1, "tokens": 1, "source": 4, "samples": 4000},
    {"batch": 1, "tokens": 7, "source": 1, "samples": 3200},
    {"batch": 3, "tokens": 12, "source": 5, "samples": 5003},
    {"batch": 2, "tokens": 33, "source": 21, "samples": 8000},
)
"""The sizes that are compared; those of the example that is traced are others."""

_KNOWN_DOMAINS = ("ai.onnx", "com.microsoft", "com.ms.internal")

MOST_BYTES = 1_900_000_000
"""Weights beyond this do not fit into one ONNX file, whose limit is 2 GiB with the graph."""


def export_transformer(origin: Origin, task: str, target: Path) -> float:
    """Write a model as ONNX, with every axis free that the model has free, such as ``batch`` and ``tokens``.

    The output is ``last_hidden_state`` (batch, tokens, dimension) for embeddings (``text_embeds`` of a part that gives
    one vector per text), ``logits`` (batch, labels) for classification, and all answers for tensors.

    Returns the least cosine to PyTorch's answers.

    Raises
    ------
    DependencyError
        PyTorch or transformers is not installed.
    ModelCorruptError
        The weights are damaged, incomplete, or not those of the configuration.
    ModelKindError
        The architecture is unknown or takes what cannot be told, the graph is too large for one file, or it does not
        answer as the model does.
    """
    torch = _import_torch()
    _require_known(origin)
    with _quiet(), torch.no_grad():
        try:
            part = load_part(torch, origin.path, task, origin.part)
        except UnfitError as error:
            kind = ModelCorruptError if error.kind == "corrupt" else ModelKindError
            hint = "fetch the model again" if error.kind == "corrupt" else "an ONNX export of it can be named instead"
            raise kind(str(error), where=str(origin.path), hint=hint) from error
        _require_form(origin, task, part)
        _trace(torch, part, target)
        return require_same(target, _cases(torch, part))


def normalize_onnx(origin: Origin, target: Path) -> bool:
    """Check an ONNX file and write it with its outside weights in one; tell whether it is quantized already.

    Raises
    ------
    DependencyError
        The package onnx is not installed.
    ModelCorruptError
        The file is damaged, or weights beside it are missing.
    ModelKindError
        It has an operator that no runtime takes, or is too large for one file.
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
    except Exception as error:  # the package lets those of protobuf, its own and OSError through
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelCorruptError(f"this ONNX model is damaged: {reason}", where=str(origin.path)) from error
    _require_operators(model, origin.path)
    try:
        onnx.save(model, str(target))
    except ValueError as error:
        raise ModelKindError(f"the model is too large for one ONNX file: {error}", where=str(origin.path)) from error
    return any("Integer" in node.op_type or "Quantize" in node.op_type for node in model.graph.node)


def _require_operators(model: Any, path: Path) -> None:
    """Raise ``ModelKindError`` for an operator that is neither ONNX's, ONNX Runtime's nor the file's own."""
    own = {function.domain for function in model.functions}
    for node in model.graph.node:
        if node.domain not in own and node.domain and not node.domain.startswith(_KNOWN_DOMAINS):
            raise ModelKindError(
                f"no runtime has the operator {node.domain}.{node.op_type}", where=str(path),
                expected="operators of ONNX or of ONNX Runtime", hint="export the model without it",
            )  # fmt: skip


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


def _require_known(origin: Origin) -> None:
    """Raise ``ModelKindError`` for an architecture that the installed transformers does not have."""
    known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    if origin.architecture and origin.architecture not in known:
        raise ModelKindError(
            f"the architecture {origin.architecture} cannot be built",
            where=str(origin.path),
            expected="one that the installed package transformers has",
            hint=did_you_mean(origin.architecture, known) or "an ONNX export of it can be named instead",
        )


def _require_form(origin: Origin, task: str, part: Part) -> None:
    """Raise ``ModelKindError`` for a model of texts that takes no tokens, or weights that one file cannot hold."""
    if task != "tensors" and part.inputs[0].name != "input_ids":
        raise ModelKindError(
            f"this model takes {part.inputs[0].name}, not text", where=str(origin.path), expected="`task: tensors`"
        )
    size = sum(weight.numel() * weight.element_size() for weight in part.module.parameters())
    if size > MOST_BYTES:
        raise ModelKindError(
            f"the weights take {size / 1e9:.1f} GB in fp32, more than one ONNX file can hold", where=str(origin.path),
            expected=f"at most {MOST_BYTES / 1e9:.1f} GB", hint="name a smaller model of the family",
        )  # fmt: skip


def _trace(torch: Any, part: Part, target: Path) -> None:
    example = part.example(torch)
    axes = {one.name: {at: size for at, size in enumerate(one.shape) if isinstance(size, str)} for one in part.inputs}
    axes |= _free_axes(torch, part)
    try:
        with _repeating_plainly(torch):
            torch.onnx.export(
                part.module, tuple(example.values()), str(target), input_names=list(example),
                output_names=list(part.outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises a dozen kinds, all of which mean that it cannot
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelKindError(f"the model cannot be exported to ONNX: {reason}", where=str(target)) from error
    finally:
        # Exporting leaves the module in training mode.
        part.module.eval()


@contextlib.contextmanager
def _repeating_plainly(torch: Any) -> Iterator[None]:
    """Let elements be repeated by views while a model is traced: the exporter's own operator for it loses the rank.

    Also keeps the exporter from printing the whole graph where it fails.
    """
    own = torch.Tensor.repeat_interleave

    def repeated(tensor: Any, repeats: Any, dim: int | None = None, **settings: Any) -> Any:
        if not isinstance(repeats, int) or dim is None or settings:
            return own(tensor, repeats, dim, **settings)
        place = dim % tensor.ndim
        sizes = [-1] * (tensor.ndim + 1)
        sizes[place + 1] = repeats
        return tensor.unsqueeze(place + 1).expand(sizes).flatten(place, place + 1)

    torch._C._jit_set_onnx_log_enabled(False)
    torch.Tensor.repeat_interleave = repeated
    try:
        yield
    finally:
        torch.Tensor.repeat_interleave = own


def _free_axes(torch: Any, part: Part) -> dict[str, dict[int, str]]:
    """Return the axes of the outputs that are free: those whose size changes when the inputs' sizes do."""
    sizes = _within(part, {"batch": 3, "tokens": 12, "source": 5, "samples": 5003})
    one, other = (part.module(*part.example(torch, chosen).values()) for chosen in (LENGTHS, sizes))
    found: dict[str, dict[int, str]] = {}
    for name, first, second in zip(part.outputs, one, other, strict=True):
        free = [at for at, pair in enumerate(zip(first.shape, second.shape, strict=True)) if pair[0] != pair[1]]
        found[name] = {at: _axis_name(name, at, (first.shape[at], second.shape[at]), sizes) for at in free}
    return found


def _axis_name(output: str, at: int, seen: tuple[int, int], sizes: Mapping[str, int]) -> str:
    return next((name for name in sizes if seen == (LENGTHS[name], sizes[name])), f"{output}_{at}")


def _within(part: Part, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return sizes with no more tokens than the model takes."""
    return {**sizes, "tokens": min(sizes["tokens"], part.most)}


def _cases(torch: Any, part: Part) -> Iterator[Case]:
    """Yield the model's answers to inputs of several sizes, those once that make no difference to it."""
    seen = set()
    for wanted in CHECKED_SIZES:
        sizes = _within(part, wanted)
        relevant = tuple(sorted((name, sizes[name]) for name in part.axes()))
        if relevant in seen:
            continue
        seen.add(relevant)
        example = part.example(torch, sizes)
        answers = part.module(*example.values())
        mask = example.get("attention_mask")
        outputs = {name: answer.numpy() for name, answer in zip(part.outputs, answers, strict=True)}
        yield Case(
            inputs={name: tensor.numpy() for name, tensor in example.items()}, outputs=outputs,
            masks={} if mask is None else dict.fromkeys(outputs, mask.numpy()),
        )  # fmt: skip
