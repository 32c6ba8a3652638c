"""The ExecuTorch runtime: its contract, and what it tells of programs that others made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from skerry.build import toolchain
from skerry.build.conversation import CONVERTERS
from skerry.runtimes.executorch import ExecuTorchRuntime
from skerry.spec.errors import ModelKindError, TensorError
from skerry.testing.runtimes import CHECKS, Specimen

Check = Callable[[Specimen], None]
Batch = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    """ExecuTorch, from this environment or from its toolchain, whose PyTorch is the same."""
    if toolchain.find("executorch") is None:
        pytest.skip("the toolchain executorch is not installed: skerry toolchain install executorch")
    if find_spec("executorch") is not None:
        yield
        return
    pytest.importorskip("torch", reason="torch is not installed: pip install 'skerry[build]'")
    folder = next((toolchain.place("executorch") / "lib").glob("python*/site-packages"))
    sys.path.append(str(folder))  # last, so that only what is missing here is found there
    yield
    sys.path.remove(str(folder))


def write_program(path: Path, *, named: bool = True) -> Path:
    """Export the small encoder in the toolchain."""
    request = {"target": str(path), "named": named, "converter": str(CONVERTERS / "executorch_from_torch.py")}
    toolchain.run("executorch", Path(__file__).with_name("executorch_program.py"), request)
    return path


@pytest.fixture(scope="module")
def program(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that tells of its tensors."""
    return write_program(tmp_path_factory.mktemp("executorch") / "encoder.pte")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Check, program: Path, onnx_model: Path, batch: Batch, tmp_path: Path) -> None:
    specimen = Specimen(
        runtime=ExecuTorchRuntime, model=program, inputs=batch, wrong_kind=onnx_model, folder=tmp_path,
        memory_at_least_bytes=8 * 2**20,
    )  # fmt: skip
    check(specimen)


def test_a_size_beyond_the_exported_one_is_a_tensor_error(program: Path) -> None:
    session = ExecuTorchRuntime().load(program)
    long = np.ones((1, 33), dtype=np.int64)
    with pytest.raises(TensorError, match=r"(?s)larger than the program allows.*at most \(8, 32\)"):
        session.run({"input_ids": long, "attention_mask": long})
    session.close()


def test_another_method_is_refused(program: Path) -> None:
    with pytest.raises(ModelKindError, match=r"(?s)no method 'backward'.*forward"):
        ExecuTorchRuntime().load(program, options={"method": "backward"})


def test_a_program_that_tells_nothing_has_the_sizes_it_was_exported_with(engine: None, tmp_path: Path) -> None:
    session = ExecuTorchRuntime().load(write_program(tmp_path / "plain.pte", named=False))
    info = session.describe()
    session.close()
    assert [(spec.name, spec.dtype, spec.shape) for spec in info.inputs] == [
        ("input_0", "int64", (8, 32)),
        ("input_1", "int64", (8, 32)),
    ]
    assert info.outputs[0].shape == (8, 32, 512)
