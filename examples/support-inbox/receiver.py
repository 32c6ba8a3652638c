"""Receiver: stands in for the ticket system that the webhooks are meant for; prints what arrives and keeps it."""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MOST = 1_000_000
"""Bytes of the longest request that is read."""


class Receiver(ThreadingHTTPServer):
    """A server on this machine alone that appends what it gets to a file."""

    def __init__(self, port: int, kept: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        kept.parent.mkdir(parents=True, exist_ok=True)
        self.kept = kept


class Handler(BaseHTTPRequestHandler):
    """Takes one request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Keep the ticket, print it, and answer 204."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST:
            self.send_error(413)
            return
        try:
            ticket = json.loads(self.rfile.read(length))
        except ValueError:
            self.send_error(400)
            return
        assert isinstance(self.server, Receiver)
        with self.server.kept.open("a", encoding="utf-8") as kept:
            kept.write(json.dumps({"path": self.path, "ticket": ticket}) + "\n")
        print(f"{self.path:<20} {ticket.get('subject', '')}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing more: each ticket has its line already."""


def main() -> int:
    """Receive until Ctrl-C; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8086, help="0 takes a free one (%(default)s)")
    parser.add_argument("--keep", type=Path, default=Path(__file__).parent / "out" / "received.jsonl")
    args = parser.parse_args()
    with Receiver(args.port, args.keep) as server:
        print(f"receiving on http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
