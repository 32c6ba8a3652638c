"""The BentoML service of the bare encoder: ``python -m bentoml serve bench.peers.bentoml_server:Encoder``."""

from __future__ import annotations

import bentoml

from bench.peers.bare import answer, from_environment


@bentoml.service(workers=1)
class Encoder:
    """Takes ``{"text": …}`` and answers a number, one at a time as BentoML does by default."""

    def __init__(self) -> None:
        self.encoder = from_environment()

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    def predict(self, text: str) -> int:
        """Embed a text."""
        return answer(self.encoder.embed(text))
