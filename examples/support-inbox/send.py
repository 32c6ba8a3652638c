"""Send: post the sample tickets to the inbox, one after the other, and say what it answers."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TICKETS = Path(__file__).parent / "data" / "tickets.jsonl"


def post(url: str, ticket: bytes, patience_s: float) -> int:
    """Post one ticket and return the status; an inbox that is not up yet, or full, is tried again until it is."""
    give_up_s = time.monotonic() + patience_s
    request = urllib.request.Request(url, data=ticket, headers={"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > give_up_s:
                return error.code
        except OSError:
            if time.monotonic() > give_up_s:
                raise
        time.sleep(0.2)


def main() -> int:
    """Send all tickets; return 0 when every one was taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8085/inbox", help="the inbox (%(default)s)")
    parser.add_argument("--wait", type=float, default=20.0, help="seconds to wait for an inbox (%(default)s)")
    args = parser.parse_args()
    tickets = TICKETS.read_bytes().splitlines()
    try:
        statuses = [post(args.url, ticket, args.wait) for ticket in tickets]
    except OSError as error:
        print(f"nobody listens on {args.url}: {error}", file=sys.stderr)
        return 1
    taken = sum(status == 202 for status in statuses)
    print(f"{taken} of {len(tickets)} tickets taken by {args.url}")
    return 0 if taken == len(tickets) else 1


if __name__ == "__main__":
    sys.exit(main())
