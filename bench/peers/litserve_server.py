"""The LitServe server of the bare encoder: ``python -m bench.peers.litserve_server PORT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from bench.peers.bare import answer, from_environment


class Encoder(litserve.LitAPI):  # type: ignore[misc]
    """Takes ``{"text": …}`` and answers ``{"answer": …}``, one at a time as LitServe does by default."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.encoder = from_environment()

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the text."""
        return request["text"]

    def predict(self, text: str) -> int:
        """Embed it."""
        return answer(self.encoder.embed(text))

    def encode_response(self, output: int) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"answer": output}


def main() -> None:
    """Serve on loopback."""
    server = litserve.LitServer(Encoder(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )


if __name__ == "__main__":
    main()
