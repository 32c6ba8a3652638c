"""LiteRT: what the contract leaves open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skerry.run.encoder import Encoder
from skerry.run.tokens import HashedTokens
from skerry.runtimes.litert import LiteRtRuntime
from skerry.runtimes.litert_engines import keeps_files_in_memory
from skerry.spec.errors import ModelCorruptError, ModelError, ModelKindError, SpecError, TensorError
from skerry.spec.manifest import ModelManifest
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import TensorSpec
from tests.runtimes.litert_files import build_litert_encoder

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: pip install 'skerry[litert]'")

SMALL = {"vocabulary": 64, "dimension": 16}
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "compiled"])


def _inputs(*lengths: int, longest: int | None = None, dtype: str = "int64") -> dict[str, np.ndarray]:
    mask = np.array([[1] * n + [0] * ((longest or max(lengths)) - n) for n in lengths], dtype=dtype)
    ids = (np.arange(mask.size).reshape(mask.shape) % 63 + 1) * mask
    return {"input_ids": ids.astype(dtype), "attention_mask": mask}


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = [(1, 4), (1, 8), (1, 16)]
    return build_litert_encoder(tmp_path_factory.mktemp("litert") / "lengths.tflite", shapes, **SMALL)


def test_it_is_found_through_the_plugin_door() -> None:
    assert load_plugin("skerry.runtimes", "litert") is LiteRtRuntime


def test_several_lengths_are_described_as_one_model(lengths: Path) -> None:
    info = LiteRtRuntime().load(lengths).describe()
    assert info.inputs[0] == TensorSpec("input_ids", "int64", ("batch", "length"))
    assert info.outputs == (
        TensorSpec("last_hidden_state", "float32", ("batch", "length", 16)),
        TensorSpec("sentence_embedding", "float32", ("batch", 16)),
    )


@ENGINES
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 8, 9, 16])
def test_the_answer_is_that_of_the_graph_whatever_the_padding(
    engine: str, tokens: int, tmp_path: Path, lengths: Path
) -> None:
    random = np.random.default_rng(3)
    table = random.standard_normal((64, 16)).astype(np.float32)
    weights = random.standard_normal((16, 16)).astype(np.float32)
    path = build_litert_encoder(tmp_path / "known.tflite", [(1, 4), (1, 8), (1, 16)], table=table, weights=weights)
    inputs = _inputs(tokens, max(1, tokens - 2))
    answers = LiteRtRuntime().load(path, options={"engine": engine}).run(inputs)
    expected = table[inputs["input_ids"]] @ weights * inputs["attention_mask"][..., None]
    assert answers["last_hidden_state"].shape == (2, tokens, 16)
    assert np.allclose(answers["last_hidden_state"], expected, atol=1e-4)
    mean = expected.sum(axis=1) / inputs["attention_mask"].sum(axis=1, keepdims=True)
    assert np.allclose(answers["sentence_embedding"], mean, atol=1e-4)


@ENGINES
def test_too_long_an_input_tells_the_largest_length(engine: str, lengths: Path) -> None:
    session = LiteRtRuntime().load(lengths, options={"engine": engine})
    with pytest.raises(TensorError, match="length = 17") as caught:
        session.run(_inputs(17))
    assert "16" in caught.value.expected
    assert session.run(_inputs(16))["last_hidden_state"].shape == (1, 16, 16)


@ENGINES
@pytest.mark.parametrize("dtype", ["INT32", "INT64"])
def test_the_dtype_of_the_file_is_kept(engine: str, dtype: str, tmp_path: Path) -> None:
    path = build_litert_encoder(tmp_path / "typed.tflite", dtype=dtype, **SMALL)
    session = LiteRtRuntime().load(path, options={"engine": engine})
    assert session.describe().inputs[0].dtype == dtype.lower()
    assert session.run(_inputs(5, 3, dtype=dtype.lower()))["sentence_embedding"].shape == (2, 16)


def test_batches_of_the_file_are_used(tmp_path: Path) -> None:
    path = build_litert_encoder(tmp_path / "rows.tflite", [(1, 8), (4, 8), (1, 16)], **SMALL)
    session = LiteRtRuntime().load(path)
    inputs = _inputs(5, 3, 8, 1, 2, 7, 4)
    together = session.run(inputs)["sentence_embedding"]
    alone = [session.run({name: array[row : row + 1] for name, array in inputs.items()}) for row in range(7)]
    assert np.allclose(together, np.concatenate([answer["sentence_embedding"] for answer in alone]), atol=1e-5)


def test_an_open_shape_takes_any_length_without_padding(tmp_path: Path) -> None:
    path = build_litert_encoder(tmp_path / "open.tflite", [(1, 1)], dynamic=True, **SMALL)
    session = LiteRtRuntime().load(path)
    assert session.describe().inputs[0].shape == ("batch", "input_ids.1")
    for tokens in (3, 70, 1):
        assert session.run(_inputs(tokens, tokens))["last_hidden_state"].shape == (2, tokens, 16)


def test_an_encoder_runs_on_several_lengths(tmp_path: Path) -> None:
    """Through the encoder of pipelines: a text's vector does not depend on those beside it, nor on their lengths."""
    path = build_litert_encoder(tmp_path / "words.tflite", [(1, 4), (1, 8), (1, 16)], vocabulary=31_000, dimension=8)
    manifest = ModelManifest(source="a test", task="embedding", dimension=8, max_tokens=16)
    encoder = Encoder(manifest, LiteRtRuntime().load(path), HashedTokens(16))
    encoder.warm_up()
    texts = ["short", "a text of some more words than that", "", "word " * 40, "and another one"]
    together = encoder.embed(texts)
    assert together.shape == (5, 8)
    for text, vector in zip(texts, together, strict=True):
        assert np.allclose(encoder.embed([text])[0], vector, atol=1e-5)
    raw = encoder.infer(texts)["last_hidden_state"]
    assert [answer.shape[0] for answer in raw] == [len(HashedTokens(16).one(text)) for text in texts]


