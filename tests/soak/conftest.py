"""The report of a soak: a table at the end, and ``bench/results/soak.json`` in the form of every benchmark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.report import Report


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """Collect the rows of every soak, then print and write them."""
    made = Report("soak", packages=("numpy", "onnxruntime", "tokenizers", "uvicorn"))
    yield made
    made.finish()
