"""LiteRT keeps the contract of a runtime: with one length, with several, with an open shape, and with either engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.runtimes.litert import LiteRtRuntime
from skerry.testing.runtimes import CHECKS, Specimen
from tests.runtimes.litert_files import build_litert_encoder

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: pip install 'skerry[litert]'")

Check = Callable[[Specimen], None]
contract = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@pytest.fixture(scope="session")
def open_shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one signature whose rows and tokens are both dynamic."""
    return build_litert_encoder(tmp_path_factory.mktemp("litert") / "open.tflite", [(1, 1)], dynamic=True)


def _specimen(model: Path, wrong_kind: Path, batch: dict, folder: Path, **options: Any) -> Specimen:
    """Of the 9 MiB of weights, those of the dense layer are prepared; the table stays in the mapped file until used.

    Each copy has a second thread of its own, so that with several there is more than one more.
    """
    return Specimen(
        runtime=LiteRtRuntime, model=model, inputs=batch, wrong_kind=wrong_kind, folder=folder, options=options,
        memory_at_least_bytes=2**20, starts_threads="copies" not in options,
    )  # fmt: skip


@contract
@pytest.mark.parametrize("engine", ["interpreter", "compiled"])
def test_several_lengths(
    check: Check, engine: str, litert_model: Path, null_model: Path, batch: dict, tmp_path: Path
) -> None:
    check(_specimen(litert_model, null_model, batch, tmp_path, engine=engine))


@contract
def test_an_open_shape(check: Check, open_shape: Path, null_model: Path, batch: dict, tmp_path: Path) -> None:
    check(_specimen(open_shape, null_model, batch, tmp_path))


@contract
def test_several_copies_of_fixed_rows(check: Check, null_model: Path, batch: dict, tmp_path: Path) -> None:
    model = build_litert_encoder(tmp_path / "rows.tflite", [(1, 5), (2, 5)], dtype="INT32")
    batch = {name: array.astype(np.int32) for name, array in batch.items()}
    check(_specimen(model, null_model, batch, tmp_path, copies=2, engine="interpreter"))
