"""The parts of a PyTorch model: modules that take and give named tensors, found by what the model says of itself.

A part is the whole model, its ``encoder`` or ``decoder``, or the tower of one of the things that it compares
(``text``, ``vision``, ``audio``). Nothing here knows an architecture by name: inputs come from the signature of
``forward`` and the sizes in the configuration. Used by Skerry and by the converters, whose Python has no Skerry.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LENGTHS: Mapping[str, int] = {"batch": 2, "tokens": 7, "source": 9, "samples": 3200}
"""The sizes of the example that is traced; primes and odd ones, so that no two axes are taken for one."""

_FEATURES = {"vision": "image"}
"""How models call the method of a part where it is not called as its configuration is."""

_SKIPPED = ("past_key_values", "hidden_states", "attentions", "loss")
"""Answers that only the library itself has a use for, whatever stands before the name."""


class UnfitError(Exception):
    """The model cannot be taken; ``kind`` is ``corrupt`` or ``kind``, as converters refuse."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Tensor:
    """An input: ``ids`` are below ``limit``, a ``mask`` is 1 or 0, ``zeros`` are types of tokens, ``numbers`` are fp32.

    An axis of ``shape`` is a size, or the name of one that is free.
    """

    name: str
    kind: Literal["ids", "mask", "zeros", "numbers"]
    shape: tuple[int | str, ...]
    limit: int = 0


@dataclass(frozen=True)
class Part:
    """A module that takes tensors in the order of ``inputs`` and gives a tuple in the order of ``outputs``."""

    module: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    most: int
    """The most tokens that it takes, a large number where it does not tell."""

    def axes(self) -> set[str]:
        """Return the names of the axes that are free."""
        return {size for one in self.inputs for size in one.shape if isinstance(size, str)}

    def example(self, torch: Any, sizes: Mapping[str, int] = LENGTHS) -> dict[str, Any]:
        """Return made-up inputs; the last row of a batch is masked from two thirds of its length on."""
        generator = torch.Generator().manual_seed(sum(sizes.values()))
        return {one.name: _made_up(torch, one, sizes, generator) for one in self.inputs}


def load_part(torch: Any, folder: Path, task: str, name: str) -> Part:
    """Return a part of the model in a folder as Hugging Face writes it, in fp32.

    For ``classification`` with the head for classes of texts, for ``embedding`` without one, else with the head that
    the configuration names. The answers are then the classes' scores, the vectors, or all that there are.

    Raises :class:`UnfitError` where weights are damaged, missing or no numbers, or the inputs cannot be told.
    """
    transformers = importlib.import_module("transformers")
    try:
        model, told = _class(transformers, folder, task).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, attn_implementation="eager",
            dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # the libraries raise a dozen kinds, and all of them mean the same here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnfitError("corrupt", f"the weights cannot be read: {reason}") from error
    part = find_part(torch, model.eval(), name, _WANTED.get(task, ()))
    _require_weights(torch, model, part, set(told["missing_keys"]), task)
    return part


def find_part(torch: Any, model: Any, name: str, wanted: tuple[str, ...] = ()) -> Part:
    """Return a part by its name, the whole model for an empty one; raises :class:`UnfitError`.

    Of its outputs those that are ``wanted``, if it has them, else all.
    """
    if name == "encoder":
        return _encoder(torch, model, wanted)
    if name == "decoder":
        return _decoder(torch, model, wanted)
    if name:
        return _tower(torch, model, name)
    fixed = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    inputs = _inputs_of(model, model.config, model.forward)
    return _answering(torch, model, lambda named: model(**named, **fixed), inputs, model.config, wanted)


_WANTED = {"classification": ("logits",), "embedding": ("last_hidden_state",)}


def _class(transformers: Any, folder: Path, task: str) -> Any:
    if task == "classification":
        return transformers.AutoModelForSequenceClassification
    if task == "embedding":
        return transformers.AutoModel
    named = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    kind = getattr(transformers, (named.architectures or [""])[0], None)
    known = inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel)
    return kind if known else transformers.AutoModel


