"""Alert: append one line about the record on standard input to the file that is named, as a pager would be called."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Write `LABEL SCORE TIME: MESSAGE`; return 0."""
    record = json.load(sys.stdin)
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as alerts:
        alerts.write(f"{record['label']} {record['score']:.0%} {record.get('time', '-')}: {record['message']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
