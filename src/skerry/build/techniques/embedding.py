"""An embedding: a table of which each token reads one row, held in 8 or 4 bits and brought back row by row."""

from __future__ import annotations

from typing import Any, Literal

from skerry.build.techniques.graph import CONTRIBUTED, Graph
from skerry.build.techniques.integers import by_block, by_row

Width = Literal["fp32", "int8", "int4"]
"""How the numbers of tables are held."""

BLOCK = 32
"""Numbers of a row that share a scale in 4 bits."""


def round_tables(graph: Graph, width: Width) -> None:
    """Round every table of the graph in place; only the largest takes 4 bits, the small ones 8.

    A table that something else reads too, as the output layer of a model with tied weights, is left as it is.
    Int8 rows are gathered and multiplied by their scales with plain operators. For 4 bits the operator is ONNX
    Runtime's ``GatherBlockQuantized`` on bytes: the standard's 4-bit types would need opset 21, in which other
    operators changed their inputs.
    """
    if width == "fp32":
        return
    users = graph.users()
    tables = [node for node in graph.tables() if all(user.op_type == "Gather" for user in users[node.input[0]])]
    largest = max((graph.array(node.input[0]).size for node in tables), default=0)
    instead = {}
    for node in tables:
        table = graph.array(node.input[0])
        if width == "int4" and table.size == largest and table.shape[1] % BLOCK == 0:
            instead[node.name] = _four_bits(graph, node)
        else:
            instead[node.name] = _eight_bits(graph, node)
    graph.replace(instead)


def _eight_bits(graph: Graph, node: Any) -> list[Any]:
    table, name = node.input[0], node.output[0]
    rounded = by_row(graph.array(table))
    integers = graph.put(f"{table}_int8", rounded.integers)
    scales = graph.put(f"{table}_scales", rounded.scales[:, None])
    return [
        graph.node("Gather", [integers, node.input[1]], [f"{name}_integers"]),
        graph.node("Gather", [scales, node.input[1]], [f"{name}_scales"]),
        graph.node("Cast", [f"{name}_integers"], [f"{name}_cast"], to=graph.onnx.TensorProto.FLOAT),
        graph.node("Mul", [f"{name}_cast", f"{name}_scales"], node.output, name=node.name),
    ]


def _four_bits(graph: Graph, node: Any) -> list[Any]:
    table = node.input[0]
    rounded = by_block(graph.array(table), 4, BLOCK)
    rows = rounded.integers.shape[0]
    integers = graph.put(f"{table}_int4", rounded.integers.reshape(rows, -1))
    scales = graph.put(f"{table}_scales4", rounded.scales)
    graph.use_contributed()
    return [
        graph.node(
            "GatherBlockQuantized", [integers, node.input[1], scales], node.output, name=node.name,
            domain=CONTRIBUTED, bits=4, block_size=BLOCK, gather_axis=0, quantize_axis=1,
        )
    ]  # fmt: skip
