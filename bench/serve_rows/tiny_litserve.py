"""The LitServe server of the tiny model: ``python -m bench.serve_rows.tiny_litserve PORT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from bench.serve_rows.tiny import from_environment


class Adder(litserve.LitAPI):  # type: ignore[misc]
    """Takes ``{"x": […]}`` and answers ``{"y": […]}``, one at a time as LitServe does by default."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.tiny = from_environment()

    def decode_request(self, request: dict[str, list[float]]) -> list[float]:
        """Return the numbers."""
        return request["x"]

    def predict(self, numbers: list[float]) -> list[float]:
        """Run the model."""
        return self.tiny.add(numbers)

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"y": output}


def main() -> None:
    """Serve on loopback."""
    server = litserve.LitServer(Adder(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )


if __name__ == "__main__":
    main()
