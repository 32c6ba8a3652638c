"""The BentoML service of the tiny model: ``python -m bentoml serve bench.serve_rows.tiny_bentoml:Adder``."""

from __future__ import annotations

import bentoml

from bench.serve_rows.tiny import from_environment


@bentoml.service(workers=1)
class Adder:
    """Takes ``{"x": […]}`` and answers a list, one at a time as BentoML does by default."""

    def __init__(self) -> None:
        self.tiny = from_environment()

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    def predict(self, x: list[float]) -> list[float]:
        """Run the model."""
        return self.tiny.add(x)
