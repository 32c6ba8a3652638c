"""A file that is no model for a runtime is called what it is."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtimes.modelfile import kind_of, require_kind
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelCorruptError, ModelError, ModelKindError, ModelMissingError, SkerryError

HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FILES = {
    "LiteRT": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "the runtime litert takes it"),
    "ExecuTorch": (b"\x1c\x00\x00\x00ET12" + bytes(64), "the runtime executorch takes it"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(64), "the runtime llamacpp takes it"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="m" version="11"></net>', "the runtime openvino takes it"),
    "null": (b'{"skerry_null": 1, "dimension": 4}', "the runtime null takes it"),
    "safetensors": (len(HEADER).to_bytes(8, "little") + HEADER + bytes(4), "export the model to ONNX"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "export it to ONNX or LiteRT"),
    "pickle": (pickle.dumps({"a": 1}), "never opened"),
    "gzip": (gzip.compress(b"x"), "unpack it"),
    "JSON": (json.dumps({"a": 1}).encode(), ""),
    "web page": (b"<!DOCTYPE html><html><body>Log in</body></html>", "fetch the model again"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_of_another_kind_is_named_with_what_to_do(what: str, tmp_path: Path) -> None:
    content, advice = FILES[what]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelKindError) as caught:
        OnnxRuntime().load(path)
    assert what in caught.value.message
    assert advice in caught.value.hint
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("member", "what"),
    [("archive/data.pkl", "PyTorch"), ("model.weights.h5", "Keras"), ("model.onnx", "a zip archive")],
)
def test_zip_archives_are_told_apart(member: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"x")
    with pytest.raises(ModelKindError, match=what):
        OnnxRuntime().load(path)


def test_a_pointer_of_git_lfs_counts_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ModelMissingError, match="git lfs pull"):
        OnnxRuntime().load(path)


def test_a_missing_file_names_the_nearest_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"x")
    with pytest.raises(ModelMissingError, match=r"did you mean 'encoder.onnx'\?"):
        OnnxRuntime().load(tmp_path / "encodr.onnx")


def test_a_path_below_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ModelMissingError):
        OnnxRuntime().load(tmp_path / "file" / "model.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxRuntime().load(path)


def test_an_empty_file_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ModelCorruptError, match="empty"):
        require_kind(tmp_path / "m.onnx", "onnxruntime")


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_judged_without_a_crash(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(content)
    kind_of(path)
    try:
        require_kind(path, "onnxruntime")
    except SkerryError as error:
        assert error.where == str(path)
