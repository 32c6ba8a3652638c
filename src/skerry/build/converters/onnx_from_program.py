"""ONNX from a program of ``torch.export``: what ``torch.export.save`` wrote (``.pt2``) becomes a graph.

The request: ``model`` (``.pt2``), ``target`` (``.onnx``), ``cases`` (``.npz``: inputs and PyTorch's answers, for the
comparison that Skerry makes). Free axes stay free within the bounds that the program was exported with. Inputs keep
their names; outputs have those of a dictionary that the program gives, else ``output``, ``output_1`` and so on.

Reading such a file may run code that its author put into it: it may hold pickles, and PyTorch evaluates the formulas
of its shapes. Skerry asks for this converter only where the pipeline file says ``allow_pickle: true``.

The answer: ``inputs``, ``outputs``, ``bytes``, ``seconds``.
"""

from __future__ import annotations

import importlib
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPSET = 18
"""The least that PyTorch's exporter of programs writes."""

STEPS = (0, 1, 4)
"""How far the sizes that are compared lie beyond the least that is allowed."""


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Read, convert, note what PyTorch answers, and put the graph in its place once it is whole."""
    start = time.monotonic()
    torch = importlib.import_module("torch")
    source, target = Path(request["model"]), Path(request["target"])
    if not source.is_file():
        raise talk.refusal("missing", f"there is no program {source}")
    talk.say("read the program")
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = _read(torch, source, talk)
        outputs = _output_names(torch, program)
        talk.say("ask PyTorch")
        _note(torch, program, outputs, Path(request["cases"]), talk)
        talk.say("convert")
        graph = _converted(torch, program, outputs, talk)
    _name_axes(graph.model.graph)
    part = target.with_name(target.name + ".part")
    try:
        graph.save(str(part))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    inputs = [one.name for one in graph.model.graph.inputs]
    seconds = round(time.monotonic() - start, 1)
    return {"inputs": inputs, "outputs": outputs, "bytes": target.stat().st_size, "seconds": seconds}


def _read(torch: Any, source: Path, talk: Any) -> Any:
    try:
        return torch.export.load(str(source))
    except Exception as error:  # archives, formulas and pickles fail in their own ways
        raise talk.refusal("corrupt", f"the program cannot be read: {talk.reason(error)}") from error


def _output_names(torch: Any, program: Any) -> list[str]:
    """Return a name for each tensor that the program gives: the last key of a dictionary on the way to it."""
    tree = importlib.import_module("torch.utils._pytree")
    spec = program.call_spec.out_spec
    paths, _ = tree.tree_flatten_with_path(tree.tree_unflatten(list(range(spec.num_leaves)), spec))
    names: list[str] = []
    for at, (path, _) in enumerate(paths):
        keys = [key.key for key in path if isinstance(getattr(key, "key", None), str)]
        plain = f"output_{at}" if at else "output"
        names.append(keys[-1] if keys and keys[-1] not in names else plain)
    return names


def _note(torch: Any, program: Any, outputs: list[str], path: Path, talk: Any) -> None:
    """Write made-up inputs of several sizes and what the program answers to them."""
    np = importlib.import_module("numpy")
    tree = importlib.import_module("torch.utils._pytree")
    module, seen = program.module(), []
    noted: dict[str, Any] = {}
    try:
        for step in STEPS:
            leaves, named = _inputs(torch, program, step)
            shapes = [tuple(tensor.shape) for tensor in named.values()]
            if shapes in seen:
                continue
            seen.append(shapes)
            arguments, keywords = tree.tree_unflatten(leaves, program.call_spec.in_spec)
            answers = tree.tree_flatten(module(*arguments, **keywords))[0]
            number = len(seen) - 1
            noted |= {f"{number}/inputs/{name}": tensor.numpy() for name, tensor in named.items()}
            noted |= {
                f"{number}/outputs/{name}": answer.numpy()
                for name, answer in zip(outputs, answers, strict=True)
                if isinstance(answer, torch.Tensor)
            }
    except Exception as error:  # whatever the program raises
        raise talk.refusal("kind", f"the program does not run: {talk.reason(error)}") from error
    np.savez(path, **noted)


def _inputs(torch: Any, program: Any, step: int) -> tuple[list[Any], dict[str, Any]]:
    """Return the leaves of the program's inputs, and those of them that are tensors by name."""
    tree = importlib.import_module("torch.utils._pytree")
    given = tree.tree_flatten(program.example_inputs)[0] if program.example_inputs is not None else None
    sizes = dict(_sizes(program, step))
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    generator = torch.Generator().manual_seed(step)
    leaves, named = [], {}
    for at, name in enumerate(program.graph_signature.user_inputs):
        told = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
        if not isinstance(told, torch.Tensor):
            leaves.append(given[at] if given is not None else name)
            continue
        shape = [_size(length, sizes) for length in told.shape]
        made = _made_up(torch, told.dtype, shape, given[at] if given is not None else None, generator)
        leaves.append(made)
        named[name] = made
    return leaves, named


def _sizes(program: Any, step: int) -> Iterator[tuple[Any, int]]:
    """Yield each symbol of the shapes with a size within its bounds."""
    for symbol, bounds in program.range_constraints.items():
        least = max(int(bounds.lower), 1)
        most = int(bounds.upper) if bounds.upper.is_finite else least + 1000
        yield symbol, min(least + step, most)


def _size(length: Any, sizes: dict[Any, int]) -> int:
    """Return a size; a free one by its formula."""
    return length if isinstance(length, int) else int(length.node.expr.subs(sizes))


def _made_up(torch: Any, dtype: Any, shape: list[int], example: Any, generator: Any) -> Any:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    # Whole numbers are most often places in a table: those of the example are known to be in it.
    least, most = (int(example.min()), int(example.max())) if example is not None and example.numel() else (0, 1)
    return torch.randint(least, most + 1, shape, generator=generator).to(dtype)


def _converted(torch: Any, program: Any, outputs: list[str], talk: Any) -> Any:
    try:
        graph = torch.onnx.export(program, dynamo=True, opset_version=OPSET, output_names=outputs, verbose=False)
    except Exception as error:  # the exporter raises a dozen kinds, all of which mean that it cannot
        cause = error.__cause__ or error
        raise talk.refusal("kind", f"the program cannot be exported to ONNX: {talk.reason(cause)}") from error
    known = {"", "ai.onnx"}
    foreign = sorted({node.domain for node in graph.model.graph if node.domain not in known})
    own = {function.domain for function in graph.model.functions.values()}
    if set(foreign) - own:
        raise talk.refusal("kind", f"the program has operators of {foreign[0]} that no runtime takes")
    return graph


def _name_axes(graph: Any) -> None:
    """Give free axes names to know them by instead of running numbers: the first of the first input is the batch."""
    known: dict[str, str] = {}
    for value in (*graph.inputs, *graph.outputs):
        for at, length in enumerate(value.shape or ()):
            number = getattr(length, "value", None)
            if isinstance(number, str):
                known.setdefault(number, f"{value.name}_{at}" if known or at else "batch")
                value.shape[at] = known[number]
