"""``convert-tensorrt``: an ONNX graph as a TensorRT engine, built on the device that will run it.

An engine fits one kind of GPU and one version of TensorRT. Networks are strongly typed, the only kind that TensorRT 11
has: fp16 therefore comes of a graph in fp16, as ``onnx-fp16`` with ``compute: fp16`` makes it, and not of a flag.

Of the kind ``quantize`` since it starts from an ONNX graph, which came of a conversion already. Written against
TensorRT's documented Python API, versions 10 and 11; nobody has run it on a GPU yet.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from skerry.build.artifact import Artifact, Form
from skerry.build.technique import Kind, Workbench
from skerry.build.techniques.graph import refuses_onnx
from skerry.build.techniques.onnx_fp16 import OnnxHalf
from skerry.build.techniques.settings import Settings, forged, plain, read_settings, require_accepted
from skerry.runtimes.tensorrt import TensorRtRuntime, import_tensorrt
from skerry.spec.errors import DependencyError, ModelKindError

FILE = "model.plan"

_BEST_TOKENS = 32
"""The length that kernels are chosen for: that of a sentence."""


class TensorRtSettings(Settings, frozen=True, kw_only=True):
    """What can be set.

    Attributes
    ----------
    precision:
        In which numbers the engine computes.
    batch:
        The most texts at once.
    workspace:
        Bytes of the GPU's memory that a layer may use for its own work. Much more gains little, and small devices
        share it with the processor.
    """

    precision: Literal["fp32", "fp16"] = "fp16"
    batch: Annotated[int, msgspec.Meta(ge=1)] = 8
    workspace: Annotated[int, msgspec.Meta(ge=1 << 20)] = 1 << 30


class ConvertTensorRt:
    """A TensorRT engine for the GPU of this machine."""

    name: ClassVar[str] = "convert-tensorrt"
    kind: ClassVar[Kind] = "quantize"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "a TensorRT engine in fp16 or fp32 for the NVIDIA GPU of this machine; not yet tried on one"
    )
    toolchain: ClassVar[str | None] = None
    makes: ClassVar[Form] = "tensorrt"

    def refuses(self, artifact: Artifact) -> str:
        """Return why it cannot be applied, or an empty text."""
        return refuses_onnx(artifact)

    def candidates(self, artifact: Artifact, workbench: Workbench) -> list[dict[str, Any]]:
        """Return both precisions, the faster first; none where no engine can be built."""
        require_accepted(self.refuses(artifact), self.name)
        if not TensorRtRuntime.availability().usable:
            return []
        return [plain(TensorRtSettings()), plain(TensorRtSettings(precision="fp32"))]

    def apply(self, artifact: Artifact, settings: dict[str, Any], workbench: Workbench, target: Path) -> Artifact:
        """Build the engine; minutes.

        Raises ``DependencyError`` without TensorRT, its driver or a GPU.
        """
        require_accepted(self.refuses(artifact), self.name)
        told = read_settings(TensorRtSettings, settings, self.name)
        found = TensorRtRuntime.availability()
        if not found.usable:
            raise DependencyError(f"an engine is built where it runs: {found.reason}", where=self.name, hint=found.hint)
        library, _ = import_tensorrt()
        with tempfile.TemporaryDirectory() as scratch:
            graph = artifact.path
            if told.precision == "fp16":
                graph = OnnxHalf().apply(artifact, {"compute": "fp16"}, workbench, Path(scratch)).path
            plan = built(library, graph, told, artifact.max_tokens)
        (target / FILE).write_bytes(plan)
        return forged(artifact, self, settings, target, (FILE,), form="tensorrt")


def built(library: Any, graph: Path, told: TensorRtSettings, most_tokens: int) -> bytes:
    """Return the bytes of an engine; raises ``ModelKindError`` with TensorRT's words where it refuses the graph."""
    logger = library.Logger(library.Logger.ERROR)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        said = [str(parser.get_error(place).desc()) for place in range(parser.num_errors)]
        raise ModelKindError(f"TensorRT cannot read the graph: {(said or ['no reason given'])[0]}", where=str(graph))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, told.workspace)
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    for one in inputs:
        profile.set_shape(one.name, *shapes(one.name, tuple(one.shape), told.batch, most_tokens))
    if any(-1 in tuple(one.shape) for one in inputs):
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelKindError("TensorRT can build no engine of the graph", where=str(graph))
    return bytes(plan)


def shapes(name: str, shape: tuple[int, ...], batch: int, most_tokens: int) -> tuple[tuple[int, ...], ...]:
    """Return the least, the best and the largest shape of an input: axis 0 counts texts, axis 1 tokens.

    Raises ``ModelKindError`` for any other axis without a size, since nothing tells its limits.
    """
    if -1 in shape[2:] or (len(shape) != 2 and -1 in shape[1:]):
        raise ModelKindError(
            f"the input {name} has an axis without a size that is neither texts nor tokens: {shape}",
            expected="a graph with fixed sizes there",
        )  # fmt: skip
    ends = ((1, 1, batch), (1, min(_BEST_TOKENS, most_tokens), most_tokens))

    def filled(which: int) -> tuple[int, ...]:
        return tuple(ends[place][which] if size == -1 else size for place, size in enumerate(shape))

    return filled(0), filled(1), filled(2)
