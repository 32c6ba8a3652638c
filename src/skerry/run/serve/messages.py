"""Messages of the Open Inference Protocol over gRPC, made from a table when the door is opened.

So there is no generated code, and no code generator. Field numbers and types are those of the public
``grpc_predict_v2.proto`` (KServe) and ``grpc_service.proto`` (Triton), which agree in all that stands here; a test
compares them with what ``tritonclient`` brings.
"""

from __future__ import annotations

import functools
import re
from typing import Any

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

TABLE: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live=1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready=1",
    "ModelReadyRequest": "string name=1; string version=2",
    "ModelReadyResponse": "bool ready=1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name=1; string version=2; repeated string extensions=3",
    "ModelMetadataRequest": "string name=1; string version=2",
    "ModelMetadataResponse": (
        "string name=1; repeated string versions=2; string platform=3; "
        "repeated ModelMetadataResponse.TensorMetadata inputs=4; "
        "repeated ModelMetadataResponse.TensorMetadata outputs=5"
    ),
    "ModelMetadataResponse.TensorMetadata": "string name=1; string datatype=2; repeated int64 shape=3",
    "InferParameter": (
        "oneof bool bool_param=1; oneof int64 int64_param=2; oneof string string_param=3; "
        "oneof double double_param=4; oneof uint64 uint64_param=5"
    ),
    "InferTensorContents": (
        "repeated bool bool_contents=1; repeated int32 int_contents=2; repeated int64 int64_contents=3; "
        "repeated uint32 uint_contents=4; repeated uint64 uint64_contents=5; repeated float fp32_contents=6; "
        "repeated double fp64_contents=7; repeated bytes bytes_contents=8"
    ),
    "ModelInferRequest": (
        "string model_name=1; string model_version=2; string id=3; map InferParameter parameters=4; "
        "repeated ModelInferRequest.InferInputTensor inputs=5; "
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs=6; repeated bytes raw_input_contents=7"
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name=1; string datatype=2; repeated int64 shape=3; map InferParameter parameters=4; "
        "InferTensorContents contents=5"
    ),
    "ModelInferRequest.InferRequestedOutputTensor": "string name=1; map InferParameter parameters=2",
    "ModelInferResponse": (
        "string model_name=1; string model_version=2; string id=3; map InferParameter parameters=4; "
        "repeated ModelInferResponse.InferOutputTensor outputs=5; repeated bytes raw_output_contents=6"
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name=1; string datatype=2; repeated int64 shape=3; map InferParameter parameters=4; "
        "InferTensorContents contents=5"
    ),
}
"""Every message by its name, nested ones after a dot: its fields as ``[repeated|oneof|map] TYPE NAME=NUMBER``.

The keys of a map are texts."""

CONTENTS: dict[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the elements of each datatype lie in ``InferTensorContents``; ``FP16`` travels in raw form only."""

_FIELD = re.compile(r"(?:(repeated|oneof|map) )?(\S+) (\w+)=(\d+)")
# The numbers of FieldDescriptorProto.Type (descriptor.proto).
_TYPES = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "message": 11,
    "bytes": 12,
    "uint32": 13,
}
_ONE, _MANY = 1, 3


@functools.cache
def message_classes() -> dict[str, Any]:
    """Return the class of every message of ``TABLE``, in a pool of their own: other packages bring the same names."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="skerry/open_inference.proto", package=PACKAGE, syntax="proto3")
    found: dict[str, Any] = {}
    for name, fields in TABLE.items():
        outer, _, inner = name.rpartition(".")
        message = found[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
        found[name] = message
        for how, kind, field, number in _FIELD.findall(fields):
            _add_field(message, name, how, kind, field, int(number))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in TABLE}


def _add_field(message: Any, name: str, how: str, kind: str, field: str, number: int) -> None:
    if how == "map":
        entry = "".join(part.capitalize() for part in field.split("_")) + "Entry"
        pair = message.nested_type.add(name=entry)
        pair.options.map_entry = True
        _add_field(pair, name, "", "string", "key", 1)
        _add_field(pair, name, "", kind, "value", 2)
        how, kind = "repeated", f"{name}.{entry}"
    made = message.field.add(name=field, number=number, label=_MANY if how == "repeated" else _ONE)
    made.type = _TYPES.get(kind, _TYPES["message"])
    if made.type == _TYPES["message"]:
        made.type_name = f".{PACKAGE}.{kind}"
    if how == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        made.oneof_index = 0
