"""Inference requests and answers of the Open Inference Protocol over HTTP: JSON, with or without binary tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from skerry.run.serve import datatypes
from skerry.run.serve.refusal import Refusal
from skerry.run.serve.servable import Outputs, Servable
from skerry.runtimes.tensors import TEXT
from skerry.spec.ports import Array, TensorSpec
from skerry.spec.words import did_you_mean

VERSION = "1"
"""The version of every model: a server holds one of each, and another release is another server."""
JSON, BINARY = b"application/json", b"application/octet-stream"
_SHARED_MEMORY = "shared_memory_region"
_NOTHING: Any = msgspec.Raw(b"")
Parameters = dict[str, Any]


class InputTensor(msgspec.Struct, gc=False):
    """An input of a request; ``data`` is left out where its bytes follow the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw = _NOTHING


class RequestedOutput(msgspec.Struct, gc=False):
    """An output that is asked for."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct, gc=False):
    """The JSON of a request."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request, read: its arrays, the outputs that are wanted (each with whether in binary), and its own name."""

    inputs: dict[str, Array]
    outputs: dict[str, bool]
    id: str = ""
    timeout_s: float = 0.0


_decode: Callable[[bytes | memoryview], InferRequest] = msgspec.json.Decoder(InferRequest).decode
_encode = msgspec.json.Encoder().encode


def read_request(servable: Servable, body: bytes, header_length: bytes | None, *, finite: bool) -> Question:
    """Read a request's body.

    Parameters
    ----------
    header_length:
        The header ``Inference-Header-Content-Length``: how many bytes of the body are JSON; ``None`` for all.
    finite:
        Whether floats that are no numbers are refused.

    Raises ``Refusal`` for whatever is wrong with it.
    """
    text: bytes | memoryview = body
    rest = memoryview(b"")
    if header_length is not None:
        size = int(header_length) if header_length.isdigit() and len(header_length) < 16 else -1
        if not 0 <= size <= len(body):
            raise Refusal(
                400, f"Inference-Header-Content-Length is {header_length!r}, and the body has {len(body)} bytes"
            )
        text, rest = memoryview(body)[:size], memoryview(body)[size:]
    try:
        request = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the request is not read: {error}") from None
    arrays = _arrays(request.inputs, rest, header_length is not None)
    if finite:
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                datatypes.require_finite(name, array)
    parameters = request.parameters or {}
    timeout = parameters.get("timeout", 0)  # microseconds, as Triton has it
    return Question(
        arrays,
        wanted_outputs(
            servable,
            [(each.name, each.parameters or {}) for each in request.outputs or ()],
            is_true(parameters, "binary_data_output"),
        ),
        request.id or "",
        timeout / 1e6 if isinstance(timeout, int | float) and timeout > 0 else 0.0,
    )


def _arrays(inputs: Sequence[InputTensor], rest: memoryview, has_binary: bool) -> dict[str, Array]:
    """Return the arrays of all inputs; those in binary follow each other in ``rest``."""
    arrays: dict[str, Array] = {}
    place = 0
    for tensor in inputs:
        name, parameters = tensor.name, tensor.parameters
        if name in arrays:
            raise Refusal(400, f"input {name!r} is there twice")
        size = parameters.get("binary_data_size") if parameters else None
        if parameters and _SHARED_MEMORY in parameters:
            raise Refusal(400, f"input {name!r} lies in shared memory, which is not taken here: send its data")
        if size is None:
            if not tensor.data:
                raise Refusal(400, f"input {name!r} has neither data nor a binary_data_size")
            arrays[name] = datatypes.from_json(name, tensor.datatype, tensor.shape, tensor.data)
            continue
        if not has_binary:
            raise Refusal(400, f"input {name!r} is binary, but the header Inference-Header-Content-Length is missing")
        if not isinstance(size, int) or not 0 <= size <= len(rest) - place:
            raise Refusal(400, f"input {name!r} has a binary_data_size of {size}; {len(rest) - place} bytes are left")
        arrays[name] = datatypes.from_bytes(name, tensor.datatype, tensor.shape, rest[place : place + size])
        place += size
    if place != len(rest):
        raise Refusal(400, f"{len(rest) - place} bytes after the last input belong to none")
    return arrays


def wanted_outputs(servable: Servable, asked: Sequence[tuple[str, Mapping[str, Any]]], binary: bool) -> dict[str, bool]:
    """Return the outputs that are wanted, each with whether in binary; all of them where none was named.

    Raises ``Refusal`` for an output that the model does not have, or in a form that is not offered.
    """
    names = [spec.name for spec in servable.outputs]
    if not asked:
        return dict.fromkeys(names, binary)
    wanted: dict[str, bool] = {}
    for name, parameters in asked:
        if name not in names:
            hint = did_you_mean(name, names)
            raise Refusal(
                400, f"{servable.name} has no output {name!r}; it has {', '.join(names)}{f' ({hint})' if hint else ''}"
            )
        for unknown in (_SHARED_MEMORY, "classification"):
            if parameters.get(unknown):
                raise Refusal(400, f"output {name!r}: {unknown} is not offered here")
        wanted[name] = is_true(parameters, "binary_data") if "binary_data" in parameters else binary
    return wanted


def is_true(parameters: Mapping[str, Any], name: str) -> bool:
    """Return a truth value among parameters, ``False`` where it is missing; raises ``Refusal`` for another type."""
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise Refusal(400, f"the parameter {name} is {value!r}; it is true or false")
    return value


def write_answer(servable: Servable, question: Question, outputs: Outputs) -> tuple[bytes, bytes, bytes]:
    """Return an answer's content type, body and further headers; raises ``Refusal`` for what JSON cannot carry."""
    tensors: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, as_bytes in question.outputs.items():
        array = outputs[name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": array.shape}
        if as_bytes:
            raw = datatypes.to_bytes(array)
            binary.append(raw)
            tensor["parameters"] = {"binary_data_size": len(raw)}
        else:
            tensor["data"] = datatypes.to_json(name, array)
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": servable.name, "model_version": VERSION, "outputs": tensors}
    if question.id:
        answer["id"] = question.id
    head = _encode(answer)
    if not any(question.outputs.values()):
        return JSON, head, b""
    return BINARY, b"".join([head, *binary]), b"inference-header-content-length: %d\r\n" % len(head)


def datatype_of(array: Array) -> str:
    """Return the protocol's name of an array's dtype."""
    return _datatype(array.dtype)


@functools.lru_cache(maxsize=32)
def _datatype(dtype: Any) -> str:
    return datatypes.BYTES if dtype.kind in "OU" else datatypes.DATATYPES[dtype.name]


def describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    """Return a tensor's metadata; a size that varies is -1."""
    datatype = datatypes.BYTES if spec.dtype == TEXT else datatypes.DATATYPES.get(spec.dtype, spec.dtype.upper())
    return {
        "name": spec.name,
        "datatype": datatype,
        "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
    }


def describe_model(servable: Servable) -> dict[str, Any]:
    """Return a model's metadata."""
    return {
        "name": servable.name,
        "versions": [VERSION],
        "platform": servable.platform,
        "inputs": [describe_tensor(spec) for spec in servable.inputs],
        "outputs": [describe_tensor(spec) for spec in servable.outputs],
    }