def _require_weights(torch: Any, model: Any, part: Part, missing: set[str], task: str) -> None:
    """Raise :class:`UnfitError` where a weight of the part is missing (it would be random) or holds a NaN."""
    own = {id(weight) for weight in part.module.parameters()}
    names = [name for name, weight in model.named_parameters() if id(weight) in own]
    # A pooler is no part of what answers for embeddings, and often not among the weights.
    lacking = sorted(name for name in missing.intersection(names) if task != "embedding" or "pooler." not in name)
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UnfitError("corrupt", f"the weights lack {lacking[0]}{more}: all weights of a {type(model).__name__} are"
                         " needed")  # fmt: skip
    for name, weight in model.named_parameters():
        if id(weight) in own and not torch.isfinite(weight).all():
            raise UnfitError("corrupt", f"the weights {name} hold numbers that are none (NaN or infinity)")


def _encoder(torch: Any, model: Any, wanted: tuple[str, ...] = ()) -> Part:
    encoder = model.get_encoder()
    config = getattr(encoder, "config", model.config)
    inputs = _inputs_of(encoder, config, encoder.forward)
    return _answering(torch, encoder, lambda named: encoder(**named), inputs, config, wanted)


def _decoder(torch: Any, model: Any, wanted: tuple[str, ...]) -> Part:
    """Return the decoder with its head, which takes what the encoder gave."""
    encoder = _encoder(torch, model)
    with torch.no_grad():
        answered = encoder.module.owner(**encoder.example(torch))
    kind, hidden = type(answered), answered.last_hidden_state
    takes = inspect.signature(model.forward).parameters
    fixed = encoder.axes() == {"batch"}
    source: int | str = hidden.shape[1] if fixed else "source"
    ids = Tensor("decoder_input_ids", "ids", ("batch", "tokens"), _vocabulary(model.config))
    inputs = [ids, Tensor("encoder_hidden_states", "numbers", ("batch", source, hidden.shape[-1]))]
    # Features of a fixed length need no mask: none of them is padding.
    if not fixed and "attention_mask" in takes:
        inputs.append(Tensor("encoder_attention_mask", "mask", ("batch", source)))

    def answer(named: dict[str, Any]) -> Any:
        ids = named["decoder_input_ids"]
        given = {"decoder_input_ids": ids, "use_cache": False}
        if "decoder_attention_mask" in takes:
            given["decoder_attention_mask"] = torch.ones_like(ids)
        if "encoder_attention_mask" in named:
            given["attention_mask"] = named["encoder_attention_mask"]
        return model(encoder_outputs=kind(last_hidden_state=named["encoder_hidden_states"]), **given)

    return _answering(torch, model, answer, tuple(inputs), model.config, wanted)


def _tower(torch: Any, model: Any, name: str) -> Part:
    """Return the part of a model that compares several kinds of things, as a vector in their common space."""
    word = _FEATURES.get(name, name)
    method = getattr(model, f"get_{word}_features", None)
    config = getattr(model.config, f"{name}_config", None)
    if method is None or config is None:
        raise UnfitError("kind", f"a {type(model).__name__} has no part {name!r} that answers by itself")

    def answer(named: dict[str, Any]) -> dict[str, Any]:
        found = method(**named)
        return {f"{word}_embeds": found if isinstance(found, torch.Tensor) else found.pooler_output}

    return _answering(torch, model, answer, _inputs_of(model, config, method), config, ())


def _answering(
    torch: Any,
    owner: Any,
    answer: Callable[[dict[str, Any]], Any],
    inputs: tuple[Tensor, ...],
    config: Any,
    wanted: tuple[str, ...],
) -> Part:
    """Return a part whose outputs are found by asking it once."""
    names = [one.name for one in inputs]
    with torch.no_grad():
        found = answer(Part(None, inputs, (), 0).example(torch))
    given = tuple(name for name, value in _fields(found) if isinstance(value, torch.Tensor))
    outputs = tuple(name for name in wanted if name in given) or given

    class Answer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.owner = owner

        def forward(self, *tensors: Any) -> Any:
            found = answer(dict(zip(names, tensors, strict=True)))
            return tuple(found[name] for name in outputs)

    return Part(Answer().eval(), inputs, outputs, _most(config))


