"""Bare: MiniLM by hand, as little code as it takes; the yardstick of the engine, and what the peers serve.

Needs nothing but onnxruntime, tokenizers and numpy, so that it runs in every peer's environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

MODEL, TOKENIZER = "BENCH_MODEL", "BENCH_TOKENIZER"
"""The environment variables that name the files for a peer."""
MAX_TOKENS = 256


class BareEncoder:
    """Tokenizer, session, mean over the tokens, length 1: one text at a time."""

    def __init__(self, session: Any, tokenizer: Any) -> None:
        self._session = session
        self._tokenizer = tokenizer

    def embed(self, text: str) -> Any:
        """Return the vector of one text: float32 of shape (dimension,)."""
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        vector = self._session.run(None, inputs)[0][0].sum(axis=0)
        return vector / np.sqrt(vector @ vector)


def open_tokenizer(path: Path) -> Any:
    """Return a tokenizer that neither pads nor goes beyond what the model takes."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def open_session(path: Path) -> Any:
    """Return a session with one thread that does not spin, as the engine's is."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def from_environment() -> BareEncoder:
    """Return the encoder of the files that the benchmark named."""
    return BareEncoder(open_session(Path(os.environ[MODEL])), open_tokenizer(Path(os.environ[TOKENIZER])))


def answer(vector: Any) -> int:
    """Return what a peer sends back: one number, so that it is not charged for writing 384 of them as JSON."""
    return int(vector.argmax())
