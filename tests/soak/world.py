"""The world around the pipeline of the soak, in a process of its own: it writes a log, posts, and takes answers.

``python -m tests.soak.world FOLDER POST_PORT SECONDS`` prints first the port of its server, then after SECONDS what it
did as JSON, and goes on serving until its standard input ends. It is unkind: bursts, rotations, binary garbage, lines
that are too long, bodies that are no JSON, and a server that fails in four ways.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LINES_PER_S = 25
POSTS_PER_S = 8
BURST = 400
ROTATE_AFTER = 2000
TEXTS = (
    "status installed libc6:amd64 2.36-9+deb12u4",
    "upgrade openssl:amd64 3.0.11-1 3.0.13-1",
    "connection to {} was lost",
    "user ann.{}@example.org logged in from 10.0.{}.7",
    "disk /dev/sda{} is {} % full",
    "payment of {} EUR was refused",
    "the oven reached {} degrees",
    "Prüfung {} bestanden",
    "retrying in {} s",
)


class Log:
    """Appends lines to a file, and rotates it."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._path = path
        self._chance = chance
        self._file = path.open("ab")
        self.lines = 0
        self.rotations = 0

    def write(self, count: int) -> None:
        """Append lines, some of which nobody should have written."""
        for _ in range(count):
            self._file.write(self._line() + b"\n")
            self.lines += 1
            if self.lines % ROTATE_AFTER == 0:
                self._rotate()
        self._file.flush()

    def _line(self) -> bytes:
        draw = self._chance.random()
        if draw < 0.01:
            return bytes(self._chance.choice(range(11, 256)) for _ in range(80))
        if draw < 0.012:
            return b"x" * 300_000
        return text(self._chance).encode()

    def _rotate(self) -> None:
        self._file.close()
        self._path.rename(self._path.with_name(f"{self._path.name}.1"))
        self._file = self._path.open("ab")
        self.rotations += 1


class Poster:
    """Posts items, and counts those that were accepted; it does not offer an item again."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._chance = chance
        self.accepted = 0
        self.refused = 0

    def post(self) -> None:
        """Post one item, a few, or nonsense."""
        draw = self._chance.random()
        items = [{"text": text(self._chance)} for _ in range(self._chance.choice((1, 1, 1, 5)))]
        body = b"{no json" if draw < 0.03 else json.dumps(items if len(items) > 1 else items[0]).encode()
        try:
            self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            said = json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            self.refused += 1
            return
        self.accepted += int(said.get("accepted", 0))
        self.refused += answer.status >= 300


class Taker(ThreadingHTTPServer):
    """A server that is well for a while, and then fails in one of four ways for a while."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.taken = 0
        self.mood = "well"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nobody wants to read of the clients that were cut off."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Taker

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mood = self.server.mood
        if mood == "silent":
            self.close_connection = True  # without an answer, and without having taken anything
            return
        if mood == "slow":
            time.sleep(0.5)
        status = {"busy": 503, "stupid": 500}.get(mood, 200)
        if status == 200:
            with self.server.lock:
                self.server.taken += len(json.loads(body))
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 -- the name that http.server gives it
        """Say nothing."""


def text(chance: random.Random) -> str:
    """Return a line of a log."""
    pattern = chance.choice(TEXTS)
    return pattern.format(*(chance.randrange(100) for _ in range(pattern.count("{}"))))


def main() -> None:
    """Be the world."""
    folder, port, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    chance = random.Random(2)
    log, poster, taker = Log(folder / "feed.log", chance), Poster(port, chance), Taker()
    threading.Thread(target=taker.serve_forever, daemon=True).start()
    say({"port": taker.server_address[1]})
    sys.stdin.readline()  # the pipeline is up
    begin = time.monotonic()
    ticks = 0
    while (now := time.monotonic() - begin) < seconds:
        taker.mood = ("well", "well", "busy", "well", "silent", "slow", "well", "stupid")[int(now / 4) % 8]
        log.write(BURST if ticks % 150 == 149 else LINES_PER_S // 10 + ticks % 2)
        if ticks % 10 < POSTS_PER_S:
            poster.post()
        ticks += 1
        time.sleep(max(0.0, begin + ticks / 10 - time.monotonic()))
    taker.mood = "well"
    say({"lines": log.lines, "rotations": log.rotations, "accepted": poster.accepted, "refused": poster.refused})
    sys.stdin.readline()
    with taker.lock:
        say({"taken": taker.taken})


def say(facts: dict[str, Any]) -> None:
    """Tell the soak one line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
