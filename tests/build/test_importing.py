"""Where models come from, what each becomes, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.build.artifact import FOLDERS, Artifact
from skerry.build.export import export_transformer, normalize_onnx
from skerry.build.importing import Origin, find_origin
from skerry.build.parity import Case, likeness, require_same
from skerry.build.progress import Progress
from skerry.build.technique import Workbench
from skerry.build.techniques.export_onnx import ExportOnnx
from skerry.build.weights import find_weights
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelCorruptError, ModelKindError, ModelMissingError, SpecError
from skerry.spec.pipeline import Model

from .conftest import write_tokenizer


def origin_of(path: Path, **settings: Any) -> Origin:
    return find_origin(Model(from_=str(path), **settings), path.parent)


def write_onnx(path: Path, operator: str = "MatMul", domain: str = "") -> Path:
    """Write a graph of one operator on pixels."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'skerry[build]'")
    from onnx import TensorProto, helper

    path.parent.mkdir(exist_ok=True)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.5] * 6)
    graph = helper.make_graph(
        [helper.make_node(operator, ["pixels", "w"], ["out"], domain=domain)], "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 2])], [weights],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), str(path))
    return path


class TestFiles:
    def test_onnx_with_a_tokenizer_is_a_text_encoder_and_without_one_a_model_of_tensors(self, tmp_path: Path) -> None:
        path = write_onnx(tmp_path / "model.onnx")
        found = origin_of(path, task="tensors")
        assert (found.kind, found.tokenizer, found.part, found.pooling) == ("onnx", None, "", "none")
        with pytest.raises(ModelMissingError, match=r"(?s)no tokenizer\.json.*`task: tensors` needs none"):
            origin_of(path)
        write_tokenizer(tmp_path)
        assert origin_of(path).tokenizer == tmp_path / "tokenizer.json"

    def test_weights_beside_an_onnx_file_count(self, tmp_path: Path) -> None:
        path = write_onnx(tmp_path / "model.onnx")
        before = origin_of(path, task="tensors").digest
        (tmp_path / "model.onnx_data").write_bytes(b"numbers")
        assert origin_of(path, task="tensors").digest != before

    def test_litert_is_taken_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "model.tflite"
        path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
        assert origin_of(path, task="tensors").kind == "litert"
        write_tokenizer(tmp_path)
        found = origin_of(path)
        assert (found.kind, found.tokenizer, found.pooling) == ("litert", tmp_path / "tokenizer.json", "mean")

    def test_saved_models_and_keras_files_take_tensors(self, tmp_path: Path) -> None:
        saved = tmp_path / "saved"
        (saved / "variables").mkdir(parents=True)
        (saved / "saved_model.pb").write_bytes(b"graph")
        (saved / "variables" / "variables.index").write_bytes(b"index")
        found = origin_of(saved, task="tensors", part="serving_default")
        assert (found.kind, found.part, len(found.files)) == ("saved-model", "serving_default", 2)
        with pytest.raises(ModelKindError, match="task: tensors"):
            origin_of(saved)
        legacy = tmp_path / "model.h5"
        legacy.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
        assert origin_of(legacy, task="tensors").kind == "keras"

    def test_a_file_has_no_parts(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="no parts"):
            origin_of(write_onnx(tmp_path / "model.onnx"), task="tensors", part="encoder")

    def test_other_files_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
        with pytest.raises(ModelKindError, match="GGUF"):
            origin_of(tmp_path / "model.gguf", task="tensors")
        (tmp_path / "model.bin").write_bytes(b"\x80\x02}q\x00.")
        with pytest.raises(ModelKindError, match=r"(?s)a Python pickle.*any code"):
            origin_of(tmp_path / "model.bin", task="tensors")

    def test_an_operator_that_no_runtime_has(self, tmp_path: Path) -> None:
        """The file is whole, and nothing that runs it is at hand: said by name, before anything is built of it."""
        path = write_onnx(tmp_path / "model.onnx", "Sparkle", "com.example")
        with pytest.raises(ModelKindError, match=r"com\.example.*Sparkle"):
            normalize_onnx(origin_of(path, task="tensors"), tmp_path / "out.onnx")
        assert not (tmp_path / "out.onnx").exists()
        with pytest.raises(ModelKindError):
            OnnxRuntime().load(path)


class TestWeights:
    def test_pickles_are_refused_unless_asked_for(self, tmp_path: Path, bert: Path) -> None:
        import torch
        from safetensors.torch import load_file

        model = tmp_path / "model"
        shutil.copytree(bert, model)
        torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
        assert origin_of(model).files[0].name == "model.safetensors"
        (model / "model.safetensors").unlink()
        with pytest.raises(ModelKindError, match=r"(?s)pickled.*runs whatever code its author put.*allow_pickle: true"):
            origin_of(model)
        found = origin_of(model, allow_pickle=True)
        assert found.files[0].name == "pytorch_model.bin"
        export_transformer(found, "embedding", tmp_path / "model.onnx")
        assert (tmp_path / "model.onnx").stat().st_size > 10_000

    def test_a_pickle_that_runs_code_is_not_run_even_when_asked_for(self, tmp_path: Path, bert: Path) -> None:
        """PyTorch's own reader of weights takes tensors only."""
        import pickle

        class Harm:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "was-here",)

        model = tmp_path / "model"
        shutil.copytree(bert, model)
        (model / "model.safetensors").unlink()
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Harm()))
        with pytest.raises(ModelCorruptError, match="weights cannot be read"):
            export_transformer(origin_of(model, allow_pickle=True), "embedding", tmp_path / "model.onnx")
        assert not (tmp_path / "was-here").exists()

    @pytest.mark.parametrize(
        ("damage", "match"),
        [
            (lambda whole: whole[:-1], "cut short"),
            (lambda whole: whole[: len(whole) // 2], "cut short"),
            (lambda whole: whole[:20], "header is damaged"),
            (lambda whole: whole + b"\x00", "overlong"),
            (lambda whole: b"", "header is damaged"),
        ],
    )
    def test_safetensors_that_are_not_whole(self, damage: Any, match: str, tmp_path: Path, bert: Path) -> None:
        whole = (bert / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(damage(whole))
        with pytest.raises(ModelCorruptError, match=f"weights cannot be read: .*{match}"):
            find_weights(tmp_path)

    def test_weights_in_parts(self, tmp_path: Path, bert: Path) -> None:
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
        shutil.copy(bert / "model.safetensors", tmp_path / "one.safetensors")
        with pytest.raises(ModelMissingError, match=r"two\.safetensors: a part of the weights is missing"):
            find_weights(tmp_path)
        shutil.copy(bert / "model.safetensors", tmp_path / "two.safetensors")
        assert [path.name for path in find_weights(tmp_path)] == [index.name, "one.safetensors", "two.safetensors"]
        index.write_text('{"weights": 1}')
        with pytest.raises(ModelCorruptError, match="damaged"):
            find_weights(tmp_path)

    def test_only_the_weights_of_the_part_have_to_be_there(self, tmp_path: Path) -> None:
        """A file that holds an encoder alone is enough for the encoder, and not for the decoder."""
        transformers = pytest.importorskip("transformers")
        small = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
        transformers.T5EncoderModel(transformers.T5Config(**small)).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text()) | {"is_encoder_decoder": True}
        config["architectures"] = ["T5Model"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        export_transformer(origin_of(tmp_path, task="tensors", part="encoder"), "tensors", tmp_path / "e.onnx")
        with pytest.raises(ModelCorruptError, match="weights lack decoder"):
            export_transformer(origin_of(tmp_path, task="tensors", part="decoder"), "tensors", tmp_path / "d.onnx")


class TestHub:
    def test_without_a_network_it_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelMissingError, match=r"(?s)cannot be fetched.*the network, or fetch it elsewhere"):
            find_origin(Model(from_="hf://nobody/nothing"), tmp_path)

    def test_what_the_hub_gives_is_taken_and_pickles_only_when_asked_for(
        self, tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The hub's real loader on its real cache: a repository that was fetched before needs no network."""
        hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "hub" / "models--owner--tiny"
        shutil.copytree(bert, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub._snapshot_download.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        found = find_origin(Model(from_="hf://owner/tiny"), tmp_path)
        assert found.path == repository / "snapshots" / commit
        assert found.architecture == "bert"


class TestParity:
    def test_a_graph_that_answers_otherwise_is_refused(self, tmp_path: Path) -> None:
        path = write_onnx(tmp_path / "model.onnx")
        pixels = np.arange(6, dtype=np.float32).reshape(2, 3)
        right = pixels @ np.full((3, 2), 0.5, dtype=np.float32)
        assert require_same(path, [Case(inputs={"pixels": pixels}, outputs={"out": right})]) > 0.9999
        for wrong in (right * 1.1, right[:1], right * np.nan, right + np.float32([[0, 1]])):
            with pytest.raises(ModelKindError, match="does not answer as the model does"):
                require_same(path, [Case(inputs={"pixels": pixels}, outputs={"out": wrong})])

    def test_likeness(self) -> None:
        rows = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
        other = rows.copy()
        other[1, 2] = -other[1, 2]
        assert likeness(rows, rows) == pytest.approx(1)
        assert likeness(rows, other) == pytest.approx(-1)
        assert likeness(rows, other, np.array([[1, 1, 1], [1, 1, 0]])) == pytest.approx(1)
        whole = np.array([[1, 2]])
        assert (likeness(whole, whole), likeness(whole, whole + 1)) == (1, 0)
        nothing = np.zeros((2, 2), dtype=np.float32)
        assert likeness(nothing, nothing) == 1


class TestProgram:
    """``torch.export`` programs; converted where the toolchain is installed."""

    def write(self, folder: Path) -> Path:
        torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'skerry[build]'")

        class Net(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.table, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 4)

            def forward(self, ids: Any, scale: Any) -> dict[str, Any]:
                hidden = self.table(ids) * scale[:, None, :]
                return {"scores": self.head(hidden).softmax(-1), "mean": hidden.mean(1)}

        torch.manual_seed(0)
        batch, tokens = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("tokens", min=1, max=128)
        program = torch.export.export(
            Net().eval(), (torch.randint(0, 50, (2, 7)), torch.randn(2, 16)),
            dynamic_shapes=({0: batch, 1: tokens}, {0: batch}),
        )  # fmt: skip
        torch.export.save(program, folder / "net.pt2")
        return folder / "net.pt2"

    def test_it_is_refused_unless_asked_for(self, tmp_path: Path) -> None:
        path = self.write(tmp_path)
        with pytest.raises(ModelKindError, match=r"(?s)may hold pickles.*allow_pickle"):
            origin_of(path, task="tensors")
        assert origin_of(path, task="tensors", allow_pickle=True).kind == "torch-program"

    def test_it_becomes_onnx(self, tmp_path: Path) -> None:
        from skerry.build import toolchain

        if toolchain.find("torch") is None:
            pytest.skip("the toolchain torch is not installed: skerry toolchain install torch")
        found = origin_of(self.write(tmp_path), task="tensors", allow_pickle=True)
        made = ExportOnnx().apply(artifact_of(found), {}, Workbench(texts=(), progress=Progress(None)), tmp_path)
        session = OnnxRuntime().load(made.path)
        info = session.describe()
        assert {spec.name: spec.shape for spec in info.inputs} == {"ids": ("batch", "ids_1"), "scale": ("batch", 16)}
        answer = session.run({"ids": np.ones((3, 5), dtype=np.int64), "scale": np.ones((3, 16), dtype=np.float32)})
        assert (answer["scores"].shape, answer["mean"].shape) == ((3, 5, 4), (3, 16))
        session.close()

    def test_one_that_is_cut_short(self, tmp_path: Path) -> None:
        from skerry.build import toolchain

        if toolchain.find("torch") is None:
            pytest.skip("the toolchain torch is not installed: skerry toolchain install torch")
        path = self.write(tmp_path)
        path.write_bytes(path.read_bytes()[:-200])
        found = origin_of(path, task="tensors", allow_pickle=True)
        with pytest.raises(ModelCorruptError, match="program cannot be read"):
            ExportOnnx().apply(artifact_of(found), {}, Workbench(texts=(), progress=Progress(None)), tmp_path)
        assert not (tmp_path / "model.onnx").exists()


def artifact_of(origin: Origin) -> Artifact:
    assert origin.kind != "null"
    folder = origin.path if origin.kind in FOLDERS else origin.path.parent
    return Artifact(
        form=origin.kind, folder=folder, file=origin.path.name, source=origin.digest, part=origin.part, task="tensors",
        files=tuple(path.relative_to(folder).as_posix() for path in origin.files),
    )  # fmt: skip
