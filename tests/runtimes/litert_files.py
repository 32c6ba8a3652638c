"""LiteRT files made by hand: a small real encoder, written as the FlatBuffer that a converter would write.

``ai-edge-litert`` ships the classes of its file format, so that no converter is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Graph:
    """One subgraph that is being built."""

    def __init__(self, model: Any, schema: Any, name: str) -> None:
        self.schema = schema
        self.model = model
        self.subgraph = schema.SubGraphT()
        self.subgraph.name, self.subgraph.tensors, self.subgraph.operators = name, [], []
        model.subgraphs.append(self.subgraph)

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str = "FLOAT32", *, buffer: int = 0, open_shape: Any = None
    ) -> int:
        """Add a tensor and return its number; buffer 0 is the empty one of what is computed."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.buffer = name, buffer
        tensor.shape, tensor.type = np.array(shape, dtype=np.int32), getattr(self.schema.TensorType, dtype)
        if open_shape is not None:
            tensor.shapeSignature = np.array(open_shape, dtype=np.int32)
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def operator(self, name: str, inputs: Sequence[int], output: int, options: Any = None, *, custom: str = "") -> int:
        """Add an operator and return the tensor that it computes."""
        schema = self.schema
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        code.customCode = custom or None
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs = np.array(inputs, dtype=np.int32)
        operator.outputs = np.array([output], dtype=np.int32)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, kind), options
        self.subgraph.operators.append(operator)
        return output


def _buffer(model: Any, schema: Any, array: np.ndarray) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(array.tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _signature(model: Any, schema: Any, key: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    def mapped(tensors: dict[str, int]) -> list[Any]:
        entries = []
        for name, place in tensors.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, place
            entries.append(entry)
        return entries

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key, len(model.subgraphs) - 1
    signature.inputs, signature.outputs = mapped(inputs), mapped(outputs)
    model.signatureDefs.append(signature)


def build_litert_encoder(
    path: Path,
    shapes: Sequence[tuple[int, int]] = ((1, 8), (1, 16)),
    *,
    vocabulary: int = 4096,
    dimension: int = 512,
    layers: int = 1,
    dtype: str = "INT64",
    named: bool = True,
    dynamic: bool = False,
    custom: str = "",
    table: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Path:
    """Write embedding look-up, dense layers, masking and a masked mean over tokens, once for each (rows, tokens).

    The answers are ``last_hidden_state`` (rows, tokens, dimension) and ``sentence_embedding`` (rows, dimension), on
    which neither padding nor other rows have an influence.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    random = np.random.default_rng(0)
    model = schema.ModelT()
    model.version, model.description = 3, "a test's encoder"
    model.buffers, model.operatorCodes, model.subgraphs, model.signatureDefs = [schema.BufferT()], [], [], []
    if table is None:
        table = random.standard_normal((vocabulary, dimension)).astype(np.float32)
    places = {"table": _buffer(model, schema, table), "last": _buffer(model, schema, np.array([-1], dtype=np.int32))}
    places["tokens"] = _buffer(model, schema, np.array([1], dtype=np.int32))
    places["one"] = _buffer(model, schema, np.array([1], dtype=np.float32))
    for layer in range(layers):
        dense = (random.standard_normal((dimension, dimension)) / dimension**0.5).astype(np.float32)
        places[f"dense_{layer}"] = _buffer(model, schema, dense if weights is None else weights.T.copy())
    for rows, tokens in shapes:
        graph = Graph(model, schema, f"encode_{rows}_{tokens}")
        inputs, outputs = _encoder(graph, places, rows, tokens, table.shape, layers, dtype, dynamic, custom)
        if named:
            _signature(model, schema, f"encode_{rows}_{tokens}", inputs, outputs)
    builder = flatbuffers.Builder(table.nbytes)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _encoder(
    graph: Graph,
    places: dict[str, int],
    rows: int,
    tokens: int,
    table: tuple[int, ...],
    layers: int,
    dtype: str,
    dynamic: bool,
    custom: str,
) -> tuple[dict[str, int], dict[str, int]]:
    """Build the graph of one shape and return the numbers of its inputs and outputs by name."""
    schema, dimension = graph.schema, table[1]
    opened = {"open_shape": (-1, -1)} if dynamic else {}
    ids = graph.tensor("input_ids", (rows, tokens), dtype, **opened)
    mask = graph.tensor("attention_mask", (rows, tokens), dtype, **opened)
    words = graph.tensor("table", table, buffer=places["table"])
    hidden = graph.tensor("embedded", (rows, tokens, dimension))
    graph.operator("GATHER", [words, ids], hidden, schema.GatherOptionsT())
    for layer in range(layers):
        weights = graph.tensor(f"dense_{layer}", (dimension, dimension), buffer=places[f"dense_{layer}"])
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        mixed = graph.tensor(f"mixed_{layer}", (rows, tokens, dimension))
        hidden = graph.operator("FULLY_CONNECTED", [hidden, weights, -1], mixed, options)
    if custom:
        hidden = graph.operator(
            "CUSTOM", [hidden], graph.tensor("customised", (rows, tokens, dimension)), custom=custom
        )
    seen = graph.operator("CAST", [mask], graph.tensor("seen", (rows, tokens)), schema.CastOptionsT())
    last = graph.tensor("last", (1,), "INT32", buffer=places["last"])
    column = graph.operator(
        "EXPAND_DIMS", [seen, last], graph.tensor("column", (rows, tokens, 1)), schema.ExpandDimsOptionsT()
    )
    opened = {"open_shape": (-1, -1, dimension)} if dynamic else {}
    masked = graph.tensor("last_hidden_state", (rows, tokens, dimension), **opened)
    graph.operator("MUL", [hidden, column], masked, schema.MulOptionsT())
    sentence = _masked_mean(graph, places, rows, dimension, masked, seen, dynamic)
    graph.subgraph.inputs = np.array([ids, mask], dtype=np.int32)
    graph.subgraph.outputs = np.array([masked, sentence], dtype=np.int32)
    return (
        {"input_ids": ids, "attention_mask": mask},
        {"last_hidden_state": masked, "sentence_embedding": sentence},
    )


def _masked_mean(
    graph: Graph, places: dict[str, int], rows: int, dimension: int, masked: int, seen: int, dynamic: bool
) -> int:
    schema = graph.schema
    axis = graph.tensor("tokens", (1,), "INT32", buffer=places["tokens"])
    total = graph.tensor("total", (rows, dimension))
    graph.operator("SUM", [masked, axis], total, schema.ReducerOptionsT())
    keeping = schema.ReducerOptionsT()
    keeping.keepDims = True
    count = graph.operator("SUM", [seen, axis], graph.tensor("count", (rows, 1)), keeping)
    one = graph.tensor("one", (1,), buffer=places["one"])
    at_least = graph.operator(
        "MAXIMUM", [count, one], graph.tensor("at_least", (rows, 1)), schema.MaximumMinimumOptionsT()
    )
    opened = {"open_shape": (-1, dimension)} if dynamic else {}
    sentence = graph.tensor("sentence_embedding", (rows, dimension), **opened)
    return graph.operator("DIV", [total, at_least], sentence, schema.DivOptionsT())