def test_a_file_without_signatures_has_the_names_of_its_tensors(tmp_path: Path) -> None:
    session = LiteRtRuntime().load(build_litert_encoder(tmp_path / "bare.tflite", [(1, 8)], named=False, **SMALL))
    assert [spec.name for spec in session.describe().inputs] == ["input_ids", "attention_mask"]
    answers = session.run(_inputs(8, 8))
    assert {name: array.shape for name, array in answers.items()} == {
        "last_hidden_state": (2, 8, 16), "sentence_embedding": (2, 16),
    }  # fmt: skip


def test_signatures_can_be_chosen(lengths: Path) -> None:
    session = LiteRtRuntime().load(lengths, options={"signature": "encode_1_8"})
    assert session.describe().inputs[0].shape == ("batch", 8)
    session = LiteRtRuntime().load(lengths, options={"signature": "encode_1_?"})
    with pytest.raises(TensorError, match="more than any"):
        session.run(_inputs(9))
    with pytest.raises(SpecError, match="no signature 'decode'") as caught:
        LiteRtRuntime().load(lengths, options={"signature": "decode"})
    assert "encode_1_16" in caught.value.expected


@pytest.mark.parametrize("options", [{"engine": "gpu"}, {"copies": 0}, {"copys": 2}, {"signature": 3}])
def test_wrong_options_are_refused(options: dict, lengths: Path) -> None:
    with pytest.raises(SpecError):
        LiteRtRuntime().load(lengths, options=options)


def test_the_compiled_engine_refuses_an_open_shape(tmp_path: Path) -> None:
    path = build_litert_encoder(tmp_path / "open.tflite", [(1, 1)], dynamic=True, **SMALL)
    with pytest.raises(ModelKindError, match="fixed shapes"):
        LiteRtRuntime().load(path, options={"engine": "compiled"})


def test_an_operator_that_litert_lacks_is_named(tmp_path: Path) -> None:
    path = build_litert_encoder(tmp_path / "custom.tflite", custom="NotOfThisWorld", **SMALL)
    for engine in ("interpreter", "compiled"):
        with pytest.raises(ModelKindError, match="NotOfThisWorld"):
            LiteRtRuntime().load(path, options={"engine": engine})