def _fields(answer: Any) -> Iterator[tuple[str, Any]]:
    for name, value in answer.items():
        if not name.endswith(_SKIPPED) and not name.startswith("encoder_"):
            yield name, value


def _most(config: Any) -> int:
    """Return the most tokens by the configuration, without those positions that a padding shifts away."""
    names = ("max_target_positions", "max_position_embeddings", "n_positions")
    told = next((getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)), 0)
    shifted = (getattr(config, "pad_token_id", None) or 0) + 1
    return max(told - shifted, 1) if told > 0 else 1 << 30


def _inputs_of(module: Any, config: Any, function: Any) -> tuple[Tensor, ...]:
    """Return the inputs of a function that cannot be left out, by its signature and the sizes in the configuration."""
    takes = inspect.signature(function).parameters
    for name, derive in _DERIVED.items():
        if name in takes:
            return derive(module, config, takes)
    raise UnfitError("kind", f"a {type(module).__name__} takes {', '.join(takes)}: what that is cannot be told")


def _text(module: Any, config: Any, takes: Mapping[str, Any]) -> tuple[Tensor, ...]:
    axes = ("batch", "tokens")
    found = [Tensor("input_ids", "ids", axes, _vocabulary(config))]
    if "attention_mask" in takes:
        found.append(Tensor("attention_mask", "mask", axes))
    # One type alone is no input.
    if "token_type_ids" in takes and getattr(config, "type_vocab_size", 0) > 1:
        found.append(Tensor("token_type_ids", "zeros", axes))
    return tuple(found)


def _image(module: Any, config: Any, takes: Mapping[str, Any]) -> tuple[Tensor, ...]:
    size = getattr(config, "image_size", None) or 224
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return (Tensor("pixel_values", "numbers", ("batch", getattr(config, "num_channels", 3), height, width)),)


def _spectrum(module: Any, config: Any, takes: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return features of sound, as many as the positions take after the strides of the convolutions before them."""
    bins, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    if not bins or not frames:
        raise UnfitError("kind", f"the configuration of a {type(module).__name__} does not tell the sizes of sound")
    for layer in module.modules():
        if type(layer).__name__ == "Conv1d":
            frames *= layer.stride[0]
    return (Tensor("input_features", "numbers", ("batch", bins, frames)),)


def _sound(module: Any, config: Any, takes: Mapping[str, Any]) -> tuple[Tensor, ...]:
    bins = getattr(config, "num_mel_bins", None)
    shape = ("batch", config.max_length, bins) if bins else ("batch", "samples")
    return (Tensor("input_values", "numbers", shape),)


_DERIVED: dict[str, Callable[[Any, Any, Mapping[str, Any]], tuple[Tensor, ...]]] = {
    "input_features": _spectrum, "input_values": _sound, "input_ids": _text, "pixel_values": _image,
}  # fmt: skip


def _vocabulary(config: Any) -> int:
    nested = getattr(config, "get_text_config", None)
    return int((nested(decoder=False) if nested else config).vocab_size)


def _made_up(torch: Any, one: Tensor, sizes: Mapping[str, int], generator: Any) -> Any:
    shape = tuple(size if isinstance(size, int) else sizes[size] for size in one.shape)
    if one.kind == "numbers":
        return torch.randn(shape, generator=generator)
    if one.kind == "ids":
        return torch.randint(min(5, one.limit - 1), one.limit, shape, generator=generator)
    if one.kind == "zeros":
        return torch.zeros(shape, dtype=torch.int64)
    mask = torch.ones(shape, dtype=torch.int64)
    if shape[0] > 1:
        mask[-1, shape[1] - shape[1] // 3 :] = 0
    return mask
