"""A graph: an ONNX model on the operating table, with its dense layers and tables by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.artifact import Artifact
from skerry.spec.errors import DependencyError, ModelCorruptError, ModelKindError
from skerry.spec.ports import Array

FILE = "model.onnx"
"""What techniques call the graph that they make."""

CONTRIBUTED = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_LEAST_TABLE = 1024
"""Numbers in a table worth quantizing; smaller ones, as for types of tokens, cost more to scale than they save."""


class Dense(msgspec.Struct, frozen=True):
    """A dense layer: ``output = input @ weight`` with a constant ``weight`` of shape (inputs, outputs)."""

    name: str
    input: str
    weight: str
    output: str


def import_onnx() -> Any:
    """Import the package onnx; raises ``DependencyError`` when it is not installed."""
    try:
        importlib.import_module("onnx.helper")
        importlib.import_module("onnx.numpy_helper")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise DependencyError(
            f"changing an ONNX model needs the package onnx: {error}", hint="pip install 'skerry[build]'"
        ) from error


class Graph:
    """A graph read into memory, with constants made initializers and every node given a name of its own.

    Raises
    ------
    DependencyError
        The package onnx is not installed.
    ModelCorruptError
        The file is no ONNX model.
    """

    def __init__(self, path: Path) -> None:
        self.onnx = import_onnx()
        self.path = path
        try:
            self.model = self.onnx.load(str(path))
        except Exception as error:  # the package lets those of protobuf, its own and OSError through
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelCorruptError(f"this ONNX model is damaged: {reason}", where=str(path)) from error
        self._initializers: dict[str, Any] = {one.name: one for one in self.model.graph.initializer}
        self._take_constants()
        self._skip_identities()
        self._turn_weights()
        self._split_gemm()
        self._name_nodes()

    @property
    def nodes(self) -> list[Any]:
        """The nodes in the order of computing."""
        return list(self.model.graph.node)

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is an initializer."""
        return name in self._initializers

    def array(self, name: str) -> Array:
        """Return an initializer as an array."""
        found: Array = self.onnx.numpy_helper.to_array(self._initializers[name])
        return found

    def put(self, name: str, array: Array) -> str:
        """Add an initializer, or change it; return its name."""
        self._initializers[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def put_half(self, name: str, array: Array, kind: int) -> str:
        """Add an initializer rounded to FLOAT16 or BFLOAT16; return its name."""
        import numpy as np

        if kind == self.onnx.TensorProto.FLOAT16:
            halves = array.astype("<f2")
        else:  # the upper half of a float32, rounded to the nearest even one
            bits = array.view(np.uint32)
            halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        made = self.onnx.helper.make_tensor(name, kind, array.shape, halves.tobytes(), raw=True)
        self._initializers[name] = made
        return name

    def drop(self, name: str) -> None:
        """Forget an initializer that a node computes from now on."""
        del self._initializers[name]

    def large_floats(self, least: int) -> list[str]:
        """Return the names of the float32 initializers that hold at least so many numbers."""
        wanted = self.onnx.TensorProto.FLOAT
        found = self._initializers.items()
        return [name for name, one in found if one.data_type == wanted and self.array(name).size >= least]

    def prepend(self, nodes: Iterable[Any]) -> None:
        """Put nodes before all others."""
        self._set_nodes([*nodes, *self.nodes])

    def fresh_model(self) -> Any:
        """Return the model with the initializers as they are now."""
        self._settle()
        return self.model

    def node(self, kind: str, inputs: Iterable[str], outputs: Iterable[str], name: str = "", **settings: Any) -> Any:
        """Return a new node, not yet in the graph."""
        outputs = list(outputs)
        return self.onnx.helper.make_node(kind, list(inputs), outputs, name=name or f"{outputs[0]}/{kind}", **settings)

    def layers(self) -> list[Dense]:
        """Return the dense layers with float32 weights, in the order of computing."""
        return [
            Dense(node.name, node.input[0], node.input[1], node.output[0])
            for node in self.model.graph.node
            if node.op_type == "MatMul" and self._is_float(node.input[1], 2)
        ]

    def tables(self) -> list[Any]:
        """Return the nodes that look rows up in a constant float32 table of shape (rows, numbers)."""
        return [
            node
            for node in self.model.graph.node
            if node.op_type == "Gather"
            and all(one.name != "axis" or one.i == 0 for one in node.attribute)
            and self._is_float(node.input[0], 2)
            and self._count(node.input[0]) >= _LEAST_TABLE
        ]

    def users(self) -> dict[str, list[Any]]:
        """Return the nodes that read each tensor."""
        found: dict[str, list[Any]] = {}
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    def makers(self) -> dict[str, Any]:
        """Return the node that computes each tensor."""
        return {name: node for node in self.model.graph.node for name in node.output}

    def outputs(self) -> set[str]:
        """Return the names of the graph's outputs."""
        return {one.name for one in self.model.graph.output}

    def replace(self, instead: Mapping[str, Iterable[Any]]) -> None:
        """Put nodes in the place of those named."""
        self._set_nodes(new for node in self.nodes for new in instead.get(node.name, (node,)))

    def insert_after(self, tensors: Mapping[str, Iterable[Any]]) -> None:
        """Put nodes behind the ones that compute the tensors named; before all, for an input of the graph."""
        computed = {name for node in self.nodes for name in node.output}
        first = [new for name, nodes in tensors.items() if name not in computed for new in nodes]
        self._set_nodes([*first, *self._followed(tensors)])

    def use_contributed(self) -> None:
        """Declare that ONNX Runtime's own operators are used."""
        if all(one.domain != CONTRIBUTED for one in self.model.opset_import):
            self.model.opset_import.append(self.onnx.helper.make_opsetid(CONTRIBUTED, 1))

    def save(self, path: Path, watched: Iterable[str] = ()) -> None:
        """Write the graph without initializers that nothing uses, and with the ``watched`` tensors as outputs too.

        Raises ``ModelKindError`` beyond the 2 GB that one file may have.
        """
        graph = self.model.graph
        further = [name for name in watched if name not in self.outputs()]
        self._settle()
        graph.output.extend(self.onnx.helper.make_empty_tensor_value_info(name) for name in further)
        try:
            path.write_bytes(self.model.SerializeToString(deterministic=True))
        except ValueError as error:
            raise ModelKindError(f"the model is too large for one ONNX file: {error}", where=str(self.path)) from error
        finally:
            del graph.output[len(graph.output) - len(further) :]

    def _settle(self) -> None:
        """Give the model the initializers that are used, and none of the kinds of tensors that may be others now."""
        graph = self.model.graph
        used = {name for node in graph.node for name in (*node.input, *_inner_names(node))} | self.outputs()
        del graph.initializer[:]
        graph.initializer.extend(one for name, one in self._initializers.items() if name in used)
        del graph.value_info[:]

    def _followed(self, tensors: Mapping[str, Iterable[Any]]) -> Iterator[Any]:
        for node in self.nodes:
            yield node
            for name in node.output:
                yield from tensors.get(name, ())

    def _set_nodes(self, nodes: Iterable[Any]) -> None:
        kept = list(nodes)
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)

    def _is_float(self, name: str, axes: int) -> bool:
        found = self._initializers.get(name)
        return found is not None and found.data_type == self.onnx.TensorProto.FLOAT and len(found.dims) == axes

    def _count(self, name: str) -> int:
        rows, columns = self._initializers[name].dims
        return int(rows * columns)

    def _take_constants(self) -> None:
        """Make initializers of the nodes that only hold a number."""
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                tensor = node.attribute[0].t
                tensor.name = node.output[0]
                self._initializers[tensor.name] = tensor
                self.model.graph.node.remove(node)

    def _skip_identities(self) -> None:
        """Let those that read a copy of an initializer read itself: exporters share equal weights in this way."""
        needed = self.outputs() | {name for node in self.nodes for name in _inner_names(node)}
        same: dict[str, str] = {}
        for node in self.nodes:
            for place, name in enumerate(node.input):
                node.input[place] = same.get(name, name)
            if node.op_type == "Identity" and self.is_constant(node.input[0]) and node.output[0] not in needed:
                same[node.output[0]] = node.input[0]
                self.model.graph.node.remove(node)

    def _turn_weights(self) -> None:
        """Transpose constant weights now instead of at each run."""
        outputs = self.outputs()
        for node in self.nodes:
            if node.op_type == "Transpose" and self._is_float(node.input[0], 2) and node.output[0] not in outputs:
                turned = next((list(one.ints) for one in node.attribute if one.name == "perm"), [1, 0]) == [1, 0]
                self.put(node.output[0], self.array(node.input[0]).T.copy() if turned else self.array(node.input[0]))
                self.model.graph.node.remove(node)

    def _split_gemm(self) -> None:
        """Make a multiplication and an addition of each ``Gemm`` with constant weights and no factors."""
        nodes: list[Any] = []
        for number, node in enumerate(self.nodes):
            told = {one.name: one.f if one.name in {"alpha", "beta"} else one.i for one in node.attribute}
            plainly = told.get("alpha", 1.0) == 1.0 == told.get("beta", 1.0) and not told.get("transA")
            if node.op_type != "Gemm" or not plainly or not self._is_float(node.input[1], 2):
                nodes.append(node)
                continue
            node.name = node.name or f"Gemm_{number}"
            weight, product = node.input[1], node.output[0]
            if told.get("transB"):
                weight = self.put(f"{weight}_turned", self.array(weight).T.copy())
            parts = []
            if len(node.input) > 2 and node.input[2]:
                product = f"{product}_product"
                parts = [self.node("Add", [product, node.input[2]], node.output, name=f"{node.name}/Add")]
            nodes += [self.node("MatMul", [node.input[0], weight], [product], name=node.name), *parts]
        self._set_nodes(nodes)

    def _name_nodes(self) -> None:
        """Give every node a name of its own; old exporters give none."""
        given = {node.name for node in self.model.graph.node}
        seen: set[str] = set()
        for number, node in enumerate(self.model.graph.node):
            if not node.name or node.name in seen:
                node.name = f"{node.op_type}_{number}"
                while node.name in given or node.name in seen:
                    node.name += "_"
            seen.add(node.name)


