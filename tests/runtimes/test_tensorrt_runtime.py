"""The TensorRT runtime: its contract where there is a GPU, and what it says where there is none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skerry.runtimes.tensorrt import TensorRtRuntime
from skerry.spec.errors import DependencyError, ModelKindError, ModelMissingError, SpecError
from skerry.testing.runtimes import CHECKS, Specimen

Check = Callable[[Specimen], None]
FOUND = TensorRtRuntime.availability()
gpu = pytest.mark.skipif(not FOUND.usable, reason=f"TensorRT cannot run here: {FOUND.reason}")


@pytest.fixture(scope="session")
def engine(onnx_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine for this GPU, of the small ONNX encoder, for up to 8 rows of up to 32 tokens."""
    library = importlib.import_module("tensorrt")
    logger = library.Logger(library.Logger.ERROR)
    builder = library.Builder(logger)
    network = builder.create_network(0)
    parser = library.OnnxParser(network, logger)
    assert parser.parse(onnx_model.read_bytes()), parser.get_error(0)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for place in range(network.num_inputs):
        profile.set_shape(network.get_input(place).name, (1, 1), (3, 5), (8, 32))
    config.add_optimization_profile(profile)
    path = tmp_path_factory.mktemp("tensorrt") / "encoder.plan"
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))
    return path


@gpu
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Check, engine: Path, onnx_model: Path, batch: dict[str, np.ndarray], tmp_path: Path) -> None:
    specimen = Specimen(
        runtime=TensorRtRuntime, model=engine, inputs=batch, wrong_kind=onnx_model, folder=tmp_path, device="cuda",
        tolerance=1e-3, starts_threads=False, memory_at_least_bytes=8 * 2**20,
    )  # fmt: skip
    check(specimen)


@pytest.mark.skipif(FOUND.usable, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    assert not FOUND.usable and FOUND.reason and "skerry[tensorrt]" in FOUND.hint
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"some bytes")
    with pytest.raises(DependencyError, match=r"skerry\[tensorrt\]"):
        TensorRtRuntime().load(plan)


def test_what_is_wrong_is_told_before_the_library_is_needed(onnx_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no option 'profil'"):
        TensorRtRuntime().load(onnx_model, options={"profil": 1})
    with pytest.raises(SpecError, match="0 threads"):
        TensorRtRuntime().load(onnx_model, threads=0)
    with pytest.raises(ModelKindError, match="an ONNX model"):
        TensorRtRuntime().load(onnx_model)
    with pytest.raises(ModelMissingError):
        TensorRtRuntime().load(tmp_path / "absent.plan")
