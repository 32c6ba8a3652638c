"""ONNX from TensorFlow: a SavedModel's signature, or a Keras model, becomes a graph by tf2onnx.

The request: ``model`` (a SavedModel's folder, or a ``.keras`` or ``.h5`` file), ``target`` (``.onnx``), ``cases``
(``.npz``: inputs and TensorFlow's answers, for the comparison that Skerry makes), ``signature`` (of a SavedModel:
``serving_default`` by default). The first axis is called ``batch`` where it is free. Inputs and outputs keep the names
that the model gives them.

A Keras file is read in safe mode, so that what it says is never run as a program; layers of one's own are refused. A
SavedModel is a program of TensorFlow's operators, some of which read and write files: convert those that you trust.

The answer: ``inputs``, ``outputs``, ``bytes``, ``seconds``.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPSET = 17
SIZES = (7, 32, 64, 224)
"""What free axes other than the first are tried with, until the model takes one: lengths, then sides of pictures."""

BATCHES = (1, 3)


def convert(request: dict[str, Any], talk: Any) -> dict[str, Any]:
    """Read, note what it answers, convert, and put both files in their places once they are whole."""
    start = time.monotonic()
    source, target = Path(request["model"]), Path(request["target"])
    talk.say("read the model")
    tensorflow = importlib.import_module("tensorflow")
    read = _saved if source.is_dir() else _keras
    function, inputs = read(tensorflow, source, request.get("signature") or "", talk)
    for name, spec in inputs.items():
        if not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
            raise talk.refusal("kind", f"the model takes {name} as {spec.dtype.name}, not numbers")
    talk.say("ask TensorFlow")
    _note(function, inputs, Path(request["cases"]), talk)
    talk.say("convert")
    model = _converted(tensorflow, function, inputs, talk)
    part = target.with_name(target.name + ".part")
    try:
        part.write_bytes(model.SerializeToString())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return {
        "inputs": [one.name for one in model.graph.input], "outputs": [one.name for one in model.graph.output],
        "bytes": target.stat().st_size, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def _saved(tensorflow: Any, source: Path, wanted: str, talk: Any) -> tuple[Callable[..., dict[str, Any]], Any]:
    """Return a signature of a SavedModel as a function from named tensors to named tensors, and what it takes."""
    try:
        loaded = tensorflow.saved_model.load(str(source))
    except Exception as error:  # TensorFlow raises its own, Python's and those of protobuf
        raise talk.refusal("corrupt", f"the SavedModel cannot be read: {talk.reason(error)}") from error
    # What serves is offered once more under another name by Keras.
    names = [name for name in loaded.signatures if name != "serve"] or list(loaded.signatures)
    chosen = wanted or next((name for name in names if name == "serving_default"), names[0] if len(names) == 1 else "")
    if chosen not in loaded.signatures:
        said = f"the SavedModel has no signature {wanted!r}" if wanted else "the SavedModel has several signatures"
        raise talk.refusal("option", said, f"`part:` names one of {', '.join(names) or '(none)'}")
    function = loaded.signatures[chosen]
    # The loaded object owns the variables: it has to live as long as the function.
    return lambda keep=loaded, **named: function(**named), dict(function.structured_input_signature[1])


def _keras(tensorflow: Any, source: Path, wanted: str, talk: Any) -> tuple[Callable[..., dict[str, Any]], Any]:
    keras = importlib.import_module("keras")
    if wanted:
        raise talk.refusal("option", "a Keras file is one graph and has no parts", "leave `part` out")
    if not source.is_file():
        raise talk.refusal("missing", f"there is no Keras model {source}")
    with source.open("rb") as file:
        suffixes = {".h5", ".hdf5"} if file.read(4) == b"\x89HDF" else {".keras"}
    if source.suffix not in suffixes:  # by which the library judges
        raise talk.refusal("option", f"the name of this Keras file has to end in {' or '.join(sorted(suffixes))}")
    try:
        model = keras.saving.load_model(str(source), compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, RuntimeError, AttributeError) as error:
        text = talk.reason(error)
        foreign = any(word in str(error) for word in ("custom", "Lambda", "lambda", "safe_mode", "registered"))
        hint = "layers of one's own and Lambda layers are programs: export the model as a SavedModel" if foreign else ""
        kind = "kind" if foreign else "corrupt"
        raise talk.refusal(kind, f"the Keras model cannot be read: {text}", hint) from error
    names, outputs = _names(model.inputs), _names(model.outputs)
    inputs = {
        name: tensorflow.TensorSpec(one.shape, one.dtype, name=name)
        for name, one in zip(names, model.inputs, strict=True)
    }

    def function(**named: Any) -> dict[str, Any]:
        given = [named[name] for name in names]
        answer = model(given if len(given) > 1 else given[0], training=False)
        return dict(zip(outputs, tensorflow.nest.flatten(answer), strict=True))

    return function, inputs


def _names(tensors: Any) -> list[str]:
    """Return a name for each tensor: that of the layer that gives it, since its own may be a running number."""
    found: list[str] = []
    for tensor in tensors:
        name = tensor._keras_history.operation.name
        found.append(name if name not in found else f"{name}_{len(found)}")
    return found


def _converted(tensorflow: Any, function: Any, inputs: dict[str, Any], talk: Any) -> Any:
    """Return the ONNX model, its free axes named."""
    tf2onnx = importlib.import_module("tf2onnx")
    specs = [tensorflow.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in inputs.items()]
    # The converter needs a signature by place, and takes the names from the specifications.
    placed = tensorflow.function(lambda *given: function(**dict(zip(inputs, given, strict=True))))
    try:
        model, _ = tf2onnx.convert.from_function(placed, input_signature=specs, opset=OPSET)
    except Exception as error:  # the converter raises what comes
        raise talk.refusal("kind", f"TensorFlow's graph cannot be converted: {talk.reason(error)}") from error
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise talk.refusal("kind", f"the graph has operators of {foreign[0]} that no runtime takes")
    for tensor in (*model.graph.input, *model.graph.output):
        for at, axis in enumerate(tensor.type.tensor_type.shape.dim):
            if not axis.HasField("dim_value"):
                axis.dim_param = "batch" if at == 0 else f"{tensor.name}_{at}"
    return model


def _note(function: Any, inputs: dict[str, Any], path: Path, talk: Any) -> None:
    """Write made-up inputs and what the model answers to them, for the first size that it takes."""
    np = importlib.import_module("numpy")
    problem: Exception | None = None
    for size in SIZES:
        noted: dict[str, Any] = {}
        try:
            for number, batch in enumerate(BATCHES):
                given = {name: _made_up(np, spec, batch, size) for name, spec in inputs.items()}
                answers = function(**{name: _tensor(array, inputs[name]) for name, array in given.items()})
                noted |= {f"{number}/inputs/{name}": array for name, array in given.items()}
                noted |= {f"{number}/outputs/{name}": answer.numpy() for name, answer in answers.items()}
        except Exception as error:  # noqa: BLE001 - sizes that do not fit are told in as many ways as there are operators
            problem = error
            continue
        np.savez(path, **noted)
        return
    raise talk.refusal("kind", f"the model takes none of the sizes {SIZES}: {talk.reason(problem)}")


def _made_up(np: Any, spec: Any, batch: int, size: int) -> Any:
    rank = spec.shape.as_list() if spec.shape.rank is not None else [None]
    shape = [length or (batch if at == 0 else size) for at, length in enumerate(rank)]
    random = np.random.default_rng(batch)
    if spec.dtype.is_floating:
        return random.normal(size=shape).astype(spec.dtype.as_numpy_dtype)
    return random.integers(0, 2, size=shape).astype(spec.dtype.as_numpy_dtype)


def _tensor(array: Any, spec: Any) -> Any:
    return importlib.import_module("tensorflow").constant(array, dtype=spec.dtype)
