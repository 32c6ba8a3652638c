"""A bare ASGI function behind uvicorn and httptools: ``python -m bench.serve_rows.plain_uvicorn PORT``.

It answers what ``/v2/health/live`` of ``skerry serve`` does; what differs is the layers between socket and answer.
"""

from __future__ import annotations

import sys
from typing import Any

BODY = b'{"live":true}'


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer anything with the same 13 bytes, after the body was read as an application has to."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    """Serve on loopback."""
    import uvicorn

    uvicorn.run(
        application, host="127.0.0.1", port=int(sys.argv[1]), loop="asyncio", http="httptools", lifespan="off",
        ws="none", access_log=False, log_level="error", server_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
