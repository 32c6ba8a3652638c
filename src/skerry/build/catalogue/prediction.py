"""A prediction: bytes on disk, peak memory and time of a model, from its shape and a device's figures alone.

Nothing here is measured on the model; ``skerry build`` does that. The constants come from few measurements, and each
says which. Time is a roofline without overlap: what is computed at the rate of matrix products, plus what has to come
from memory at its bandwidth. Source of the method: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful
visual performance model for multicore architectures", CACM 52(4), 2009; the sum instead of the maximum, because the
measured encoder spent both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from skerry.build.catalogue import ModelEntry, Shape
from skerry.spec.profile import DeviceProfile

Precision = Literal["fp32", "fp16", "int8", "int4"]
Runtime = Literal["onnxruntime", "litert"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")
"""From the mildest to the harshest."""
TOKENS = 32
"""Tokens of a text, unless said otherwise: a log line, a sentence."""
CONTEXT = 512
"""Tokens that a decoder has read when it writes the one that is timed."""

BYTES_PER_WEIGHT: dict[Precision, float] = {"fp32": 4.0, "fp16": 2.0, "int8": 1.02, "int4": 0.5625}
"""Scales included: int8 files of all-MiniLM-L6-v2 were 22.8 and 23.4 MB for 22.7 M weights; int4 has a 16-bit scale
for every 32 weights. Tables of words are quantized like the rest."""


class RuntimeCost(NamedTuple):
    """What a runtime adds: bytes of the process before a model is there, and bytes in memory per byte of weights."""

    base_bytes: float
    copies: float


RUNTIMES: dict[Runtime, RuntimeCost] = {
    "onnxruntime": RuntimeCost(48e6, 1.4),
    "litert": RuntimeCost(28e6, 1.0),
}
"""Fitted to the peak resident memory of all-MiniLM-L6-v2 in a Python process on x86-64 (MB, measured | predicted):
ONNX Runtime fp32 186 | 185, int8 89 | 90; LiteRT fp32 123 | 129, int8 63 | 61, int4 53 | 51. The one that Skerry has
had longest is first."""

TOKENIZER_BYTES = {"wordpiece": 330, "bpe": 850, "unigram": 1550}
"""Resident memory per word of the vocabulary: measured with the package tokenizers, vocabularies of 30,000 (WordPiece),
60,000 (BPE) and 250,000 (Unigram) random words."""
TOKENIZER_FILE_BYTES = {"wordpiece": 24, "bpe": 65, "unigram": 56}
"""Bytes of ``tokenizer.json`` per word, of the same vocabularies."""

COMPUTE_SHARE = {"encoder": (1.0, 0.45), "static": (1.0, 0.45), "decoder": (1.0, 0.45), "speech": (1.0, 0.45),
                 "image": (0.7, 0.35)}  # fmt: skip
"""The share of the device's rate of matrix products that a model reaches, in floating point and in int8. Encoders: from
all-MiniLM-L6-v2 on one x86-64 core, ONNX Runtime. Images: convolutions by depth reach less; EfficientNet-Lite0's
published 12 ms (fp32) and 6.5 ms (int8) on a phone's four Cortex-A76 cores are the hint."""
INT4_SHARE = 0.9
"""int4 weights are unpacked to int8 before the product: measured 3.1 against 3.5 times fp32 with LiteRT."""
PIXEL_BYTES = 128
"""Activations alive at once per pixel of the input: two feature maps of 64 channels in fp32 at half the resolution.
An assumption; it is small beside the runtime."""
CACHED_SHARE = 0.5
"""Weights that fit into this share of the last cache do not come from memory again at every inference."""
HALF_ISA = frozenset({"fp16", "avx512_fp16", "amx_fp16"})
"""Instruction sets with which 16-bit floats are computed as such; others unpack them to 32 bits first."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is used: ``tokens`` of a text, ``context`` tokens before a written one."""

    tokens: int = TOKENS
    context: int = CONTEXT


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be expected of one model in one precision with one runtime.

    Attributes
    ----------
    size_bytes:
        On disk: weights and tokenizer.
    weights_bytes, embedding_bytes:
        Of the weights in their precision, and of the tables of words among them.
    activation_bytes:
        Peak of what is computed on the way, with a decoder's keys and values.
    tokenizer_bytes:
        The tokenizer in memory.
    memory_bytes:
        Peak of the process: runtime, weights, activations and tokenizer.
    latency_s:
        Seconds for one item; ``None`` without a device, or when its rates are not known.
    compute_s, transfer_s:
        The two parts of it: computing, and bringing weights from memory.
    """

    precision: Precision
    runtime: Runtime
    size_bytes: float
    weights_bytes: float
    embedding_bytes: float
    activation_bytes: float
    tokenizer_bytes: float
    memory_bytes: float
    latency_s: float | None = None
    compute_s: float | None = None
    transfer_s: float | None = None


def predictions(
    model: ModelEntry,
    device: DeviceProfile | None = None,
    setting: Setting | None = None,
    *,
    runtime: Runtime | None = None,
) -> Iterator[Prediction]:
    """Predict a model in every precision with every runtime (or one), the mildest precision first.

    Parameters
    ----------
    model:
        An entry of the catalogue.
    device:
        For the time, and for whether 16-bit floats save memory; ``None`` predicts no time.
    setting:
        Lengths; the defaults if ``None``.
    runtime:
        The only one to predict.
    """
    chosen = setting or Setting()
    for precision in PRECISIONS:
        for name in RUNTIMES if runtime is None else (runtime,):
            yield predict(model, precision, name, device, chosen)


def predict(
    model: ModelEntry, precision: Precision, runtime: Runtime, device: DeviceProfile | None, setting: Setting
) -> Prediction:
    """Predict a model in one precision with one runtime; see ``predictions``."""
    weights = model.parameters.value * BYTES_PER_WEIGHT[precision]
    activations = activation_bytes(model, setting)
    tokenizer = _per_word(model.shape, TOKENIZER_BYTES)
    cost = RUNTIMES[runtime]
    resident = model.parameters.value * BYTES_PER_WEIGHT[in_memory(precision, device)] * cost.copies
    time = latency(model, precision, device, setting)
    return Prediction(
        precision=precision,
        runtime=runtime,
        size_bytes=weights + _per_word(model.shape, TOKENIZER_FILE_BYTES),
        weights_bytes=weights,
        embedding_bytes=model.embedding_parameters * BYTES_PER_WEIGHT[precision],
        activation_bytes=activations,
        tokenizer_bytes=tokenizer,
        memory_bytes=cost.base_bytes + resident + activations + tokenizer,
        latency_s=None if time is None else time[0] + time[1],
        compute_s=None if time is None else time[0],
        transfer_s=None if time is None else time[1],
    )


def in_memory(precision: Precision, device: DeviceProfile | None) -> Precision:
    """The precision that weights have once loaded: 16-bit floats become 32-bit where the processor has none."""
    if precision == "fp16" and (device is None or not HALF_ISA & set(device.cpu.isa)):
        return "fp32"
    return precision


def activation_bytes(model: ModelEntry, setting: Setting) -> float:
    """Peak bytes of activations, in fp32; of a decoder's keys and values, in 16 bits."""
    shape = model.shape
    match model.work.kind:
        case "static":
            return 4.0 * (shape.hidden or 0)
        case "image":
            return float(PIXEL_BYTES * (shape.image or 0) ** 2)
        case "encoder":
            return _attention_bytes(shape, setting.tokens)
        case "speech":
            return _attention_bytes(shape, shape.frames or 0)
        case "decoder":
            # 2 for keys and values, 2 bytes each; then one row of activations and of scores for every word.
            cache = 2.0 * 2 * (shape.layers or 0) * (shape.key_value or shape.hidden or 0) * setting.context
            return cache + 4.0 * (shape.vocabulary or 0) + _attention_bytes(shape, 1)


