"""OpenVINO: what the contract leaves open."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.runtimes.openvino import OpenVinoRuntime, OpenVinoSession
from skerry.spec.errors import (
    ModelCorruptError,
    ModelKindError,
    ModelMissingError,
    RuntimeUnavailableError,
    SpecError,
    TensorError,
)
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import TensorSpec

if find_spec("openvino") is None:  # importorskip would import it with its telemetry on
    pytest.skip("openvino is not installed: pip install 'skerry[openvino]'", allow_module_level=True)


@pytest.fixture
def session(openvino_model: Path) -> OpenVinoSession:
    return OpenVinoRuntime().load(openvino_model)


@pytest.fixture
def copied(openvino_model: Path, tmp_path: Path) -> Path:
    """A copy of the model and its weights, which a test may change."""
    shutil.copy(openvino_model.with_suffix(".bin"), tmp_path / "copied.bin")
    return Path(shutil.copy(openvino_model, tmp_path / "copied.xml"))


def _changed(onnx_model: Path, folder: Path, change: Any) -> Path:
    import onnx

    model = onnx.load(onnx_model)
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_it_is_found_through_the_plugin_door() -> None:
    assert load_plugin("skerry.runtimes", "openvino") is OpenVinoRuntime


def test_the_leading_dynamic_axis_is_the_batch_and_others_have_names_of_their_own(session: OpenVinoSession) -> None:
    info = session.describe()
    assert info.inputs[0] == TensorSpec("input_ids", "int64", ("batch", "input_ids.1"))
    assert info.outputs == (TensorSpec("last_hidden_state", "float32", ("batch", "last_hidden_state.1", 512)),)


def test_the_answer_is_that_of_the_graph(onnx_model: Path, session: OpenVinoSession, batch: dict) -> None:
    import onnx

    weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in onnx.load(onnx_model).graph.initializer}
    expected = weights["table"][batch["input_ids"]] @ weights["weights"] * batch["attention_mask"][..., None]
    for answer in (session.run(batch), OpenVinoRuntime().load(onnx_model, threads=2).run(batch)):
        assert np.allclose(answer["last_hidden_state"], expected, atol=1e-4)


def test_lengths_that_disagree_are_a_tensor_error(session: OpenVinoSession, batch: dict) -> None:
    with pytest.raises(TensorError, match="mismatch"):
        session.run({**batch, "attention_mask": np.ones((3, 9), dtype=np.int64)})
    assert session.run(batch)["last_hidden_state"].shape == (3, 5, 512)


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16", "auto"])
def test_precision_changes_answers_by_little(
    precision: str, openvino_model: Path, session: OpenVinoSession, batch: dict
) -> None:
    exact = session.run(batch)["last_hidden_state"]
    other = OpenVinoRuntime().load(openvino_model, options={"precision": precision}).run(batch)["last_hidden_state"]
    assert other.dtype == np.float32
    assert np.abs(other - exact).max() <= (0.0 if precision == "f32" else 0.05)


def test_a_cache_is_written_and_read(openvino_model: Path, tmp_path: Path, batch: dict) -> None:
    options = {"cache": str(tmp_path / "cache")}
    first = OpenVinoRuntime().load(openvino_model, options=options).run(batch)
    (stored,) = (tmp_path / "cache").iterdir()
    second = OpenVinoRuntime().load(openvino_model, options=options).run(batch)
    assert np.array_equal(first["last_hidden_state"], second["last_hidden_state"])
    assert list((tmp_path / "cache").iterdir()) == [stored]


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "int3"},
        {"pining": True},
        {"properties": {"NO_SUCH_PROPERTY": "1"}},
        {"properties": {"NUM_STREAMS": "many"}},
        {"cache": "/dev/null/cache"},
    ],
)
def test_wrong_options_are_refused(options: dict, openvino_model: Path) -> None:
    with pytest.raises(SpecError):
        OpenVinoRuntime().load(openvino_model, options=options)


def test_a_device_that_is_not_there_is_told_with_those_that_are(openvino_model: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="cpu"):
        OpenVinoRuntime().load(openvino_model, device="npu.7")


def test_missing_weights_are_told(copied: Path) -> None:
    copied.with_suffix(".bin").unlink()
    with pytest.raises(ModelMissingError, match=r"copied\.bin"):
        OpenVinoRuntime().load(copied)


def test_weights_that_are_cut_off_are_told(copied: Path) -> None:
    weights = copied.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelCorruptError):
        OpenVinoRuntime().load(copied)


def test_an_operation_that_openvino_lacks_is_named(copied: Path, onnx_model: Path, tmp_path: Path) -> None:
    copied.write_text(copied.read_text().replace('type="Gather"', 'type="NoSuchThing"'))
    with pytest.raises(ModelKindError, match="NoSuchThing"):
        OpenVinoRuntime().load(copied)
    path = _changed(onnx_model, tmp_path, lambda model: setattr(model.graph.node[1], "op_type", "NoSuchThing"))
    with pytest.raises(ModelKindError, match="NoSuchThing"):
        OpenVinoRuntime().load(path)


def test_a_graph_that_dangles_is_damaged(onnx_model: Path, tmp_path: Path) -> None:
    path = _changed(onnx_model, tmp_path, lambda model: model.graph.node[1].input.__setitem__(0, "nowhere"))
    with pytest.raises(ModelCorruptError, match="nowhere"):
        OpenVinoRuntime().load(path)


def test_external_weights_of_an_onnx_model_are_loaded_or_missed(
    onnx_encoder: Callable[..., Path], session: OpenVinoSession, tmp_path: Path, batch: dict
) -> None:
    path = onnx_encoder(tmp_path / "parts.onnx", external=True)
    answer = OpenVinoRuntime().load(path).run(batch)
    assert np.allclose(answer["last_hidden_state"], session.run(batch)["last_hidden_state"], atol=1e-4)
    weights = tmp_path / "parts.onnx.data"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelCorruptError, match="external weights"):
        OpenVinoRuntime().load(path)
    weights.unlink()
    with pytest.raises(ModelMissingError, match=r"parts\.onnx\.data"):
        OpenVinoRuntime().load(path)


def test_one_thread_is_the_callers_own(openvino_model: Path) -> None:
    """So that a process pinned to one core has no second thread to hand work to; counted in a fresh process."""
    code = """
