"""A transformer: a folder with weights opened in PyTorch, its layers found by their shapes and not by its family."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from skerry.build.artifact import Artifact
from skerry.run.tokens import VocabularyTokens
from skerry.spec.errors import DependencyError, ModelCorruptError, ModelKindError

BATCH = 16
"""Texts that are computed at once: more gain nothing on a few cores, and cost memory."""

_WIDTHS = ("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "d_ff")
"""What configurations call the width of a feed-forward."""


def refuses_transformer(artifact: Artifact) -> str:
    """Return why a technique for folders of weights cannot be applied, or an empty text."""
    if artifact.form != "transformer":
        return f"it takes a transformer's folder, and this is {artifact.form}"
    if artifact.part:
        return f"it takes a whole model, and this is the part {artifact.part}"
    return "it takes a model of texts" if artifact.tokenizer is None else ""


def import_torch() -> Any:
    """Import PyTorch; raises ``DependencyError`` when it or transformers is not installed."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        importlib.import_module("transformers")
        return importlib.import_module("torch")
    except ImportError as error:
        raise DependencyError(
            f"changing a transformer's weights needs PyTorch and transformers: {error}",
            hint="pip install 'skerry[build]'",
        ) from error


class Transformer:
    """A model in memory, in fp32 and evaluation mode.

    Raises
    ------
    DependencyError
        PyTorch or transformers is not installed.
    ModelCorruptError
        The weights cannot be read.
    """

    def __init__(self, artifact: Artifact, *, threads: int = 1, seed: int = 0) -> None:
        self.torch = import_torch()
        self.artifact = artifact
        # The threads are those of the process, and so is the seed, which decides the weights that a file lacks.
        self.torch.set_num_threads(max(threads, 1))
        self.torch.manual_seed(seed)
        library: Any = importlib.import_module("transformers")
        kind = library.AutoModel
        if artifact.task == "classification":
            kind = library.AutoModelForSequenceClassification
        try:
            with _quiet():
                self.model = kind.from_pretrained(
                    str(artifact.folder), local_files_only=True, trust_remote_code=False, dtype=self.torch.float32,
                    attn_implementation="eager",
                ).eval()  # fmt: skip
        except Exception as error:  # the libraries raise a dozen kinds, and all of them mean the same here
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelCorruptError(f"the weights cannot be read: {reason}", where=str(artifact.folder)) from error
        self._tokens = VocabularyTokens(artifact.vocabulary, artifact.max_tokens)

    @property
    def config(self) -> Any:
        """The configuration, which is saved with the weights."""
        return self.model.config

    def layers(self) -> Any:
        """Return the list of encoder layers; raises ``ModelKindError`` where they cannot be told apart."""
        count = getattr(self.config, "num_hidden_layers", 0)
        lists = [
            module
            for module in self.model.modules()
            if isinstance(module, self.torch.nn.ModuleList)
            and len(module) == count
            and len({type(layer) for layer in module}) == 1
        ]
        if not lists or count < 1:
            raise ModelKindError("the model's layers cannot be told apart", where=str(self.artifact.folder))
        return max(lists, key=lambda one: sum(weight.numel() for weight in one.parameters()))

    def width(self) -> tuple[str, int]:
        """Return how the configuration calls the width of the feed-forwards, and the width."""
        for name in _WIDTHS:
            if isinstance(getattr(self.config, name, None), int):
                return name, int(getattr(self.config, name))
        raise ModelKindError("the configuration tells no width of feed-forwards", where=str(self.artifact.folder))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts."""
        return [list(ids) for ids in self._tokens.many(texts)]

    def inputs(self, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return a padded batch as tensors."""
        torch = self.torch
        longest = max(len(row) for row in ids)
        rows = [[*row, *[self._tokens.pad] * (longest - len(row))] for row in ids]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
        return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}

    def run(self, ids: Sequence[Sequence[int]], **settings: Any) -> Iterator[tuple[dict[str, Any], Any]]:
        """Yield each batch of inputs and what the model answers, without gradients."""
        with self.torch.no_grad():
            for start in range(0, len(ids), BATCH):
                inputs = self.inputs(ids[start : start + BATCH])
                yield inputs, self.model(**inputs, **settings)

    def pooled(self, inputs: dict[str, Any], answer: Any) -> Any:
        """Return the vectors of a batch as a tensor of shape (texts, dimension), of length 1 where that is asked for.

        For classification they are the logits.
        """
        if self.artifact.task == "classification":
            return answer.logits
        tokens, mask = answer.last_hidden_state, inputs["attention_mask"][:, :, None].to(self.torch.float32)
        if self.artifact.pooling == "cls":
            found = tokens[:, 0]
        elif self.artifact.pooling == "max":
            found = tokens.masked_fill(mask == 0, float("-inf")).amax(dim=1)
        else:
            found = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
        return self.torch.nn.functional.normalize(found, dim=1) if self.artifact.normalize else found

    def save(self, target: Path) -> tuple[str, ...]:
        """Write configuration and weights; return the names of the files, the weights first."""
        with _quiet():
            self.model.save_pretrained(target, safe_serialization=True)
        names = sorted(path.name for path in target.iterdir() if path.suffix in {".safetensors", ".json"})
        return tuple(sorted(names, key=lambda name: not name.startswith("model.safetensors")))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' warnings and bars from the terminal."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