def refuses_onnx(artifact: Artifact) -> str:
    """Return why a technique for ONNX files cannot be applied, or an empty text."""
    if artifact.form != "onnx":
        return f"it takes an ONNX model, and this is {artifact.form}"
    earlier = [step.technique for step in artifact.steps if step.technique.startswith("onnx-")]
    return f"the model was quantized by {earlier[0]} already" if earlier else ""


def require_layers(graph: Graph) -> list[Dense]:
    """Return the dense layers; raises ``ModelKindError`` where there is none."""
    layers = graph.layers()
    if not layers:
        raise ModelKindError("the model has no dense layer with float32 weights", where=str(graph.path))
    return layers


def require_names(names: Iterable[str], layers: Iterable[Dense], path: Path) -> frozenset[str]:
    """Return names of layers as a set; raises ``ModelKindError`` for one that no layer has."""
    known = {layer.name for layer in layers}
    wanted = frozenset(names)
    unknown = sorted(wanted - known)
    if unknown:
        raise ModelKindError(f"the model has no layer {unknown[0]!r}", where=str(path))
    return wanted


def _inner_names(node: Any) -> Iterator[str]:
    """Yield what the graphs inside a node (``If``, ``Loop``) read, since they see the initializers outside."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for one in inner.node:
                yield from one.input
                yield from _inner_names(one)
            yield from (one.name for one in inner.output)