import sys
from pathlib import Path
import numpy, psutil
from skerry.runtimes.openvino import OpenVinoRuntime
OpenVinoRuntime.availability()
before = psutil.Process().num_threads()
session = OpenVinoRuntime().load(Path(sys.argv[1]), threads=1)
session.warm_up()
assert psutil.Process().num_threads() == before
"""
    subprocess.run([sys.executable, "-c", code, str(openvino_model)], check=True, timeout=60)


def test_the_converter_is_imported_when_it_is_called_and_not_before(onnx_model: Path) -> None:
    code = """
import sys
from skerry.runtimes.openvino import import_openvino
openvino = import_openvino()
assert not [name for name in sys.modules if name.startswith("openvino.tools.ovc")]
assert isinstance(openvino.convert_model(sys.argv[1]), openvino.Model)
assert sys.modules["openvino_telemetry"] is None
"""
    subprocess.run([sys.executable, "-c", code, str(onnx_model)], check=True, timeout=60)


def test_a_warning_is_logged_where_telemetry_is_on_already(tmp_path: Path) -> None:
    """By a module of the same name that does nothing, in a home of its own."""
    code = """
import sys, types
sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
import openvino, logging
logging.basicConfig()
from skerry.runtimes.openvino import import_openvino
import_openvino()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True,
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(path for path in sys.path if path), "CI": "true"},
    )  # fmt: skip
    assert "telemetry" in done.stderr


def test_the_very_first_runs_may_come_from_many_threads_at_once(openvino_model: Path) -> None:
    """In a fresh process: without care the library's first reading of a tensor locked up in about one of six."""
    code = """
import faulthandler, sys, threading
from pathlib import Path
import numpy
from skerry.runtimes.openvino import OpenVinoRuntime
faulthandler.dump_traceback_later(50, exit=True)
session = OpenVinoRuntime().load(Path(sys.argv[1]))
ids = numpy.ones((1, 4), dtype=numpy.int64)
together = threading.Barrier(8)
sys.setswitchinterval(1e-6)
def first_run():
    together.wait()
    session.run({"input_ids": ids, "attention_mask": ids})
callers = [threading.Thread(target=first_run) for _ in range(8)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code, str(openvino_model)], check=True, timeout=60)
