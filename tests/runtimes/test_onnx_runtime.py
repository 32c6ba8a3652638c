"""ONNX Runtime: what the contract leaves open."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.runtimes.onnxruntime import PROVIDERS, OnnxRuntime, OnnxSession
from skerry.spec.errors import (
    ModelCorruptError,
    ModelError,
    ModelKindError,
    ModelMissingError,
    RuntimeUnavailableError,
    SpecError,
    TensorError,
)
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import TensorSpec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'skerry[onnxruntime]'")


@pytest.fixture
def session(onnx_model: Path) -> OnnxSession:
    return OnnxRuntime().load(onnx_model)


def _changed(onnx_model: Path, folder: Path, change: Any) -> Path:
    """Save a copy of the model after ``change``."""
    import onnx

    model = onnx.load(onnx_model)
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_it_is_found_through_the_plugin_door() -> None:
    assert load_plugin("skerry.runtimes", "onnxruntime") is OnnxRuntime


def test_the_description_keeps_the_names_of_dynamic_axes(session: OnnxSession) -> None:
    info = session.describe()
    assert info.inputs[0] == TensorSpec("input_ids", "int64", ("batch", "tokens"))
    assert info.outputs == (TensorSpec("last_hidden_state", "float32", ("batch", "tokens", 512)),)


def test_unnamed_dynamic_axes_get_names_of_their_own(onnx_encoder: Callable[..., Path], tmp_path: Path) -> None:
    session = OnnxRuntime().load(onnx_encoder(tmp_path / "unnamed.onnx", batch=None))
    assert session.describe().inputs[1].shape == ("attention_mask.0", "attention_mask.1")
    session.warm_up()


def test_the_answer_is_that_of_the_graph(onnx_model: Path, session: OnnxSession, batch: dict) -> None:
    import onnx

    weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in onnx.load(onnx_model).graph.initializer}
    expected = weights["table"][batch["input_ids"]] @ weights["weights"] * batch["attention_mask"][..., None]
    assert np.allclose(session.run(batch)["last_hidden_state"], expected, atol=1e-4)


def test_an_id_beyond_the_table_is_a_tensor_error(session: OnnxSession, batch: dict) -> None:
    with pytest.raises(TensorError, match="out of data bounds"):
        session.run({**batch, "input_ids": batch["input_ids"] + 10**6})


def test_a_model_with_external_weights_is_loaded(
    onnx_encoder: Callable[..., Path], onnx_model: Path, tmp_path: Path, batch: dict
) -> None:
    path = onnx_encoder(tmp_path / "parts.onnx", external=True)
    assert path.stat().st_size < 10_000
    one, other = OnnxRuntime().load(path).run(batch), OnnxRuntime().load(onnx_model).run(batch)
    assert np.array_equal(one["last_hidden_state"], other["last_hidden_state"])


def test_missing_and_damaged_external_weights_are_told(onnx_encoder: Callable[..., Path], tmp_path: Path) -> None:
    path = onnx_encoder(tmp_path / "parts.onnx", external=True)
    weights = tmp_path / "parts.onnx.data"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelCorruptError, match="external weights are damaged"):
        OnnxRuntime().load(path)
    weights.unlink()
    with pytest.raises(ModelMissingError, match="external weights are missing"):
        OnnxRuntime().load(path)


def test_a_model_of_the_future_is_of_another_kind(onnx_model: Path, tmp_path: Path) -> None:
    def raise_versions(model: Any) -> None:
        model.ir_version = 30

    with pytest.raises(ModelKindError, match="newer onnxruntime"):
        OnnxRuntime().load(_changed(onnx_model, tmp_path, raise_versions))


def test_an_operator_that_does_not_exist_is_of_another_kind(onnx_model: Path, tmp_path: Path) -> None:
    def rename(model: Any) -> None:
        model.graph.node[1].op_type = "Divine"

    with pytest.raises(ModelKindError, match="Divine"):
        OnnxRuntime().load(_changed(onnx_model, tmp_path, rename))


def test_a_graph_that_dangles_is_corrupt(onnx_model: Path, tmp_path: Path) -> None:
    def cut(model: Any) -> None:
        model.graph.node[1].input[0] = "nothing"

    with pytest.raises(ModelCorruptError, match="nothing"):
        OnnxRuntime().load(_changed(onnx_model, tmp_path, cut))


def test_a_failing_load_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x09\x12" + bytes(range(200)))
    code = f"""
