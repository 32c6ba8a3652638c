"""OpenVINO keeps the contract of a runtime, with models of its own and with ONNX ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.runtimes.openvino import OpenVinoRuntime
from skerry.testing.runtimes import CHECKS, Specimen

Check = Callable[[Specimen], None]
contract = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def _specimen(model: Path, wrong_kind: Path, batch: dict, folder: Path) -> Specimen:
    """With two threads the caller waits, and a thread for callbacks sleeps; with one the caller works itself."""
    return Specimen(
        runtime=OpenVinoRuntime, model=model, inputs=batch, wrong_kind=wrong_kind, folder=folder,
        memory_at_least_bytes=8 * 2**20, starts_threads=False, idle_threads=1,
    )  # fmt: skip


@contract
def test_its_own_format(check: Check, openvino_model: Path, null_model: Path, batch: dict, tmp_path: Path) -> None:
    check(_specimen(openvino_model, null_model, batch, tmp_path))


@contract
def test_onnx(
    check: Check, openvino_model: Path, onnx_model: Path, null_model: Path, batch: dict, tmp_path: Path
) -> None:
    check(_specimen(onnx_model, null_model, batch, tmp_path))