def _attention_bytes(shape: Shape, positions: int) -> float:
    """Eight rows of the width, two of the inner width, and two matrices of attention per head, alive at once."""
    rows = 8 * (shape.hidden or 0) + 2 * (shape.feed_forward or 0)
    return 4.0 * (positions * rows + 2 * (shape.heads or 0) * positions**2)


def macs(model: ModelEntry, setting: Setting) -> float:
    """Multiply-adds of one item: a text of ``tokens``, an image, an utterance, or one written token."""
    shape, matrices = model.shape, model.parameters.value - model.embedding_parameters
    width, layers = shape.hidden or 0, shape.layers or 0
    match model.work.kind:
        case "static":
            return float(setting.tokens * width)
        case "encoder":
            return matrices * setting.tokens + 2.0 * layers * width * setting.tokens**2
        case "decoder":
            # The table of words is at the same time the last matrix, so all parameters take part.
            return model.parameters.value + 2.0 * layers * width * setting.context
        case "image" | "speech":
            return model.work.macs.value if model.work.macs is not None else 0.0


def moved_weights(model: ModelEntry, setting: Setting) -> float:
    """Weights that one item brings from memory: all but the table of words, and again for each step of a decoder."""
    work, shape = model.work, model.shape
    if work.kind == "static":
        return float(setting.tokens * (shape.hidden or 0))
    if work.kind == "decoder":
        return model.parameters.value
    once = work.active if work.active is not None else model.parameters.value - model.embedding_parameters
    return once + work.steps * work.step_parameters


