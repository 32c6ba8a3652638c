"""The cloud: `skerry serve` on this machine, at the end of a link that is as thin and as far as you say."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from skerry.testing.shaped_link import ShapedLink


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8087, help="of the link's near end (8087)")
    parser.add_argument("--kbit", type=float, default=1000, help="rate of each direction, kbit/s (1000)")
    parser.add_argument("--round-trip", type=float, default=60, help="there and back, ms (60)")
    chosen = parser.parse_args()
    words = [sys.executable, "-m", "skerry", "serve", str(Path(__file__).parent / "cloud"), "--port", "0", "--json"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    told = server.stdout.readline()
    if not told:
        sys.exit("the cloud did not come up")
    target = ("127.0.0.1", int(json.loads(told)["url"].rsplit(":", 1)[1].strip("/")))
    rate, round_trip_s = 1000 * chosen.kbit, chosen.round_trip / 1000
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with ShapedLink(target, rate_bits_per_s=rate, round_trip_s=round_trip_s, port=chosen.port) as link:
        print(
            f"the cloud is at http://127.0.0.1:{link.port}, {chosen.kbit:g} kbit/s and {chosen.round_trip:g} ms away",
            flush=True,
        )
        over.wait()
        print(f"over the link: {link.sent:,} bytes there, {link.received:,} back", flush=True)
    server.terminate()
    server.wait(20)


if __name__ == "__main__":
    main()
