"""Small real models that take arrays, written operator by operator: a network of convolutions, and a small ViT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4
SIDE = 12


def _save(
    path: Path, nodes: list[Any], weights: dict[str, Any], outputs: dict[str, list[Any]], domain: str = ""
) -> None:
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, "model", inputs, given, held)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def _pattern() -> Any:
    """Return what tells the classes apart: one colour's mean in one half of the image."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(8, 3, 3, 3)).astype(np.float32) / 5


def write_cnn(path: Path, *, extra_output: bool = False) -> Path:
    """Write two convolutions and a dense layer; ``features`` come before ``logits`` where there are two outputs."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": _pattern(), "w2": rng.normal(size=(16, 8, 3, 3)).astype(np.float32) / 8,
        "w3": rng.normal(size=(16, CLASSES)).astype(np.float32), "b3": np.zeros(CLASSES, dtype=np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["pixels", "w1"], ["c1"], pads=[1] * 4, name="first"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flat"),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["logits"], name="head"),
    ]
    outputs: dict[str, list[Any]] = {"features": ["batch", 16]} if extra_output else {}
    _save(path, nodes, weights, {**outputs, "logits": ["batch", CLASSES]})
    return path


def write_vit(path: Path, width: int = 16) -> Path:
    """Write patches of 4 by 4, one layer of attention and one feed-forward, and the mean over patches."""
    rng = np.random.default_rng(1)

    def dense(*shape: int) -> Any:
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    weights = {
        "patches": rng.normal(size=(width, 3, 4, 4)).astype(np.float32) / 7, "tokens": np.array([0, width, -1]),
        "wq": dense(width, width), "wk": dense(width, width), "wv": dense(width, width),
        "up": dense(width, 4 * width), "down": dense(4 * width, width), "head": dense(width, CLASSES),
        "scale": np.float32(width**-0.5),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["pixels", "patches"], ["cut"], strides=[4, 4], name="cut"),
        helper.make_node("Reshape", ["cut", "tokens"], ["flat"], name="flat"),
        helper.make_node("Transpose", ["flat"], ["x"], perm=[0, 2, 1], name="turn"),
        *(helper.make_node("MatMul", ["x", f"w{name}"], [name], name=name) for name in "qkv"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1], name="kt"),
        helper.make_node("MatMul", ["q", "kt"], ["raw"], name="scores"),
        helper.make_node("Mul", ["raw", "scale"], ["scaled"], name="scaled"),
        helper.make_node("Softmax", ["scaled"], ["shares"], axis=-1, name="shares"),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"], name="mixed"),
        helper.make_node("Add", ["x", "mixed"], ["y"], name="residual"),
        helper.make_node("MatMul", ["y", "up"], ["wide"], name="up"),
        helper.make_node("Relu", ["wide"], ["active"], name="active"),
        helper.make_node("MatMul", ["active", "down"], ["narrow"], name="down"),
        helper.make_node("Add", ["y", "narrow"], ["z"], name="residual2"),
        helper.make_node("ReduceMean", ["z"], ["mean"], axes=[1], keepdims=0, name="mean"),
        helper.make_node("MatMul", ["mean", "head"], ["logits"], name="head"),
    ]
    _save(path, nodes, weights, {"logits": ["batch", CLASSES]})
    return path


def write_custom(path: Path) -> Path:
    """Write a model with an operator that no runtime knows."""
    nodes = [helper.make_node("Sharpen", ["pixels"], ["logits"], domain="com.example", name="sharpen")]
    _save(path, nodes, {}, {"logits": ["batch", 3, SIDE, SIDE]}, domain="com.example")
    return path


def pixels(count: int, seed: int = 0) -> Any:
    """Return random images, float32 of shape (count, 3, side, side)."""
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


def answers(path: Path, images: Any) -> Any:
    """Return the logits of a model, float32 of shape (images, classes)."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(["logits"], {"pixels": images})[0]
