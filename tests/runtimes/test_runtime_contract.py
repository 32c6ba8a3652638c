"""Every runtime keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skerry.runtimes.null import NullModel, NullRuntime, write_null_model
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.ports import TensorSpec
from skerry.testing.runtimes import CHECKS, Specimen

Check = Callable[[Specimen], None]
contract = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@contract
def test_null_text_encoder(check: Check, null_model: Path, onnx_model: Path, batch: dict, tmp_path: Path) -> None:
    specimen = Specimen(
        runtime=NullRuntime, model=null_model, inputs=batch, wrong_kind=onnx_model, folder=tmp_path,
        tolerance=0.0, starts_threads=False,
    )  # fmt: skip
    check(specimen)


@contract
def test_null_with_other_tensors(check: Check, onnx_model: Path, tmp_path: Path) -> None:
    declared = NullModel(
        inputs=(TensorSpec("frame", "float32", ("n", 4, "width")), TensorSpec("gain", "float32", ("n",))),
        outputs=(
            TensorSpec("label", "int64", ("n",)),
            TensorSpec("boxes", "float64", ("n", 3, 2)),
            TensorSpec("seen", "bool", ("n", 4, "width")),
        ),
    )
    random = np.random.default_rng(1)
    inputs = {
        "frame": random.standard_normal((3, 4, 6)).astype(np.float32),
        "gain": np.ones(3, dtype=np.float32),
    }
    specimen = Specimen(
        runtime=NullRuntime, model=write_null_model(tmp_path / "frames.null.json", declared), inputs=inputs,
        wrong_kind=onnx_model, folder=tmp_path, batch_axis="n", tolerance=0.0, starts_threads=False,
    )  # fmt: skip
    check(specimen)


@contract
def test_onnxruntime(check: Check, onnx_model: Path, null_model: Path, batch: dict, tmp_path: Path) -> None:
    specimen = Specimen(
        runtime=OnnxRuntime, model=onnx_model, inputs=batch, wrong_kind=null_model, folder=tmp_path,
        memory_at_least_bytes=8 * 2**20,
    )  # fmt: skip
    check(specimen)