def test_damage_within_the_structure_is_told_by_either_engine(lengths: Path, tmp_path: Path) -> None:
    content = bytearray(lengths.read_bytes())
    content[8:200] = bytes(192)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    for engine in ("interpreter", "compiled"):
        with pytest.raises(ModelCorruptError):
            LiteRtRuntime().load(path, options={"engine": engine})


def test_a_closed_session_tells_those_who_wait(lengths: Path) -> None:
    session = LiteRtRuntime().load(lengths, options={"copies": 3})
    session.close()
    for _ in range(3):
        with pytest.raises(ModelError, match="closed"):
            session.warm_up()


def test_prepared_weights_are_kept_once_for_all_lengths(tmp_path: Path) -> None:
    """12 MiB of dense weights behind 4 signatures, in fresh processes: the interpreter prepares them 4 times."""
    if not keeps_files_in_memory():
        pytest.skip("this system has no files in memory")
    path = build_litert_encoder(
        tmp_path / "wide.tflite", [(1, 4), (1, 8), (1, 16), (1, 32)], vocabulary=16, dimension=1024, layers=3
    )
    code = """
import sys
from pathlib import Path
from skerry.runtimes.litert import LiteRtRuntime
session = LiteRtRuntime().load(Path(sys.argv[1]), options={"engine": sys.argv[2]})
session.warm_up()
from skerry.runtimes.memory import resident_bytes
print(resident_bytes())
"""
    resident = {}
    for engine in ("interpreter", "compiled"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), engine], check=True, capture_output=True, text=True, timeout=60
        )
        resident[engine] = int(done.stdout)
    assert resident["compiled"] < resident["interpreter"] - 2 * 12 * 2**20


def test_weights_that_were_prepared_are_not_in_memory_as_the_file_has_them_too(tmp_path: Path) -> None:
    if not keeps_files_in_memory() or not os.access("/proc/self/pagemap", os.R_OK):
        pytest.skip("this system has no files in memory, or no /proc/self/pagemap")
    path = build_litert_encoder(tmp_path / "wide.tflite", vocabulary=16, dimension=1024, layers=3)
    code = """
import sys
from pathlib import Path
from skerry.runtimes.litert import LiteRtRuntime
session = LiteRtRuntime().load(Path(sys.argv[1]))
mapping = ""
for line in Path("/proc/self/smaps").read_text().splitlines():
    key, *values = line.split()
    if not key.endswith(":"):
        mapping = values[-1]
    elif key == "Rss:" and mapping == sys.argv[1]:
        print(values[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, timeout=60
    )
    assert sum(map(int, done.stdout.split())) < 1024 < 12 * 1024 < path.stat().st_size // 1024


def test_nothing_is_written_to_the_terminal_while_it_loads_and_runs(lengths: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from skerry.runtimes.litert import LiteRtRuntime
session = LiteRtRuntime().load(Path(sys.argv[1]), options={"engine": sys.argv[2]})
session.warm_up()
session.close()
os.write(2, b"done")
os._exit(0)
"""
    for engine in ("interpreter", "compiled"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(lengths), engine], check=True, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == "done"


def test_nothing_is_written_to_the_terminal_at_the_end_of_the_process(lengths: Path) -> None:
    code = """
import sys
from pathlib import Path
from skerry.runtimes.litert import LiteRtRuntime
session = LiteRtRuntime().load(Path(sys.argv[1]), options={"engine": "compiled"})
session.warm_up()
print("mine", file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(lengths)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "mine\n"


def test_what_others_write_during_a_load_still_comes_out(lengths: Path) -> None:
    code = """
import os
from skerry.runtimes.litert_engines import listening
said = []
with listening(said):
    os.write(2, b"INFO: [some.cc:1] noise\\nERROR: reason\\nmine\\n")
os.write(2, said[0].encode())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == "mine\nreason"
