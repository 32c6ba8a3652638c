"""ExecuTorch from PyTorch: a folder as Hugging Face writes it becomes a program (``.pte``) for XNNPACK.

A text encoder takes int64 ``attention_mask`` and ``input_ids`` of up to ``batch`` texts and ``tokens`` tokens and gives
float32 ``last_hidden_state`` (batch, tokens, dimension), or ``logits`` (batch, labels); a vision model takes float32
``pixel_values`` of one image. Names and dynamic axes are kept in the program as the constant method ``skerry_tensors``.

The request: ``model`` (folder), ``target`` (file), ``output`` (``last_hidden_state`` or ``logits``), ``batch`` (1),
``tokens`` (128), ``compress``: ``none``, ``int8`` or ``int4`` (weights of linear layers; activations as they come).
The answer: ``bytes``, ``inputs``, ``outputs``, ``seconds``, ``least_cosine`` (to PyTorch's answers).
"""

from __future__ import annotations

import importlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

models: Any = importlib.import_module("torch_models")  # beside this script


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Export, lower, compare with PyTorch, and only then put the file in its place."""
    start = time.monotonic()
    torch = importlib.import_module("torch")
    target, output = Path(request["target"]), str(request.get("output", "last_hidden_state"))
    batch, tokens, how = int(request.get("batch", 1)), int(request.get("tokens", 128)), request.get("compress", "none")
    if how not in {"none", "int8", "int4"}:
        raise talk.refusal("option", f"there is no compression {how!r}", "known: none, int8, int4")
    talk.say("load the weights")
    model = models.load(torch, Path(request["model"]), output, talk)
    example = next(iter(models.examples_of(torch, model, [min(17, tokens)], talk).values()))
    example = {name: tensor.repeat_interleave(min(2, batch), 0) for name, tensor in example.items()}
    axes = _axes(model, batch, tokens)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        wrapper = _positional(torch, models.answering(torch, model, output), list(example), output)
        theirs = wrapper(*example.values())
        if how != "none":
            talk.say(f"quantize: {how}")
            _quantize(torch, model, 8 if how == "int8" else 4)
        talk.say("export")
        program = _exported(torch, wrapper, example, axes)
        tensors = _tensors(example, {output: theirs}, axes)
        talk.say("lower to XNNPACK")
        part = target.with_name(target.name + ".part")
        try:
            part.write_bytes(lowered(program, tensors, dynamic=how != "none"))
            talk.say("compare with PyTorch")
            least = _least_cosine(part, example, theirs)
            if how == "none" and not least >= models.SAME:
                raise talk.refusal("kind", f"the program does not answer as the model does: least cosine {least:.4f}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    seconds = round(time.monotonic() - start, 1)
    return {"bytes": target.stat().st_size, **tensors, "least_cosine": least, "seconds": seconds}


def _axes(model: Any, batch: int, tokens: int) -> dict[int, tuple[str, int]]:
    """Return the dynamic axes of every input: place, name and most."""
    if model.main_input_name != "input_ids":
        return {}
    axes = {0: ("batch", batch), 1: ("tokens", tokens)}
    return {place: (name, most) for place, (name, most) in axes.items() if most > 1}


def _positional(torch: Any, answer: Any, names: list[str], output: str) -> Any:
    """Return a module that takes tensors by their place and gives one: a program knows no names."""

    class Positional(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.answer = answer

        def forward(self, *tensors: Any) -> Any:
            return self.answer(**dict(zip(names, tensors, strict=True)))[output]

    return Positional().eval()


def _exported(torch: Any, module: Any, example: dict[str, Any], axes: dict[int, tuple[str, int]]) -> Any:
    dims = {place: torch.export.Dim(name, min=1, max=most) for place, (name, most) in axes.items()}
    shapes = (tuple(dims for _ in example),)
    return torch.export.export(module, tuple(example.values()), dynamic_shapes=shapes if dims else None, strict=False)


def _quantize(torch: Any, model: Any, bits: int) -> None:
    """Quantize the linear layers in place: 8 bits per channel, or 4 bits in groups of 32; activations as they come.

    By torchao's way of whole modules: its way over graphs (PT2E) observes the indices of masks as if they were numbers.
    """
    recipes = importlib.import_module("torchao.quantization")
    granularity = importlib.import_module("torchao.quantization.granularity")
    kind = granularity.PerAxis(0) if bits == 8 else granularity.PerGroup(32)
    dtype = torch.int8 if bits == 8 else torch.int4
    recipes.quantize_(model, recipes.Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=kind))


def lowered(program: Any, tensors: dict[str, Any] | None, *, dynamic: bool = False) -> bytes:
    """Return the bytes of a program for XNNPACK, which tells of its tensors if they are given."""
    exir = importlib.import_module("executorch.exir")
    place = "executorch.backends.xnnpack.partition"
    partitioner = importlib.import_module(f"{place}.xnnpack_partitioner").XnnpackPartitioner
    partitions = [partitioner()]
    if dynamic:  # these have to be taken one by one, before the rest
        kinds = importlib.import_module(f"{place}.config.xnnpack_config").ConfigPrecisionType
        partitions.insert(0, partitioner(config_precisions=kinds.DYNAMIC_QUANT, per_op_mode=True))
    told = None if tensors is None else {"skerry_tensors": json.dumps(tensors)}
    edge = exir.to_edge_transform_and_lower(
        program, partitioner=partitions, constant_methods=told,
        compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
    )  # fmt: skip
    return bytes(edge.to_executorch().buffer)


def _tensors(given: dict[str, Any], answers: dict[str, Any], axes: dict[int, tuple[str, int]]) -> dict[str, Any]:
    """Return names, dtypes and shapes of inputs and outputs; a dynamic axis by its name."""

    def told(name: str, tensor: Any) -> dict[str, Any]:
        like = tensor.shape[: len(next(iter(given.values())).shape)]
        shape = [axes[at][0] if at in axes and at < len(like) else size for at, size in enumerate(tensor.shape)]
        if name == "logits" and len(shape) > 1:
            shape[1:] = list(tensor.shape[1:])
        return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}

    return {
        "inputs": [told(name, tensor) for name, tensor in given.items()],
        "outputs": [told(name, tensor) for name, tensor in answers.items()],
    }


def _least_cosine(part: Path, example: dict[str, Any], theirs: Any) -> float:
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    ours = runtime.load_program(part).load_method("forward").execute(list(example.values()))[0]
    mask = example.get("attention_mask")
    return float(models.least_cosine(theirs.numpy(), ours.numpy(), None if mask is None else mask.numpy()))
