"""TensorFlow's models, made and converted by a real TensorFlow, where its toolchain is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skerry.build import toolchain
from skerry.build.conversation import CONVERTERS
from skerry.build.parity import read_cases, require_same
from skerry.build.progress import Progress
from skerry.build.technique import Workbench
from skerry.build.techniques.export_onnx import ExportOnnx
from skerry.runtimes.onnxruntime import OnnxRuntime

from .test_importing import artifact_of, origin_of

SCRIPT = '''
"""Makes models and converts all but one of them, since starting TensorFlow takes longer than everything else."""
import sys
from pathlib import Path

def convert(request, talk):
    sys.path.insert(0, request["converters"])
    import keras, tensorflow as tf
    import onnx_from_tensorflow as converter

    folder = Path(request["folder"])
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Sequential([
        keras.Input((16, 16, 3), name="image"), layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        layers.BatchNormalization(), layers.DepthwiseConv2D(3, padding="same", activation="relu6"),
        layers.GlobalAveragePooling2D(), layers.Dense(5, name="scores"),
    ])
    image.save(folder / "image.keras")
    image.save(folder / "image.h5")
    image.export(str(folder / "saved"), verbose=False)
    ids, extra = keras.Input((None,), dtype="int32", name="ids"), keras.Input((4,), name="extra")
    hidden = layers.Concatenate()([layers.GRU(8)(layers.Embedding(50, 8)(ids)), extra])
    keras.Model([ids, extra], [layers.Dense(3, name="a")(hidden), layers.Dense(2, name="b")(hidden)]).save(
        folder / "two.keras")
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.keras")
    (folder / "cut.keras").write_bytes((folder / "image.keras").read_bytes()[:2000])

    class Pair(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(tf.ones((6, 4)))

        @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.float32, name="features")])
        def one(self, features):
            return {"y": features @ self.weight}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="words")])
        def words(self, words):
            return {"length": tf.strings.length(words)}

    pair = Pair()
    tf.saved_model.save(pair, str(folder / "pair"), signatures={"one": pair.one, "words": pair.words})
    told = {}
    for name, signature in request["wanted"]:
        stem = (name + signature).replace(".", "_")
        asked = {"model": str(folder / name), "target": str(folder / f"{stem}.onnx"),
                 "cases": str(folder / f"{stem}.npz"), "signature": signature}
        try:
            told[stem] = converter.convert(asked, talk)
        except Exception as refusal:
            told[stem] = getattr(refusal, "told", None) or {"kind": "failure", "message": repr(refusal)}
    return told
'''

WANTED = [
    ("image.keras", ""), ("image.h5", ""), ("two.keras", ""), ("lambda.keras", ""), ("cut.keras", ""),
    ("pair", ""), ("pair", "one"), ("pair", "words"), ("pair", "tow"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder of models, and what became of each."""
    if toolchain.find("tensorflow") is None:
        pytest.skip("the toolchain tensorflow is not installed: skerry toolchain install tensorflow")
    folder = tmp_path_factory.mktemp("tensorflow")
    script = folder / "make.py"
    script.write_text(SCRIPT)
    request = {"folder": str(folder), "converters": str(CONVERTERS), "wanted": WANTED}
    return folder, toolchain.run("tensorflow", script, request)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("image_keras", ["image"], ["scores"]),
        ("image_h5", ["image"], ["scores"]),
        ("two_keras", ["ids", "extra"], ["a", "b"]),
        ("pairone", ["features"], ["y"]),
    ],
)
def test_onnx_answers_as_tensorflow_does(
    name: str, inputs: list[str], outputs: list[str], made: tuple[Path, dict]
) -> None:
    folder, told = made
    assert (told[name]["inputs"], told[name]["outputs"]) == (inputs, outputs)
    assert require_same(folder / f"{name}.onnx", read_cases(folder / f"{name}.npz")) > 0.9999
    session = OnnxRuntime().load(folder / f"{name}.onnx")
    assert all(spec.shape[0] == "batch" for spec in session.describe().inputs)
    session.close()


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("lambda_keras", "kind", "Lambda"),
        ("cut_keras", "corrupt", "cannot be read"),
        ("pair", "option", "several signatures"),
        ("pairtow", "option", "no signature 'tow'"),
        ("pairwords", "kind", "takes words as string"),
    ],
)
def test_what_cannot_be_converted_is_told(name: str, kind: str, match: str, made: tuple[Path, dict]) -> None:
    folder, told = made
    assert told[name]["kind"] == kind and match in told[name]["message"]
    assert not (folder / f"{name}.onnx").exists()


def test_a_saved_model_is_exported_by_the_technique(made: tuple[Path, dict], tmp_path: Path) -> None:
    """From the folder to a graph that is checked, as a search does it."""
    found = origin_of(made[0] / "saved", task="tensors")
    graph = ExportOnnx().apply(artifact_of(found), {}, Workbench(texts=(), progress=Progress(None)), tmp_path)
    session = OnnxRuntime().load(graph.path)
    assert session.run({"image": np.zeros((4, 16, 16, 3), dtype=np.float32)})["output_0"].shape == (4, 5)
    session.close()
