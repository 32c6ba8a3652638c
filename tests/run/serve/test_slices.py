"""Slices: a large request of texts lets others through, can be given up, and comes back in its own order."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from skerry.run.serve.servable import Inputs, Outputs
from skerry.run.serve.slices import ROWS
from skerry.run.serve.texts import TextServable
from tests.run.serve.parts import PATIENCE_S, Answer, ask, serving, text_model, wait_for

TEXTS = [f"text {'and more ' * (number * 7 % 5)}number {number}" for number in range(3 * ROWS + 5)]


class Held:
    """A model of texts whose every run is noted, and waits for a permit."""

    def __init__(self, inner: TextServable) -> None:
        self._inner = inner
        self.runs: list[int] = []
        self.permits = threading.Semaphore(0)
        self.has_begun = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, requests: Sequence[Inputs], wanted: frozenset[str]) -> list[Outputs]:
        self.has_begun.release()
        assert self.permits.acquire(timeout=PATIENCE_S)
        self.runs.append(sum(len(request["text"]) for request in requests))
        return self._inner.run(requests, wanted)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    model: Any = Held(text_model(tmp_path, "adder"))
    yield model
    model.permits.release(100)


def body(texts: list[str]) -> dict[str, Any]:
    return {"model": "adder", "input": texts}


def asked(server: Any, texts: list[str], answers: list[Answer], **headers: str) -> threading.Thread:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    thread = threading.Thread(target=lambda: answers.append(ask(server, "/v1/embeddings", body(texts), headers=named)))
    thread.start()
    return thread


def test_small_requests_pass_between_slices_and_the_order_is_kept(held: Any) -> None:
    with serving(held) as server:
        large: list[Answer] = []
        small: list[Answer] = []
        bulk = asked(server, TEXTS, large)
        assert held.has_begun.acquire(timeout=PATIENCE_S)
        other = asked(server, ["a text alone"], small)
        wait_for(server, "skerry_serve_queued_rows", 1)
        second = ask(server, "/v1/embeddings", body(TEXTS))  # large ones do not pile up
        assert second.status == 429
        held.permits.release(100)
        bulk.join(PATIENCE_S)
        other.join(PATIENCE_S)
        assert held.runs == [ROWS, 1, ROWS, ROWS, 5]
        assert small[0].status == 200
        found = large[0].json["data"]
        for place in (0, 1, 77, len(TEXTS) - 1):
            alone = ask(server, "/v1/embeddings", body([TEXTS[place]])).json["data"][0]["embedding"]
            assert found[place]["index"] == place and found[place]["embedding"] == pytest.approx(alone, abs=1e-6)
        tokens = sum(len(text.split()) for text in TEXTS)
        assert large[0].json["usage"]["prompt_tokens"] == tokens


def test_what_is_left_is_not_run_after_the_deadline(held: Any) -> None:
    with serving(held) as server:
        large: list[Answer] = []
        bulk = asked(server, TEXTS, large, Skerry_Deadline_Ms="100")
        bulk.join(PATIENCE_S)
        assert large[0].status == 504
        held.permits.release(100)
        assert ask(server, "/v1/embeddings", body(["a text alone"])).status == 200
    assert held.runs == [ROWS, 1]