from pathlib import Path
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelCorruptError
try:
    OnnxRuntime().load(Path({str(tmp_path / "m.onnx")!r}))
except ModelCorruptError:
    print("corrupt")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("corrupt\n", "")


@pytest.mark.parametrize("device", [device for device in PROVIDERS if device != "cpu"])
def test_a_device_is_used_only_where_the_wheel_has_it(device: str, onnx_model: Path, batch: dict) -> None:
    if device in OnnxRuntime.availability().devices:
        pytest.skip(f"this wheel has {device}")
    with pytest.raises(RuntimeUnavailableError) as caught:
        OnnxRuntime().load(onnx_model, device=device)
    assert "cpu" in caught.value.expected
    assert PROVIDERS[device] in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"spinning": True},
        {"arena": False},
        {"memory_pattern": True},
        {"optimization": "none"},
        {"optimization": "basic"},
        {"deterministic": True},
        {"session": {"session.set_denormal_as_zero": "1"}},
    ],
    ids=str,
)
def test_no_option_changes_the_answer(options: dict[str, Any], onnx_model: Path, batch: dict) -> None:
    expected = OnnxRuntime().load(onnx_model).run(batch)["last_hidden_state"]
    answer = OnnxRuntime().load(onnx_model, threads=2, options=options).run(batch)["last_hidden_state"]
    assert np.allclose(answer, expected, atol=1e-4)


def test_a_misspelt_option_names_the_right_one(onnx_model: Path) -> None:
    with pytest.raises(SpecError, match=r"did you mean 'spinning'\?"):
        OnnxRuntime().load(onnx_model, options={"spining": True})
    with pytest.raises(SpecError, match="bool"):
        OnnxRuntime().load(onnx_model, options={"spinning": "often"})


def test_a_classifier_that_answers_with_maps_is_of_another_kind(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        "classifier",
        [helper.make_tensor_value_info("scores", kinds.FLOAT, ["n", 2])],
        [
            helper.make_value_info(
                "maps",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(kinds.INT64, helper.make_tensor_type_proto(kinds.FLOAT, []))
                ),
            )
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "maps.onnx")
    with pytest.raises(ModelKindError, match="zipmap=False"):
        OnnxRuntime().load(tmp_path / "maps.onnx")


def test_text_tensors_go_in_and_out(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Identity", ["text"], ["same"])],
        "echo",
        [helper.make_tensor_value_info("text", kinds.STRING, ["n"])],
        [helper.make_tensor_value_info("same", kinds.STRING, ["n"])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "echo.onnx"
    )
    session = OnnxRuntime().load(tmp_path / "echo.onnx")
    session.warm_up()
    assert session.run({"text": np.array(["grüße", "a"])})["same"].tolist() == ["grüße", "a"]


def test_a_model_that_wants_a_multiple_of_32_can_be_warmed_up(tmp_path: Path) -> None:
    """A reshape to blocks of 32 refuses most sizes, as image models do."""
    path = _blocks_of(32, tmp_path)
    session = OnnxRuntime().load(path)
    session.warm_up()
    with pytest.raises(ModelError):
        session.run({"x": np.zeros((1, 33), dtype=np.float32)})


def test_a_model_that_refuses_every_size_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="made-up input"):
        OnnxRuntime().load(_blocks_of(1000, tmp_path)).warm_up()


def _blocks_of(size: int, folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "blocks",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["n", "width"])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["n", "blocks", size])],
        [onnx.numpy_helper.from_array(np.array([0, -1, size], dtype=np.int64), "shape")],
    )
    path = folder / "blocks.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_library_imported_with_its_telemetry_on_is_warned_of() -> None:
    """In a fresh process under the library's own switch, so that nothing is sent by this test either."""
    code = """
import logging, os, sys, types
import skerry  # which would have switched it off in time
logging.basicConfig(level=logging.WARNING)
os.environ.pop("ORT_DISABLE_TELEMETRY")
sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")  # stands for one that somebody imported before
from skerry.runtimes.onnxruntime import import_onnxruntime
import_onnxruntime()
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "telemetry" in done.stderr


def test_importing_again_warns_no_more(caplog: pytest.LogCaptureFixture, onnx_model: Path) -> None:
    OnnxRuntime().load(onnx_model)
    with caplog.at_level(logging.WARNING):
        OnnxRuntime().load(onnx_model)
    assert not caplog.records