def latency(
    model: ModelEntry, precision: Precision, device: DeviceProfile | None, setting: Setting
) -> tuple[float, float] | None:
    """Seconds of computing and of bringing weights from memory for one item, on all usable cores.

    Returns
    -------
    tuple of two floats, or None
        ``None`` without a device, or when it does not tell its rate of matrix products or its bandwidth.
    """
    if device is None:
        return None
    rate, bandwidth = rate_of(model, precision, device), device.memory.bandwidth_bytes_per_s
    if rate is None or not bandwidth:
        return None
    each = BYTES_PER_WEIGHT[in_memory(precision, device)]
    cached = 0 if rereads(model) else CACHED_SHARE * (device.cpu.last_level_cache_bytes or 0)
    matrices = (model.parameters.value - model.embedding_parameters) * each
    moved = 0.0 if matrices <= cached else moved_weights(model, setting) * each
    if model.work.kind == "decoder":
        moved += activation_bytes(model, setting)
    return 2.0 * macs(model, setting) / rate, moved / bandwidth


def rereads(model: ModelEntry) -> bool:
    """Whether a model reads from memory what no cache is expected to keep: rows of a table, or a decoder's all."""
    return model.work.kind in {"static", "decoder"}


def rate_of(model: ModelEntry, precision: Precision, device: DeviceProfile) -> float | None:
    """Operations per second that the model reaches there; int8 falls back to the rate of floats if none is known."""
    share_float, share_int8 = COMPUTE_SHARE[model.work.kind]
    floats = device.cpu.gemm_fp32_flops
    as_float = None if not floats else floats * share_float
    if precision in {"fp32", "fp16"}:
        halved = in_memory(precision, device) == "fp16"
        return None if as_float is None else as_float * (2.0 if halved else 1.0)
    integers = device.cpu.gemm_int8_ops
    as_integer = as_float if not integers else integers * share_int8
    return None if as_integer is None else as_integer * (INT4_SHARE if precision == "int4" else 1.0)


def item_of(model: ModelEntry, setting: Setting) -> str:
    """What one item is, in words: what the latency is for."""
    match model.work.kind:
        case "static" | "encoder":
            return f"a text of {setting.tokens} tokens"
        case "decoder":
            return f"one token after {setting.context}"
        case "image" | "speech":
            return model.work.item


def _per_word(shape: Shape, table: dict[str, int]) -> float:
    return float((shape.vocabulary or 0) * table[shape.tokenizer]) if shape.tokenizer is not None else 0.0
