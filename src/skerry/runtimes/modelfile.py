"""A model file: what it looks like, judged by its first bytes and never by its name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from skerry.spec.errors import ModelCorruptError, ModelError, ModelKindError, ModelMissingError
from skerry.spec.words import did_you_mean

HEAD_BYTES = 4096
"""How much of a file is read to tell its kind; every signature below lies within the first few dozen bytes."""

# Field numbers of a ``ModelProto`` (onnx.proto), each as the tag byte that may follow ``ir_version``.
_ONNX_TAGS = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA})
_ONNX_IR_VERSIONS = range(1, 32)


class Kind(msgspec.Struct, frozen=True):
    """What a file is: in words, the runtime that takes it (empty for none), and what to do with it otherwise."""

    what: str
    runtime: str = ""
    advice: str = ""


ONNX = Kind("an ONNX model", "onnxruntime")
ORT = Kind("an ONNX Runtime model (.ort)", "onnxruntime")
NULL = Kind("a null model", "null")
LITERT = Kind("a LiteRT (TensorFlow Lite) model", "litert")
EXECUTORCH = Kind("an ExecuTorch program", "executorch")
GGUF = Kind("a GGUF model", "llamacpp")
OPENVINO = Kind("an OpenVINO model description", "openvino")
_EXPORT = "it holds weights without a graph: export the model to ONNX, or give it to `skerry build`"
SAFETENSORS = Kind("a safetensors file", advice=_EXPORT)
TORCH = Kind("a PyTorch archive", advice=_EXPORT)
KERAS = Kind("a Keras model", advice="export it to ONNX or LiteRT")
PICKLE = Kind("a Python pickle", advice="it is never opened, since a pickle may run any code; export the model to ONNX")
ZIP = Kind("a zip archive", advice="unpack it and name the model file within")
GZIP = Kind("a gzip archive", advice="unpack it and name the model file within")
JSON = Kind("a JSON file")
WEB_PAGE = Kind("a web page", advice="the download failed or asked for a login: fetch the model again")
LFS_POINTER = Kind("a Git LFS pointer", advice="the model itself was never fetched: run `git lfs pull`")


def kind_of(path: Path) -> Kind | None:
    """Return what the file looks like, or ``None`` for bytes without a known signature.

    Raises ``OSError`` when the file cannot be read. The signatures are those of the formats' specifications:
    FlatBuffers keep their identifier at offset 4, safetensors begin with the length of a JSON header.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for looks_like, kind in _SIGNATURES:
        if looks_like(head):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if _is_safetensors(head, path.stat().st_size):
        return SAFETENSORS
    if head.lstrip().startswith(b"{"):
        if b'"skerry_null"' in head:
            return NULL
        return JSON if _ends_with_brace(path) else None  # cut off, it may have been anything
    return None


def require_kind(path: Path, runtime: str, *, also: tuple[Kind, ...] = ()) -> Kind | None:
    """Return the kind of a file that ``runtime`` may take; ``None`` if its bytes say nothing.

    ``also`` are the kinds that it takes beside its own.

    Raises
    ------
    ModelMissingError
        There is no such file, or only a pointer to it.
    ModelCorruptError
        The file is empty.
    ModelKindError
        The file is whole but another runtime's; the error says what it looks like and which runtime takes it.
    ModelError
        The file cannot be read.
    """
    if path.is_dir():
        raise ModelKindError("this is a folder", where=str(path), expected=f"a model file for {runtime}")
    try:
        if path.stat().st_size == 0:
            raise ModelCorruptError("the model file is empty", where=str(path), hint="fetch or build it again")
        kind = kind_of(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise ModelError(f"the model cannot be read: {error.strerror or error}", where=str(path)) from error
    if kind is LFS_POINTER:
        raise ModelMissingError("this is only a Git LFS pointer", where=str(path), hint=kind.advice)
    if kind is not None and kind.runtime != runtime and kind not in also:
        raise ModelKindError(
            f"this looks like {kind.what}",
            where=str(path),
            expected=f"a model for the runtime {runtime}",
            hint=f"the runtime {kind.runtime} takes it" if kind.runtime else kind.advice,
        )
    return kind


def _missing(path: Path) -> ModelMissingError:
    try:
        neighbours = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ModelMissingError("there is no such model, nor its folder", where=str(path))
    return ModelMissingError("there is no such model", where=str(path), hint=did_you_mean(path.name, neighbours))


def _starts(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(prefixes)


def _flatbuffer(identifier: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8].startswith(identifier)


def _is_onnx(head: bytes) -> bool:
    """A ``ModelProto`` as every known writer writes it: ``ir_version`` (field 1, a varint) first."""
    return len(head) > 2 and head[0] == 0x08 and head[1] in _ONNX_IR_VERSIONS and head[2] in _ONNX_TAGS


def _is_web_page(head: bytes) -> bool:
    return head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def _is_openvino(head: bytes) -> bool:
    return head.lstrip().startswith(b"<") and b"<net " in head


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= size - 8 and head[8:9] == b"{"


def _ends_with_brace(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        return file.read().rstrip().endswith(b"}")


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return ZIP
    if any(name.endswith(("data.pkl", "archive_format")) for name in names):
        return TORCH
    return KERAS if "model.weights.h5" in names else ZIP


_SIGNATURES: tuple[tuple[Callable[[bytes], bool], Kind], ...] = (
    (_flatbuffer(b"TFL3"), LITERT),
    (_flatbuffer(b"ORTM"), ORT),
    (_flatbuffer(b"ET1"), EXECUTORCH),
    (_starts(b"GGUF"), GGUF),
    (_starts(b"\x89HDF\r\n\x1a\n"), KERAS),
    (_starts(b"\x1f\x8b"), GZIP),
    (_starts(b"version https://git-lfs"), LFS_POINTER),
    (_is_pickle, PICKLE),
    (_is_web_page, WEB_PAGE),
    (_is_openvino, OPENVINO),
    (_is_onnx, ONNX),
)
